"""Superpixels of an image, and functions of region graphs that the handcrafted priors share.

This file prepares an image for the priors: it removes artificial bars, shrinks the image, converts it to Lab and
segments it by SLIC (Achanta et al. 2012). Pure functions of arrays: no I/O, no randomness, no learning.

Shape suffixes: H W pixels, C channels, N superpixels (nodes), D features, 2 position, 3 Lab.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

Array = npt.NDArray[np.float64]
Single = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int32]
Image = npt.NDArray[np.uint8]

# Paper: RBD takes one superpixel per 600 pixels of photographs of about 400 x 300, MC takes 250. Here both take the
# number that RBD's rule gives, and larger images are shrunk first. The maps are as good, cost half, and do not depend
# on the resolution.
SUPERPIXELS = 200
WORKING_AREA = 30_000  # pixels
LEAST_SIDE = 4  # pixels; the side of superpixels in tiny images
BORDER = 8 / np.sqrt(600)  # 8 pixels, in sides of a superpixel
COMPACTNESS = 20.0
ITERATIONS = 4  # Paper: 10. The maps are as good and SLIC costs half

FRAME_SHARE = 0.4  # of the image side; wider bars are part of the scene
FRAME_TOLERANCE = 12  # levels by which pixels of a bar differ in an encoded video
FRAME_BLUR = 2  # pixels between a bar and the scene


@dataclass(frozen=True)
class Regions:
    """Superpixels of an image: labels, means and adjacency.

    Attributes:
        labels: (height, width), superpixel of each pixel, 0 to N - 1.
        lab: (N, 3), mean colour, L in [0, 100].
        position: (N, 2), mean row and column, divided by height and width.
        adjacent: (N, N), whether two superpixels touch (8-connected); True on the diagonal.
        border: (N,), whether a superpixel is at the image border.
    """

    labels: Labels
    lab: Array
    position: Array
    adjacent: Bools
    border: Bools


def shrink(image_HWC: Image) -> Image:
    """Return an image of at most WORKING_AREA pixels; smaller images are returned unchanged."""
    height, width = image_HWC.shape[:2]
    factor = np.sqrt(WORKING_AREA / (height * width))
    if factor >= 1:
        return image_HWC
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(image_HWC, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def inside_bars(image_HWC: Image) -> tuple[slice, slice]:
    """Return the rows and columns inside of artificial bars (letterbox, drawn frame).

    A bar is an even strip along a side that ends in a straight line. A single bar counts as part of the scene: it may
    be a clear sky above a roof.
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
    # The loop ends at the first lines of an image without bars. Further lines are read only in images with bars.
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


def to_lab(image_HWC: Image) -> Single:
    """Return an RGB image as Lab, L in [0, 100]."""
    return np.asarray(cv2.cvtColor(image_HWC.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), dtype=np.float32)


def superpixels(lab_HW3: Single) -> Regions:
    """Return the superpixels of a Lab image that RBD and MC share: about 200, fewer in tiny images."""
    height, width = lab_HW3.shape[:2]
    labels_HW = segment(lab_HW3, SUPERPIXELS, COMPACTNESS, ITERATIONS)
    return describe_regions(lab_HW3, labels_HW, max(1, round(BORDER * superpixel_side(height, width, SUPERPIXELS))))


def superpixel_side(height: int, width: int, count: int) -> int:
    """Return the side in pixels of one of `count` square superpixels."""
    return max(LEAST_SIDE, round(math.sqrt(height * width / count)))


def segment(lab_HW3: Single, count: int, compactness: float, iterations: int) -> Labels:
    """Return SLIC labels (height, width), 0 to about `count` - 1; an image too narrow for SLIC is cut into squares."""
    height, width = lab_HW3.shape[:2]
    side = superpixel_side(height, width, count)
    if min(height, width) < 2 * side:
        return _blocks(height, width, side)
    slic = cv2.ximgproc.createSuperpixelSLIC(lab_HW3, cv2.ximgproc.SLIC, side, compactness)
    slic.iterate(iterations)
    slic.enforceLabelConnectivity(25)
    return np.asarray(slic.getLabels(), dtype=np.int32)


def _blocks(height: int, width: int, side: int) -> Labels:
    """Return square superpixels, for images too narrow for SLIC's grid of seeds."""
    rows, columns = np.arange(height) // side, np.arange(width) // side
    labels_HW: Labels = (rows[:, None] * (columns[-1] + 1) + columns[None, :]).astype(np.int32)
    return labels_HW


def describe_regions(lab_HW3: Single, labels_HW: Labels, border: int) -> Regions:
    """Return the means and the adjacency of labelled regions; a region within `border` pixels of the edge is border."""
    count = int(labels_HW.max()) + 1
    adjacent_NN = np.eye(count, dtype=np.bool_)
    for one, other in (
        (labels_HW[:-1], labels_HW[1:]),
        (labels_HW[:, :-1], labels_HW[:, 1:]),
        (labels_HW[:-1, :-1], labels_HW[1:, 1:]),
        (labels_HW[:-1, 1:], labels_HW[1:, :-1]),
    ):
        apart = one != other
        adjacent_NN[one[apart], other[apart]] = adjacent_NN[other[apart], one[apart]] = True
    border_N = at_border(labels_HW, count, border)
    return Regions(labels_HW, region_means(lab_HW3, labels_HW), mean_positions(labels_HW), adjacent_NN, border_N)


def region_means(values_HWD: Single, labels_HW: Labels) -> Array:
    """Return the mean value (N, D) of each region."""
    flat = labels_HW.ravel()
    sums = [np.bincount(flat, channel) for channel in values_HWD.reshape(len(flat), -1).T]
    return np.stack(sums, axis=1) / np.bincount(flat)[:, None]


def mean_positions(labels_HW: Labels) -> Array:
    """Return the mean row and column (N, 2) of each region, divided by height and width."""
    height, width = labels_HW.shape
    rows_HW, columns_HW = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    return region_means(np.stack([rows_HW / height, columns_HW / width], axis=2), labels_HW)


def at_border(labels_HW: Labels, count: int, border: int) -> Bools:
    """Return which of `count` regions have a pixel within `border` pixels of the image edge."""
    border_N = np.zeros(count, dtype=np.bool_)
    for edge in (labels_HW[:border], labels_HW[-border:], labels_HW[:, :border], labels_HW[:, -border:]):
        border_N[edge] = True
    return border_N


def pairwise_distance(values_ND: Array) -> Array:
    """Return the Euclidean distances (N, N) between rows."""
    return np.asarray(cdist(values_ND, values_ND))


def gaussian(distance: Array, sigma: float) -> Array:
    """Return exp(-d^2 / 2 sigma^2), 0 beyond 3 sigma."""
    # An image of few flat colours has sigma 0. Then only equal colours have a weight above 0.
    sigma = max(sigma, 1e-6)
    return np.where(distance > 3 * sigma, 0, np.exp(-((np.minimum(distance, 3 * sigma) / sigma) ** 2) / 2))


def scale(values: Array) -> Array:
    """Return values stretched to [0, 1], or 0 if they are all equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
