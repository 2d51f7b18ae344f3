"""RBD: Robust Background Detection (Zhu et al. 2014), a saliency prior from the connectivity to the image border.

The paper is "Saliency Optimization from Robust Background Detection". A region whose soft neighbourhood has a large
part on the image border is background. Pure functions of arrays: no I/O, no randomness, no learning.

Shape suffixes: N superpixels (nodes), 2 position.
"""

import cv2
import numpy as np
from scipy.linalg import solve

from previts.saliency.superpixels import Array, Bools, Regions, gaussian, pairwise_distance, scale

POSITION_SIGMA = 0.4
BACKGROUND_WEIGHT = 5.0
CERTAIN_BACKGROUND = 1000.0  # weight if the border connectivity is above 3
ADJACENCY_WEIGHT = 0.1


def region_saliency(regions: Regions) -> Array:
    """Return the optimised saliency of each superpixel, scaled to [0, 1]; all 0 if there is no contrast."""
    count = len(regions.lab)
    if count < 2:
        return np.zeros(count)
    colour_NN = pairwise_distance(regions.lab)
    touch_NN = regions.adjacent.astype(np.float32)
    ring_NN = touch_NN @ touch_NN > 0  # neighbours of neighbours
    clip, geodesic_sigma, neighbour_sigma = adaptive_scales(colour_NN, regions.adjacent, ring_NN)
    clique_NN = regions.border[:, None] & regions.border[None, :]
    geodesic_NN = geodesic_distance(colour_NN, regions.adjacent | clique_NN, clip)
    connectivity_N = border_connectivity(geodesic_NN, regions.border, geodesic_sigma)
    background_N = 1 - np.exp(-(connectivity_N**2) / 2)
    contrast_N = background_contrast(colour_NN, regions.position, background_N)
    if not contrast_N.any():
        return np.zeros(count)
    smooth_NN = np.where(ring_NN | clique_NN, gaussian(colour_NN, neighbour_sigma), 0) + ADJACENCY_WEIGHT * touch_NN
    background_N = np.where(connectivity_N > 3, CERTAIN_BACKGROUND, background_N)
    return scale(optimise(smooth_NN, background_N, contrast_N))


def adaptive_scales(colour_NN: Array, adjacent_NN: Bools, ring_NN: Bools) -> tuple[float, float, float]:
    """Return the colour difference that a path does not count, the sigma of geodesics and that of neighbours' colours.

    m1 is the mean smallest colour distance to a neighbour. m2 is the same within two rings. `top` is the mean of the
    largest 1 % of neighbour distances. The results are m2, max(5, min(10, 3 m1, top / 10)) and min(3 m1, top / 5, 20).
    """
    others_NN = ~np.eye(len(colour_NN), dtype=np.bool_)
    nearest = [np.where(near & others_NN, colour_NN, np.inf).min(axis=1).mean() for near in (adjacent_NN, ring_NN)]
    neighbours = np.sort(colour_NN[adjacent_NN & others_NN])[::-1]
    top = neighbours[: max(1, round(0.01 * len(neighbours)))].mean()
    first, second = float(nearest[0]), float(nearest[1])
    return second, float(max(5, min(10, 3 * first, top / 10))), float(min(3 * first, top / 5, 20))


def geodesic_distance(colour_NN: Array, linked_NN: Bools, clip: float) -> Array:
    """Return the lengths (N, N) of shortest paths over links that cost max(0, colour distance - clip)."""
    # Floyd-Warshall on whole matrices: twice as fast as scipy's Dijkstra on 200 dense nodes.
    length_NN = np.where(linked_NN, np.maximum(colour_NN - clip, 0), np.inf).astype(np.float32)
    through_NN = np.empty_like(length_NN)
    for node in range(len(length_NN)):
        np.add(length_NN[:, node, None], length_NN[None, node], out=through_NN)
        np.minimum(length_NN, through_NN, out=length_NN)
    return length_NN.astype(np.float64)


def border_connectivity(geodesic_NN: Array, border_N: Bools, sigma: float) -> Array:
    """Return the length of each superpixel's soft region on the image border, divided by the root of its area."""
    weight_NN = gaussian(geodesic_NN, sigma)
    return np.asarray(weight_NN[:, border_N].sum(axis=1) / np.sqrt(weight_NN.sum(axis=1)))


def background_contrast(colour_NN: Array, position_N2: Array, background_N: Array) -> Array:
    """Return the contrast to likely background nearby, scaled to [0, 1]; the lower class of Otsu's threshold is 0."""
    contrast_N = scale((colour_NN * gaussian(pairwise_distance(position_N2), POSITION_SIGMA)) @ background_N)
    levels = np.round(contrast_N * 255).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return np.where(levels > threshold, contrast_N, 0)


def optimise(smooth_NN: Array, background_N: Array, foreground_N: Array) -> Array:
    """Return smooth values that are near 0 on background and near 1 on foreground.

    Solves (D - W + 5 diag(background) + diag(foreground)) s = foreground, where D are the row sums of W = `smooth_NN`.
    """
    system_NN = -smooth_NN
    data_N = BACKGROUND_WEIGHT * background_N + foreground_N
    system_NN[np.diag_indices_from(system_NN)] += smooth_NN.sum(axis=1) + data_N
    return np.asarray(solve(system_NN, foreground_N, assume_a="pos"))
