"""A fully connected CRF that pulls a saliency map to the edges of its image.

Deep-USPS (Nguyen et al., 2019), from which PreViTS section 3.2 takes its object, refines its maps so. The model and its
mean field are Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials"
(2011); the filter in colour and position is the permutohedral lattice of Adams, Baek and Davis (2010). Pure arrays: no
I/O, no randomness, no learning.

Shape suffixes: H W C image, N pixels, D features, V = D + 1 coordinates (and vertices) of a simplex, S simplices that
hold a pixel, M vertices of these.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.special import expit

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Image = npt.NDArray[np.uint8]

# The released code of Deep-USPS, for colour images.
ITERATIONS = 5
SIDE = 432  # pixels of a side of its pictures, to which the two sigmas of position belong
SPATIAL_SIGMA = 3.0  # pixels
SPATIAL_WEIGHT = 3.0
BILATERAL_SIGMA = 80.0  # pixels
COLOUR_SIGMA = 13.0  # levels of RGB
BILATERAL_WEIGHT = 10.0
LEAST_PROBABILITY = 1e-5  # not stated; a certain pixel would have an infinite unary term

# Compare-and-exchange pairs that sort six values.
_SORT_6 = ((0, 5), (1, 3), (2, 4), (1, 2), (3, 4), (0, 3), (2, 5), (0, 1), (2, 3), (4, 5), (1, 2), (3, 4))


def refine(probability_HW: Floats, image_HWC: Image, scale: float = 1.0) -> Floats:
    """Return the marginal probability (height, width) of the foreground after mean field.

    Two labels with a Potts penalty; the unary term is -log p, the pairwise kernels are a Gaussian of position and one
    of position and colour, each normalised symmetrically. Not-a-number counts as probability 0.

    Args:
        probability_HW: Probability of the foreground, in [0, 1].
        image_HWC: The image in RGB.
        scale: Size of the things in the image, against pictures of 432 x 432: distances of the model shrink with it.

    Raises:
        ValueError: If the image is not uint8 RGB with at least one pixel, or the map has another size.
    """
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or not image_HWC.size:
        raise ValueError(f"expected a uint8 RGB image, got {image_HWC.shape = }, {image_HWC.dtype = }")
    if probability_HW.shape != image_HWC.shape[:2]:
        raise ValueError(f"map and image must share a size, got {probability_HW.shape = }, {image_HWC.shape = }")
    lattice = permutohedral(position_and_colour(image_HWC, BILATERAL_SIGMA * scale))
    one_HW = np.ones(probability_HW.shape, dtype=np.float32)
    spatial_HW = 1 / np.sqrt(spatial_filter(one_HW, SPATIAL_SIGMA * scale))
    bilateral_HW = 1 / np.sqrt(lattice.filter(one_HW.ravel()).reshape(one_HW.shape))

    known_HW = np.nan_to_num(probability_HW.astype(np.float32), nan=0.0)
    known_HW = np.clip(known_HW, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    unary_HW = np.log(known_HW / (1 - known_HW))
    logit_HW = unary_HW
    for _ in range(ITERATIONS):
        # Two labels sum to 1, so one channel says all: foreground minus background, in [-1, 1].
        margin_HW = np.tanh(logit_HW / 2)
        near_HW = spatial_HW * spatial_filter(spatial_HW * margin_HW, SPATIAL_SIGMA * scale)
        alike_HW = bilateral_HW * lattice.filter((bilateral_HW * margin_HW).ravel()).reshape(margin_HW.shape)
        # A pixel is among its own neighbours, as in the implementation that Deep-USPS uses; the sum over j != i of the
        # 2011 paper would take k(i, i) out. Of the spatial kernel that is 1 / 57, of the other mostly less.
        logit_HW = unary_HW + SPATIAL_WEIGHT * near_HW + BILATERAL_WEIGHT * alike_HW
    return np.asarray(expit(logit_HW), dtype=np.float32)


def spatial_filter(values_HW: Floats, sigma: float = SPATIAL_SIGMA) -> Floats:
    """Return sums weighted by a Gaussian of the distance in pixels, up to one common factor; outside is 0."""
    side = 2 * max(1, round(4 * sigma)) + 1
    blurred_HW = cv2.GaussianBlur(values_HW, (side, side), sigma, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(blurred_HW, dtype=np.float32)


def position_and_colour(image_HWC: Image, sigma: float = BILATERAL_SIGMA) -> Floats:
    """Return column, row, red, green and blue (5, N) in units of their scales."""
    height, width = image_HWC.shape[:2]
    features_DHW = np.empty((5, height, width), dtype=np.float32)
    features_DHW[0] = np.arange(width, dtype=np.float32) / np.float32(sigma)
    features_DHW[1] = np.arange(height, dtype=np.float32)[:, None] / np.float32(sigma)
    for channel in range(3):
        np.multiply(image_HWC[:, :, channel], np.float32(1 / COLOUR_SIGMA), out=features_DHW[2 + channel])
    return features_DHW.reshape(5, -1)


@dataclass(frozen=True)
class Lattice:
    """The part of a permutohedral lattice that holds the points of one image.

    Attributes:
        splat: Sparse (N, M), the barycentric weights of each point at the vertices of its simplex.
        before: (V, M), the vertex one step back along each direction of the lattice; M where that holds no point.
        after: (V, M), the same one step ahead.
    """

    splat: Any
    before: Integers
    after: Integers

    def filter(self, values_N: Floats) -> Floats:
        """Return sums over all points weighted by about exp(-d^2 / 2), up to one common factor."""
        vertices = np.zeros(self.splat.shape[1] + 1, dtype=np.float32)  # the last one stands for what is missing
        vertices[:-1] = self.splat.T @ values_N
        for before_M, after_M in zip(self.before, self.after, strict=True):
            vertices[:-1] += 0.5 * (vertices[before_M] + vertices[after_M])
        return np.asarray(self.splat @ vertices[:-1], dtype=np.float32)


def permutohedral(features_DN: Floats) -> Lattice:
    """Return the lattice of points given by five features in units of the Gaussian's standard deviation.

    A point lies in a simplex of the lattice. Its value is spread over the V vertices, blurred by (1, 2, 1) along each
    of the V directions, and read from the same vertices.
    """
    num_vertices = len(features_DN) + 1
    corner_VN, rank_VN, weight_NV = enclosing_simplex(elevate(features_DN))

    # Many points share a simplex and simplices share vertices: both are found once, by sorting one number for each.
    low_D1 = corner_VN[:-1].min(axis=1, keepdims=True)
    span_D = (corner_VN[:-1].max(axis=1) - low_D1[:, 0] + 1).astype(np.int64)
    simplex_N = np.zeros(features_DN.shape[1], dtype=np.int64)
    # The last coordinate and rank follow from the others.
    for corner_N, low, span, rank_N in zip(corner_VN, low_D1[:, 0], span_D, rank_VN, strict=False):
        simplex_N *= span * num_vertices
        simplex_N += ((corner_N - low) * num_vertices + rank_N).astype(np.int64)
    first_S, number_N = _distinct(simplex_N)

    # Vertex k of a simplex is its corner plus k, minus V for the k coordinates of the highest rank.
    corner_DS = num_vertices * (corner_VN[:-1, first_S] - low_D1 + 1).astype(np.int64)
    stride_D = np.cumprod([1, *(num_vertices * (span_D + 3))])[:-1]
    key_SV = np.empty((len(first_S), num_vertices), dtype=np.int64)
    key_SV[:] = (stride_D @ corner_DS)[:, None] + stride_D.sum() * np.arange(num_vertices)
    for k in range(1, num_vertices):
        key_SV[:, k] -= num_vertices * (stride_D @ (rank_VN[:-1, first_S] >= num_vertices - k))
    first_M, vertex_SV = _distinct(key_SV.ravel())
    key_M = key_SV.ravel()[first_M]
    count, points = len(key_M), features_DN.shape[1]
    vertex_NV = vertex_SV.reshape(-1, num_vertices)[number_N]
    starts = np.arange(0, points * num_vertices + 1, num_vertices, dtype=np.int32)
    splat = csr_matrix((weight_NV.ravel(), vertex_NV.ravel(), starts), shape=(points, count))

    # A step ahead adds 1 to all coordinates and takes V from one of them.
    step_V = stride_D.sum() - num_vertices * np.array([*stride_D, 0])
    after = np.full((num_vertices, count), count, dtype=np.int64)
    before = after.copy()
    for direction, step in enumerate(step_V):
        place_M = np.minimum(np.searchsorted(key_M, key_M + step), count - 1)
        found = (key_M[place_M] == key_M + step).nonzero()[0]
        after[direction, found] = place_M[found]
        before[direction, place_M[found]] = found
    return Lattice(splat, before, after)


def elevate(features_DN: Floats) -> Floats:
    """Return the points in the plane of V coordinates that sum to 0, where the lattice lies, in units of V.

    Scaled so that spreading, blurring and reading together have the variance of the Gaussian.
    """
    dims = len(features_DN)
    basis_VD = np.triu(np.ones((dims + 1, dims)))
    basis_VD[np.arange(1, dims + 1), np.arange(dims)] = -np.arange(1, dims + 1)
    basis_VD *= np.sqrt(2 / 3) / np.linalg.norm(basis_VD, axis=0)
    return np.asarray(basis_VD.astype(np.float32) @ features_DN, dtype=np.float32)


def enclosing_simplex(elevated_VN: Floats) -> tuple[Floats, npt.NDArray[np.int8], Floats]:
    """Return the simplex of each point: its corner of remainder 0 in units of V, its ranks, and barycentric weights."""
    size, points = elevated_VN.shape
    corner_VN = np.rint(elevated_VN)
    offset_VN = elevated_VN - corner_VN
    rank_VN = np.repeat(np.arange(size, dtype=np.int8)[:, None], points, axis=1)
    for one, other in combinations(range(size), 2):
        smaller_N = (offset_VN[one] < offset_VN[other]).view(np.int8)
        rank_VN[one] += smaller_N
        rank_VN[other] -= smaller_N
    # Rounding may leave the plane; the coordinates that were rounded the farthest go back.
    rank_VN += corner_VN.sum(axis=0).astype(np.int8)
    shift_VN = (rank_VN < 0).astype(np.int8) - (rank_VN >= size).astype(np.int8)
    rank_VN += np.int8(size) * shift_VN
    corner_VN += shift_VN
    offset_VN -= shift_VN
    ordered = list(offset_VN)
    for one, other in _SORT_6:
        ordered[one], ordered[other] = (
            np.minimum(ordered[one], ordered[other]),
            np.maximum(ordered[one], ordered[other]),
        )
    weight_NV = np.empty((points, size), dtype=np.float32)
    np.subtract(1 + ordered[0], ordered[-1], out=weight_NV[:, 0])
    for k in range(1, size):
        np.subtract(ordered[k], ordered[k - 1], out=weight_NV[:, k])
    return corner_VN, rank_VN, weight_NV


def _distinct(keys: Integers) -> tuple[Integers, npt.NDArray[np.int32]]:
    """Return where each distinct key is, in the order of keys, and for each key which of them it is."""
    # As np.unique does, which however sorts stably, at four times the cost.
    order = np.argsort(keys)
    ordered = keys[order]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    number = np.empty(len(keys), dtype=np.int32)
    number[order] = np.cumsum(new, dtype=np.int32) - np.int32(1)
    return order[new], number
