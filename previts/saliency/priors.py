"""Handcrafted saliency: RBD, from how little of a region's neighbourhood lies on the image border.

Stands in for the maps that Deep-USPS learns from (PreViTS section 3.2). RBD is Zhu et al., "Saliency Optimization from
Robust Background Detection" (2014). Pure arrays: no I/O, no randomness, no learning.

Shape suffixes: H W pixels, C channels, N superpixels (nodes), 2 position, 3 Lab.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.linalg import solve

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int32]
Image = npt.NDArray[np.uint8]

# Paper: RBD takes one superpixel per 600 pixels of photographs of about 400 x 300. Here their number is fixed to what
# that makes, and larger images are shrunk first: saliency is as good, costs half, and does not depend on resolution.
SUPERPIXELS = 200
WORKING_AREA = 30_000  # pixels
LEAST_SIDE = 4  # pixels: superpixels of tiny images are not made smaller than this
BORDER = 8 / np.sqrt(600)  # 8 pixels, in sides of a superpixel
COMPACTNESS = 20.0
ITERATIONS = 4  # Paper: 10; the maps are as good and SLIC costs half

POSITION_SIGMA = 0.4
BACKGROUND_WEIGHT = 5.0
CERTAIN_BACKGROUND = 1000.0  # weight where the border connectivity is above 3
ADJACENCY_WEIGHT = 0.1

FRAME_SHARE = 0.4  # of the image side: wider bars are part of the picture
FRAME_TOLERANCE = 12  # levels: how even a bar of an encoded video is
FRAME_BLUR = 2  # pixels between a bar and the picture


@dataclass(frozen=True)
class Regions:
    """Superpixels of an image: labels, means, and who touches whom.

    Attributes:
        labels: (height, width), the superpixel of each pixel, 0 to N - 1.
        lab: (N, 3), mean colour, L in [0, 100].
        position: (N, 2), mean row and column, divided by height and width.
        adjacent: (N, N), whether two superpixels touch (8-connected); True on the diagonal.
        border: (N,), whether a superpixel lies at the image border.
    """

    labels: Labels
    lab: Array
    position: Array
    adjacent: Bools
    border: Bools


def rbd(image_HWC: Image) -> npt.NDArray[np.float32]:
    """Return the saliency (height, width) of an RGB image in [0, 1]; all 0 where nothing stands out.

    Raises:
        ValueError: If the image is not uint8 RGB with at least one pixel.
    """
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or not image_HWC.size:
        raise ValueError(f"expected a uint8 RGB image, got {image_HWC.shape = }, {image_HWC.dtype = }")
    inner = picture(image_HWC)
    whole_HWC = np.ascontiguousarray(image_HWC[inner])
    height, width = whole_HWC.shape[:2]
    regions = superpixels(_shrink(whole_HWC))
    small_HW = region_saliency(regions).astype(np.float32)[regions.labels]
    saliency_HW = np.zeros(image_HWC.shape[:2], dtype=np.float32)
    saliency_HW[inner] = cv2.resize(small_HW, (width, height), interpolation=cv2.INTER_LINEAR)
    return saliency_HW


def _shrink(image_HWC: Image) -> Image:
    height, width = image_HWC.shape[:2]
    factor = np.sqrt(WORKING_AREA / (height * width))
    if factor >= 1:
        return image_HWC
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(image_HWC, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def picture(image_HWC: Image) -> tuple[slice, slice]:
    """Return the rows and columns inside of artificial bars (letter box, drawn frame).

    A bar is an even strip along a side that ends in a straight line. One bar alone is taken for a part of the picture,
    such as a clear sky over a roof.
    """
    height, width = image_HWC.shape[:2]
    top, bottom = (_bar(lines) for lines in (image_HWC, image_HWC[::-1]))
    left, right = (_bar(lines) for lines in (image_HWC.swapaxes(0, 1), image_HWC.swapaxes(0, 1)[::-1]))
    if sum(bar > 0 for bar in (top, bottom, left, right)) < 2:
        return slice(0, height), slice(0, width)
    return slice(top, height - bottom), slice(left, width - right)


def _bar(lines_NMC: Image) -> int:
    """Return how many of the first lines are a bar, at most FRAME_SHARE of them."""
    limit = int(len(lines_NMC) * FRAME_SHARE) - FRAME_BLUR
    if limit < 1:
        return 0
    colour_C = np.median(lines_NMC[0], axis=0)
    # Pictures without bars are told by their first lines; only the others are read further in.
    for count in range(limit + 1):
        if _like(lines_NMC[count], colour_C) < 0.95:
            break
    else:
        return 0
    if count == 0 or _like(lines_NMC[count + FRAME_BLUR], colour_C) > 0.4:
        return 0
    return count + FRAME_BLUR


def _like(line_MC: Image, colour_C: Array) -> float:
    return float((np.abs(line_MC - colour_C).max(axis=1) <= FRAME_TOLERANCE).mean())


def superpixels(image_HWC: Image) -> Regions:
    """Return the SLIC superpixels of an RGB image, about 200 where there is room for them."""
    height, width = image_HWC.shape[:2]
    lab_HW3 = np.asarray(cv2.cvtColor(image_HWC.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), dtype=np.float32)
    side = max(LEAST_SIDE, round(np.sqrt(height * width / SUPERPIXELS)))
    if min(height, width) < 2 * side:
        labels_HW = _blocks(height, width, side)
    else:
        slic = cv2.ximgproc.createSuperpixelSLIC(lab_HW3, cv2.ximgproc.SLIC, side, COMPACTNESS)
        slic.iterate(ITERATIONS)
        slic.enforceLabelConnectivity(25)
        labels_HW = np.asarray(slic.getLabels(), dtype=np.int32)
    return measure(lab_HW3, labels_HW, max(1, round(BORDER * side)))


def _blocks(height: int, width: int, side: int) -> Labels:
    """Return square superpixels, for images too narrow for SLIC's grid of seeds."""
    rows, columns = np.arange(height) // side, np.arange(width) // side
    labels_HW: Labels = (rows[:, None] * (columns[-1] + 1) + columns[None, :]).astype(np.int32)
    return labels_HW


def measure(lab_HW3: npt.NDArray[np.float32], labels_HW: Labels, border: int) -> Regions:
    """Return the means and neighbours of labelled regions; those within `border` pixels of the edge are the border."""
    height, width = labels_HW.shape
    flat = labels_HW.ravel()
    count = int(flat.max()) + 1
    area_N = np.bincount(flat, minlength=count).astype(np.float64)
    rows_HW, columns_HW = np.mgrid[0:height, 0:width]
    sums = [np.bincount(flat, weights, minlength=count) for weights in lab_HW3.reshape(-1, 3).T]
    places = [np.bincount(flat, place.ravel(), minlength=count) + 0.5 * area_N for place in (rows_HW, columns_HW)]
    adjacent_NN = np.eye(count, dtype=np.bool_)
    for one, other in (
        (labels_HW[:-1], labels_HW[1:]),
        (labels_HW[:, :-1], labels_HW[:, 1:]),
        (labels_HW[:-1, :-1], labels_HW[1:, 1:]),
        (labels_HW[:-1, 1:], labels_HW[1:, :-1]),
    ):
        apart = one != other
        adjacent_NN[one[apart], other[apart]] = adjacent_NN[other[apart], one[apart]] = True
    border_N = np.zeros(count, dtype=np.bool_)
    for edge in (labels_HW[:border], labels_HW[-border:], labels_HW[:, :border], labels_HW[:, -border:]):
        border_N[edge] = True
    lab_N3 = np.stack(sums, axis=1) / area_N[:, None]
    position_N2 = np.stack(places, axis=1) / area_N[:, None] / (height, width)
    return Regions(labels_HW, lab_N3, position_N2, adjacent_NN, border_N)


def region_saliency(regions: Regions) -> Array:
    """Return the optimised saliency of each superpixel, scaled to [0, 1]; all 0 where there is no contrast."""
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


def pairwise_distance(values_ND: Array) -> Array:
    """Return the Euclidean distances (N, N) between rows."""
    difference = values_ND[:, None, :] - values_ND[None, :, :]
    return np.asarray(np.sqrt(np.einsum("ijk,ijk->ij", difference, difference)))


def gaussian(distance: Array, sigma: float) -> Array:
    """Return exp(-d^2 / 2 sigma^2), 0 beyond 3 sigma."""
    # A picture of few flat colours has sigma 0: only equal colours are alike then.
    sigma = max(sigma, 1e-6)
    return np.where(distance > 3 * sigma, 0, np.exp(-((np.minimum(distance, 3 * sigma) / sigma) ** 2) / 2))


def scale(values: Array) -> Array:
    """Return values stretched to [0, 1], or 0 if they are all equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def adaptive_scales(colour_NN: Array, adjacent_NN: Bools, ring_NN: Bools) -> tuple[float, float, float]:
    """Return the colour difference to forgive along a path, the scale of a geodesic and that of a neighbour's colour.

    From m1 and m2, the mean smallest distance to a neighbour and within two rings, and `top`, the mean of the largest
    1 % of neighbour distances: m2; m1 x 3 and top / 10 within [5, 10]; the least of 3 m1, top / 5 and 20.
    """
    others_NN = ~np.eye(len(colour_NN), dtype=np.bool_)
    nearest = [np.where(near & others_NN, colour_NN, np.inf).min(axis=1).mean() for near in (adjacent_NN, ring_NN)]
    neighbours = np.sort(colour_NN[adjacent_NN & others_NN])[::-1]
    top = neighbours[: max(1, round(0.01 * len(neighbours)))].mean()
    first, second = float(nearest[0]), float(nearest[1])
    return second, float(max(5, min(10, 3 * first, top / 10))), float(min(3 * first, top / 5, 20))


def geodesic_distance(colour_NN: Array, linked_NN: Bools, clip: float) -> Array:
    """Return the lengths (N, N) of shortest paths over links that cost max(0, colour distance - clip)."""
    # Floyd-Warshall with whole matrices at once: on 200 dense nodes twice as fast as scipy's Dijkstra.
    length_NN = np.where(linked_NN, np.maximum(colour_NN - clip, 0), np.inf).astype(np.float32)
    through_NN = np.empty_like(length_NN)
    for node in range(len(length_NN)):
        np.add(length_NN[:, node, None], length_NN[None, node], out=through_NN)
        np.minimum(length_NN, through_NN, out=length_NN)
    return length_NN.astype(np.float64)


def border_connectivity(geodesic_NN: Array, border_N: Bools, sigma: float) -> Array:
    """Return how much of a superpixel's soft region lies on the image border, over the root of its area."""
    weight_NN = gaussian(geodesic_NN, sigma)
    return np.asarray(weight_NN[:, border_N].sum(axis=1) / np.sqrt(weight_NN.sum(axis=1)))


def background_contrast(colour_NN: Array, position_N2: Array, background_N: Array) -> Array:
    """Return the contrast to likely background nearby, scaled to [0, 1], with the lower class of Otsu set to 0."""
    contrast_N = scale((colour_NN * gaussian(pairwise_distance(position_N2), POSITION_SIGMA)) @ background_N)
    levels = np.round(contrast_N * 255).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return np.where(levels > threshold, contrast_N, 0)


def optimise(smooth_NN: Array, background_N: Array, foreground_N: Array) -> Array:
    """Return the values that are near 0 on background, near 1 on foreground and smooth: a linear system.

    (D - W + 5 diag(background) + diag(foreground)) s = foreground, D the row sums of W.
    """
    system_NN = -smooth_NN
    data_N = BACKGROUND_WEIGHT * background_N + foreground_N
    system_NN[np.diag_indices_from(system_NN)] += smooth_NN.sum(axis=1) + data_N
    return np.asarray(solve(system_NN, foreground_N, assume_a="pos"))
