"""HS: Hierarchical Saliency (Yan et al. 2013), a saliency prior from the contrast of regions at three scales.

Yan, Xu, Shi and Jia, "Hierarchical Saliency Detection". Each layer merges regions that are too thin for its scale. The
layers form a tree, along which their saliency is made consistent. Pure functions of arrays: no I/O, no randomness, no
learning.

Shape suffixes: H W pixels, N regions of a layer, M of the next coarser one, E pairs of neighbours, 2 position, 3 Lab.
"""

import math
from itertools import pairwise

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from previts.saliency.superpixels import (
    Array,
    Bools,
    Labels,
    Single,
    mean_positions,
    pairwise_distance,
    region_means,
    scale,
    segment,
)

SCALES = (3, 17, 33)  # pixels in an image of SCALE_AREA: side of the square that a region of each layer must contain
SCALE_AREA = 400 * 300
SIDE_STEP = 1.3  # not stated; ratio of successive sides at which thin regions are merged, thinnest first
# Paper: a watershed, and regions merged one after the other. Superpixels cost less than a watershed, follow edges more
# closely and raised max F on photographs by 0.013. All regions that are too thin for a side are merged at once.
START_REGIONS, START_COMPACTNESS, START_ITERATIONS = 700, 10.0, 2
CONTRAST_SIGMA = 0.2  # sides of the image; multiplied by the root of the layer's scale
LOCATION_WEIGHT = 9.0
OWN_WEIGHT = (0.5, 4.0, 2.0)  # of the difference from a region's own cue, by layer
PARENT_WEIGHT = 4.0  # of the difference from the region that contains it
# Paper: colours are CIELUV. Here they are the Lab of the other priors.


def pixel_saliency(lab_HW3: Single) -> Array:
    """Return the saliency (height, width) of a Lab image in [0, 1]."""
    layers = hierarchy(lab_HW3)
    cues = [cue(lab_HW3, labels_HW, size) for labels_HW, size in zip(layers, SCALES, strict=True)]
    parents = [parent_of(fine_HW, coarse_HW) for fine_HW, coarse_HW in pairwise(layers)]
    return scale(agree(cues, parents))[layers[0]]


def hierarchy(lab_HW3: Single) -> list[Labels]:
    """Return the labels of each layer, fine to coarse; each region is inside one region of the next layer."""
    factor = math.sqrt(lab_HW3.shape[0] * lab_HW3.shape[1] / SCALE_AREA)
    layers = []
    labels_HW, side = segment(lab_HW3, START_REGIONS, START_COMPACTNESS, START_ITERATIONS), 1
    for size in SCALES:
        sides, last = [], math.ceil(size * factor)
        while side < last:
            side = min(last, max(side + 1, round(side * SIDE_STEP)))
            sides.append(side)
        labels_HW = merge(lab_HW3, labels_HW, sides)
        layers.append(labels_HW)
    return layers


def merge(lab_HW3: Single, labels_HW: Labels, sides: list[int]) -> Labels:
    """Return labels of regions that each contain a square of the last side, in pixels.

    For each side in turn, all regions without a square of that side are merged with the neighbour of the nearest mean
    colour. This is repeated until each region contains a square or only one region is left.
    """
    area_N = np.bincount(labels_HW.ravel()).astype(np.float64)
    lab_N3 = region_means(lab_HW3, labels_HW)
    pairs_E2 = neighbours(labels_HW)
    for side in sides:
        while len(area_N) > 1 and (thin_N := ~holds_square(labels_HW, side)).any():
            from_T, to_T = np.flatnonzero(thin_N), nearest_neighbour(lab_N3, pairs_E2)[thin_N]
            links = coo_array((np.ones(len(from_T)), (from_T, to_T)), (len(area_N), len(area_N)))
            _, joined_N = connected_components(links, directed=False)
            sums_M3 = np.stack([np.bincount(joined_N, area_N * channel) for channel in lab_N3.T], axis=1)
            area_N = np.asarray(np.bincount(joined_N, area_N), dtype=np.float64)
            lab_N3 = sums_M3 / area_N[:, None]
            labels_HW = joined_N.astype(np.int32)[labels_HW]
            pairs_E2 = joined_N[pairs_E2]
            pairs_E2 = pairs_E2[pairs_E2[:, 0] != pairs_E2[:, 1]]
    return labels_HW


def neighbours(labels_HW: Labels) -> Labels:
    """Return the pairs (E, 2) of 4-connected regions, each once, smaller label first."""
    count = int(labels_HW.max()) + 1
    keys = []
    for one_HW, other_HW in ((labels_HW[:, :-1], labels_HW[:, 1:]), (labels_HW[:-1], labels_HW[1:])):
        apart_HW = one_HW != other_HW
        one, other = one_HW[apart_HW].astype(np.int64), other_HW[apart_HW].astype(np.int64)
        keys.append(np.minimum(one, other) * count + np.maximum(one, other))
    return np.stack(np.divmod(np.unique(np.concatenate(keys)), count), axis=1).astype(np.int32)


def holds_square(labels_HW: Labels, side: int) -> Bools:
    """Return which regions contain a square of `side` x `side` pixels; `side` is at least 2."""
    same_HW = np.logical_and.reduce(
        [labels_HW[:-1, :-1] == other for other in (labels_HW[1:, :-1], labels_HW[:-1, 1:], labels_HW[1:, 1:])]
    )
    found_N = np.zeros(int(labels_HW.max()) + 1, dtype=np.bool_)
    if same_HW.size:
        # A square has one label if all its 2 x 2 squares have. `same_HW` marks these by their top left pixel, so the
        # kernel is one pixel smaller.
        kernel = np.ones((side - 1, side - 1), np.uint8)
        even_HW = cv2.erode(
            same_HW.astype(np.uint8), kernel, anchor=(0, 0), borderType=cv2.BORDER_CONSTANT, borderValue=0
        )
        found_N[labels_HW[:-1, :-1][even_HW > 0]] = True
    return found_N


def nearest_neighbour(lab_N3: Array, pairs_E2: Labels) -> Labels:
    """Return the neighbour of each region whose colour is nearest, given the pairs of neighbours."""
    distance_E = ((lab_N3[pairs_E2[:, 0]] - lab_N3[pairs_E2[:, 1]]) ** 2).sum(axis=1)
    far_first_E2 = pairs_E2[np.argsort(-distance_E, kind="stable")]
    nearest_N = np.zeros(len(lab_N3), dtype=np.int32)
    # The last of several assignments to a region remains: its nearest neighbour.
    nearest_N[far_first_E2.ravel()] = far_first_E2[:, ::-1].ravel()
    return nearest_N


def parent_of(fine_HW: Labels, coarse_HW: Labels) -> Labels:
    """Return the label of the coarse region that contains each fine region."""
    parent_N = np.zeros(int(fine_HW.max()) + 1, dtype=np.int32)
    parent_N[fine_HW] = coarse_HW
    return parent_N


def cue(lab_HW3: Single, labels_HW: Labels, size: float) -> Array:
    """Return the saliency cue of each region of a layer: contrast times location, each scaled to [0, 1]."""
    share_N = np.bincount(labels_HW.ravel()) / labels_HW.size
    contrast_N = contrast(region_means(lab_HW3, labels_HW), mean_positions(labels_HW), share_N, size)
    return contrast_N * scale(location(labels_HW))


def contrast(lab_N3: Array, position_N2: Array, share_N: Array, size: float) -> Array:
    """Return sum_j share_j exp(-D_ij / sigma^2) |c_i - c_j| scaled to [0, 1], D the squared distance of centres."""
    near_NN = np.exp(-(pairwise_distance(position_N2) ** 2) / (CONTRAST_SIGMA**2 * size))
    return scale((near_NN * pairwise_distance(lab_N3)) @ share_N)


def location(labels_HW: Labels) -> Array:
    """Return the mean of exp(-9 d^2) over the pixels of each region, d the distance to the centre in image sides."""
    height, width = labels_HW.shape
    profiles = [np.exp(-LOCATION_WEIGHT * ((np.arange(size) + 0.5) / size - 0.5) ** 2) for size in (height, width)]
    flat = labels_HW.ravel()
    return np.asarray(np.bincount(flat, np.outer(*profiles).ravel()) / np.bincount(flat))


def agree(cues: list[Array], parents: list[Labels]) -> Array:
    """Return the saliency of the finest layer that is most consistent with all layers of the tree.

    Minimises sum_l own_l (s - cue)^2 + sum 4 (s - s_parent)^2 by belief propagation, which is exact on a tree. Upwards,
    each region passes its weight and its weighted saliency to its parent. Downwards, each region takes the value of
    its parent.
    """
    weights = [np.full(len(own_N), weight) for own_N, weight in zip(cues, OWN_WEIGHT, strict=True)]
    weighted = [weight_N * own_N for weight_N, own_N in zip(weights, cues, strict=True)]
    for layer, parent_N in enumerate(parents):
        share_N = PARENT_WEIGHT / (weights[layer] + PARENT_WEIGHT)
        count = len(weights[layer + 1])
        weights[layer + 1] = weights[layer + 1] + np.bincount(parent_N, weights[layer] * share_N, count)
        weighted[layer + 1] = weighted[layer + 1] + np.bincount(parent_N, weighted[layer] * share_N, count)
    value = weighted[-1] / weights[-1]
    for layer in reversed(range(len(parents))):
        value = (weighted[layer] + PARENT_WEIGHT * value[parents[layer]]) / (weights[layer] + PARENT_WEIGHT)
    return np.asarray(value)
