"""CRF: fully connected conditional random field (Krähenbühl and Koltun 2011) that aligns saliency with image edges.

Deep-USPS (Nguyen et al., 2019) refines its maps with it. PreViTS section 3.2 takes its object from such maps. The paper
of the model and its mean field is "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials". The
filter over colour and position is the permutohedral lattice of Adams, Baek and Davis (2010). Pure functions of arrays:
no I/O, no randomness, no learning.

Shape suffixes: H W C image, N pixels, D features, V = D + 1 coordinates (and vertices) of a simplex, S simplices that
contain a pixel, M vertices of these.
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

# Values of the released code of Deep-USPS, for colour images.
ITERATIONS = 5
SIDE = 432  # pixels; side of its square images, for which both sigmas of position are given
SPATIAL_SIGMA = 3.0  # pixels
SPATIAL_WEIGHT = 3.0
BILATERAL_SIGMA = 80.0  # pixels
COLOUR_SIGMA = 13.0  # levels of RGB
BILATERAL_WEIGHT = 10.0
LEAST_PROBABILITY = 1e-5  # not stated; a probability of 0 or 1 would have an infinite unary term

# Sorting network of six values: pairs to compare and exchange.
_SORT_6 = ((0, 5), (1, 3), (2, 4), (1, 2), (3, 4), (0, 3), (2, 5), (0, 1), (2, 3), (4, 5), (1, 2), (3, 4))


def refine(probability_HW: Floats, image_HWC: Image, scale: float = 1.0) -> Floats:
    """Return the marginal probability (height, width) of the foreground after mean field.

    The model has two labels with a Potts penalty. The unary term is -log p. The pairwise kernels are a Gaussian of
    position and one of position and colour, each normalised symmetrically. NaN counts as probability 0.

    Args:
        probability_HW: Probability of the foreground, in [0, 1].
        image_HWC: The image in RGB.
        scale: Size of the image relative to 432 x 432; both position sigmas are multiplied by it.

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
        # Both marginals sum to 1, so one channel is enough: foreground minus background, in [-1, 1].
        margin_HW = np.tanh(logit_HW / 2)
        near_HW = spatial_HW * spatial_filter(spatial_HW * margin_HW, SPATIAL_SIGMA * scale)
        alike_HW = bilateral_HW * lattice.filter((bilateral_HW * margin_HW).ravel()).reshape(margin_HW.shape)
        # Paper: the sum of 2011 is over j != i. Here a pixel is its own neighbour too, as in the implementation that
        # Deep-USPS uses. k(i, i) is 1 / 57 of the spatial kernel's sum, and mostly less of the other's.
        logit_HW = unary_HW + SPATIAL_WEIGHT * near_HW + BILATERAL_WEIGHT * alike_HW
    return np.asarray(expit(logit_HW), dtype=np.float32)


def spatial_filter(values_HW: Floats, sigma: float = SPATIAL_SIGMA) -> Floats:
    """Return sums weighted by a Gaussian of the distance in pixels, up to a constant factor; pixels outside are 0."""
    side = 2 * max(1, round(4 * sigma)) + 1
    blurred_HW = cv2.GaussianBlur(values_HW, (side, side), sigma, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(blurred_HW, dtype=np.float32)


def position_and_colour(image_HWC: Image, sigma: float = BILATERAL_SIGMA) -> Floats:
    """Return column, row, red, green and blue (5, N), each divided by its sigma."""
    height, width = image_HWC.shape[:2]
    features_DHW = np.empty((5, height, width), dtype=np.float32)
    features_DHW[0] = np.arange(width, dtype=np.float32) / np.float32(sigma)
    features_DHW[1] = np.arange(height, dtype=np.float32)[:, None] / np.float32(sigma)
    for channel in range(3):
        np.multiply(image_HWC[:, :, channel], np.float32(1 / COLOUR_SIGMA), out=features_DHW[2 + channel])
    return features_DHW.reshape(5, -1)


@dataclass(frozen=True)
class Lattice:
    """The part of a permutohedral lattice that contains the points of one image.

    Attributes:
        splat: Sparse (N, M), barycentric weights of each point at the vertices of its simplex.
        before: (V, M), index of the vertex one step back along each direction of the lattice; M if it is not stored.
        after: (V, M), index of the vertex one step ahead.
    """

    splat: Any
    before: Integers
    after: Integers

    def filter(self, values_N: Floats) -> Floats:
        """Return sums over all points weighted by about exp(-d^2 / 2), up to a constant factor."""
        vertices = np.zeros(self.splat.shape[1] + 1, dtype=np.float32)  # the last one replaces all that are not stored
        vertices[:-1] = self.splat.T @ values_N
        for before_M, after_M in zip(self.before, self.after, strict=True):
            vertices[:-1] += 0.5 * (vertices[before_M] + vertices[after_M])
        return np.asarray(self.splat @ vertices[:-1], dtype=np.float32)


def permutohedral(features_DN: Floats) -> Lattice:
    """Return the lattice of points with five features each, in standard deviations of the Gaussian.

    Each point is inside a simplex of the lattice. Its value is spread over the V vertices, blurred by (1, 2, 1) along
    each of the V directions, and read from the same vertices.
    """
    num_vertices = len(features_DN) + 1
    corner_VN, rank_VN, weight_NV = enclosing_simplex(elevate(features_DN))

    # Points share simplices, and simplices share vertices. Each is computed once: sorting one number for each point or
    # vertex finds the distinct ones.
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
    """Return the points in the plane of the lattice: V coordinates that sum to 0, in units of V.

    They are scaled so that spreading, blurring and reading together have the variance of the Gaussian.
    """
    dims = len(features_DN)
    basis_VD = np.triu(np.ones((dims + 1, dims)))
    basis_VD[np.arange(1, dims + 1), np.arange(dims)] = -np.arange(1, dims + 1)
    basis_VD *= np.sqrt(2 / 3) / np.linalg.norm(basis_VD, axis=0)
    return np.asarray(basis_VD.astype(np.float32) @ features_DN, dtype=np.float32)


def enclosing_simplex(elevated_VN: Floats) -> tuple[Floats, npt.NDArray[np.int8], Floats]:
    """Return the simplex of each point: its corner of remainder 0 in units of V, ranks of coordinates, and weights.

    The weights are barycentric, in the order of the remainders of the vertices.
    """
    size, points = elevated_VN.shape
    corner_VN = np.rint(elevated_VN)
    offset_VN = elevated_VN - corner_VN
    rank_VN = np.repeat(np.arange(size, dtype=np.int8)[:, None], points, axis=1)
    for one, other in combinations(range(size), 2):
        smaller_N = (offset_VN[one] < offset_VN[other]).view(np.int8)
        rank_VN[one] += smaller_N
        rank_VN[other] -= smaller_N
    # Rounding may leave the plane. The coordinates with the largest rounding errors are rounded the other way.
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
    """Return the positions of the distinct keys in ascending order, and for each key the index of its distinct key."""
    # The same as np.unique, whose stable sort costs four times as much.
    order = np.argsort(keys)
    ordered = keys[order]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    number = np.empty(len(keys), dtype=np.int32)
    number[order] = np.cumsum(new, dtype=np.int32) - np.int32(1)
    return order[new], number
