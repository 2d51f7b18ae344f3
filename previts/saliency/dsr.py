"""DSR: Dense and Sparse Reconstruction (Lu et al. 2013), a saliency prior from errors of reconstruction.

Lu, Li, Zhang, Ruan and Yang, "Saliency Detection via Dense and Sparse Reconstruction". The saliency of a region is the
error of its reconstruction from the regions at the image border. The order is that of the paper: errors of superpixels
at several scales, propagation within clusters, errors of pixels, weighting by the object's centre, Bayesian
combination. Pure functions of arrays: no I/O, no randomness, no learning.

Shape suffixes: H W pixels, P pixels in a row, C channels, N superpixels, B of them at the border, D features,
K slots of a sparse code, 3 Lab.
"""

import cv2
import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular

from previts.saliency.superpixels import (
    Array,
    Bools,
    Image,
    Labels,
    Single,
    at_border,
    pairwise_distance,
    region_means,
    scale,
    segment,
    superpixel_side,
)

# Superpixels and compactness of each scale. In small images several scales have superpixels of the same size. These
# count once.
SCALES = ((50, 10), (100, 10), (150, 20), (200, 20), (250, 25), (300, 25), (350, 30), (400, 30))
ITERATIONS = 2  # Paper: SLIC's 10. The average over the scales removes most of the errors of fewer iterations
ENERGY = 0.95  # share of the variance of the border's features that the dense model keeps
SPARSITY = 0.01  # penalty of the lasso
CLUSTERS = 8
CLUSTER_ITERATIONS = 10  # not stated
OWN_ERROR = 0.5  # share of a superpixel's own error in propagation
OBJECT_SIGMA = 0.25  # of the image side
BINS = 60
BIN_SIGMA = 0.02  # not stated what this factor smooths; here the histograms, as a share of their range
TINY = 1e-9
PARALLEL = 1e-6  # slopes that differ by less are equal, so that atoms that depend on each other are not used together
RIDGE = 1e-12  # added to the diagonal of the Gram matrix, so that it is never singular
MOST_STEPS = 200  # of the lasso path; about 30 are needed

Integers = npt.NDArray[np.intp]


def pixel_saliency(image_HWC: Image, lab_HW3: Single) -> Array:
    """Return the saliency (height, width) in [0, 1] of an image that is given in RGB and in Lab."""
    feature_HWD = pixel_features(image_HWC, lab_HW3)
    height, width = lab_HW3.shape[:2]
    by_side = {superpixel_side(height, width, count): (count, compactness) for count, compactness in SCALES}
    total_PE, weight_P = np.zeros((height * width, 2), np.float32), np.zeros(height * width, np.float32)
    for count, compactness in by_side.values():
        labels_HW = segment(lab_HW3, count, compactness, ITERATIONS)
        feature_ND = region_means(feature_HWD, labels_HW)
        border_N = at_border(labels_HW, len(feature_ND), 1)
        cluster_N = clusters(feature_ND)
        errors = (dense_error(feature_ND, border_N), sparse_error(feature_ND, border_N))
        error_NE = np.stack([propagate(error_N, feature_ND, cluster_N) for error_N in errors], axis=1)
        near_P = closeness(feature_HWD, feature_ND, labels_HW).ravel()
        total_PE += near_P[:, None] * error_NE.astype(np.float32)[labels_HW.ravel()]
        weight_P += near_P
    error_EHW = (total_PE / weight_P[:, None]).T.reshape(2, height, width).astype(np.float64)
    dense_HW, sparse_HW = (towards_object(scale(error_HW)) for error_HW in error_EHW)
    return scale((posterior(dense_HW, sparse_HW) + posterior(sparse_HW, dense_HW)) / 2)


def pixel_features(image_HWC: Image, lab_HW3: Single) -> Single:
    """Return RGB, Lab and position of each pixel (height, width, 8), each in [0, 1]."""
    height, width = lab_HW3.shape[:2]
    low, high = lab_HW3.min(axis=(0, 1)), lab_HW3.max(axis=(0, 1))
    rows_HW, columns_HW = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    position_HW2 = np.stack([columns_HW / width, rows_HW / height], axis=2)
    colours = (image_HWC.astype(np.float32) / 255, (lab_HW3 - low) / np.maximum(high - low, 1e-6))
    return np.concatenate([*colours, position_HW2], axis=2, dtype=np.float32)


def dense_error(feature_ND: Array, border_N: Bools) -> Array:
    """Return the distance of each superpixel from the principal subspace of the border, scaled to [0, 1].

    The subspace contains the border's mean and keeps 95 % of its variance. The authors' program takes one component
    more, through the mean of all superpixels; max F on photographs is then 0.007 lower.
    """
    mean_D = feature_ND[border_N].mean(axis=0)
    variance_D, basis_DD = np.linalg.eigh(np.atleast_2d(np.cov(feature_ND[border_N].T, bias=True)))
    share_D = np.cumsum(variance_D[::-1]) / max(variance_D.sum(), TINY)
    kept_DK = basis_DD[:, ::-1][:, : int((share_D < ENERGY).sum()) + 1]
    centred_ND = feature_ND - mean_D
    return scale(np.linalg.norm(centred_ND - centred_ND @ kept_DK @ kept_DK.T, axis=1))


def sparse_error(feature_ND: Array, border_N: Bools) -> Array:
    """Return the squared error of a lasso fit of each superpixel by those of the border, scaled to [0, 1].

    All features are normalised to unit length.
    """
    unit_ND = feature_ND / np.linalg.norm(feature_ND, axis=1, keepdims=True)
    residual_ND = lasso_residual(unit_ND, unit_ND[border_N], SPARSITY)
    return scale((residual_ND**2).sum(axis=1))


def lasso_residual(target_ND: Array, atoms_BD: Array, penalty: float) -> Array:
    """Return x - a D for each row x, where the code a minimises |x - a D|^2 / 2 + penalty |a|_1.

    Follows the exact path of solutions (LARS) for all rows at once. It starts at the penalty above which the code is 0,
    and lowers it. With the atoms A in use and their signs s, a = u - penalty v, u = G^-1 A x, v = G^-1 s, G = A A^T. A
    step ends where another atom's correlation reaches the penalty or an entry of the code reaches 0.
    """
    count, size = atoms_BD.shape
    # A code has at most as many entries as there are dimensions; one more slot is for the next atom. An empty slot k
    # contains atom count + k, which is 0, with sign 0.
    empty_K = np.arange(count, count + size + 1)
    atoms_BD = np.concatenate([atoms_BD, np.zeros((size + 1, size))])
    gram_BB = atoms_BD @ atoms_BD.T
    gram_BB[empty_K, empty_K] = 1
    gram_BB[np.diag_indices_from(gram_BB)] += RIDGE
    correlation_NB = target_ND @ atoms_BD.T
    first_N = np.abs(correlation_NB).argmax(axis=1)
    highest_N = np.take_along_axis(correlation_NB, first_N[:, None], axis=1)[:, 0]
    residual_ND = target_ND.copy()
    todo_N = np.flatnonzero(np.abs(highest_N) > penalty)
    atom_NK, sign_NK = np.tile(empty_K, (len(todo_N), 1)), np.zeros((len(todo_N), size + 1))
    atom_NK[:, 0], sign_NK[:, 0] = first_N[todo_N], np.sign(highest_N[todo_N])
    level_N = np.abs(highest_N[todo_N])
    for _ in range(MOST_STEPS):
        if not len(todo_N):
            break
        used = int(np.flatnonzero(sign_NK.any(axis=0))[-1]) + 1
        slots_NK, signs_NK = atom_NK[:, :used], sign_NK[:, :used]
        known_NK2 = np.stack([correlation_NB[todo_N[:, None], slots_NK], signs_NK], axis=2)
        code_NK2 = np.linalg.solve(gram_BB[slots_NK[:, :, None], slots_NK[:, None, :]], known_NK2)
        rebuilt_N2D = code_NK2.swapaxes(1, 2) @ atoms_BD[slots_NK]
        free_ND, slope_ND = target_ND[todo_N] - rebuilt_N2D[:, 0], rebuilt_N2D[:, 1]  # residual: free + level slope
        join_N, join_at_N, join_sign_N = _next_join(free_ND @ atoms_BD.T, slope_ND @ atoms_BD.T, slots_NK)
        leave_N, leave_at_N = _next_leave(code_NK2, signs_NK)
        level_N = np.minimum(level_N, np.maximum(join_at_N, leave_at_N))
        residual_ND[todo_N] = free_ND + np.maximum(level_N, penalty)[:, None] * slope_ND
        leaves_N = leave_at_N >= join_at_N
        slot_N = np.where(leaves_N, leave_N, (sign_NK == 0).argmax(axis=1))
        rows_N = np.arange(len(todo_N))
        atom_NK[rows_N, slot_N] = np.where(leaves_N, count + slot_N, join_N)
        sign_NK[rows_N, slot_N] = np.where(leaves_N, 0, join_sign_N)
        going_N = level_N > penalty
        todo_N, level_N, atom_NK, sign_NK = todo_N[going_N], level_N[going_N], atom_NK[going_N], sign_NK[going_N]
    return residual_ND


def _next_join(free_NB: Array, slope_NB: Array, used_NK: Integers) -> tuple[Integers, Array, Array]:
    """Return the atom whose correlation, free + level x slope, next reaches the falling level; the level; the sign."""
    # A correlation that falls as fast as the level or faster never reaches it: atoms that have just left, and copies.
    upper_NB = np.where(slope_NB < 1 - PARALLEL, free_NB / np.maximum(1 - slope_NB, PARALLEL), 0)
    lower_NB = np.where(slope_NB > PARALLEL - 1, free_NB / np.minimum(-1 - slope_NB, -PARALLEL), 0)
    level_NB = np.maximum(upper_NB, lower_NB)
    np.put_along_axis(level_NB, used_NK, 0, axis=1)
    join_N = level_NB.argmax(axis=1)
    rows_N = np.arange(len(level_NB))
    level_N = level_NB[rows_N, join_N]
    return join_N, level_N, np.where(upper_NB[rows_N, join_N] == level_N, 1.0, -1.0)


def _next_leave(code_NK2: Array, sign_NK: Array) -> tuple[Integers, Array]:
    """Return the slot whose entry of the code, u - level x v, next reaches 0 while the level falls, and the level."""
    shrinks_NK = sign_NK * code_NK2[..., 1] < 0
    level_NK = np.where(shrinks_NK, code_NK2[..., 0] / np.where(shrinks_NK, code_NK2[..., 1], 1), 0)
    leave_N = level_NK.argmax(axis=1)
    return leave_N, level_NK[np.arange(len(level_NK)), leave_N]


def clusters(feature_ND: Array) -> Integers:
    """Return the cluster of each superpixel by k-means.

    Paper: the initial centres are not stated. Here the first is the feature farthest from the mean, and each next one
    is the farthest from those before it. The same image always has the same clusters.
    """
    centres = [feature_ND.mean(axis=0)]
    distance_N = np.full(len(feature_ND), np.inf)
    for turn in range(min(CLUSTERS, len(feature_ND))):
        nearest_N = ((feature_ND - centres[-1]) ** 2).sum(axis=1)
        distance_N = np.minimum(distance_N, nearest_N) if turn > 1 else nearest_N
        centres.append(feature_ND[distance_N.argmax()])
    centre_KD = np.stack(centres[1:])
    cluster_N: Integers = np.zeros(len(feature_ND), dtype=np.intp)
    for _ in range(CLUSTER_ITERATIONS):
        score_NK = feature_ND @ centre_KD.T - (centre_KD**2).sum(axis=1) / 2
        cluster_N = score_NK.argmax(axis=1)
        member_KN = np.arange(len(centre_KD))[:, None] == cluster_N
        size_K = member_KN.sum(axis=1)
        centre_KD = np.where(size_K[:, None] > 0, member_KN @ feature_ND / np.maximum(size_K, 1)[:, None], centre_KD)
    return cluster_N


def propagate(error_N: Array, feature_ND: Array, cluster_N: Integers) -> Array:
    """Return errors averaged with those of similar superpixels of the same cluster, scaled to [0, 1].

    From the largest error to the smallest, e_i becomes the mean of e_i and the weighted mean of its cluster. The
    weighted mean takes averaged errors where they exist. The weights are a Gaussian of the feature distance; its
    variance is the mean variance of the features.
    """
    variance = max(float(feature_ND.var(axis=0).mean()), TINY)
    averaged_N = np.empty_like(error_N)
    order_N = np.argsort(-error_N, kind="stable")
    for cluster in np.unique(cluster_N):
        members_M = order_N[cluster_N[order_N] == cluster]
        weight_MM = np.exp(-(pairwise_distance(feature_ND[members_M]) ** 2) / (2 * variance))
        share_MM = (1 - OWN_ERROR) * weight_MM / weight_MM.sum(axis=1, keepdims=True)
        # In this order each error depends only on earlier ones: a triangular system.
        before_MM = np.tril(share_MM, -1)
        given_M = OWN_ERROR * error_N[members_M] + (share_MM - before_MM) @ error_N[members_M]
        system_MM = np.eye(len(members_M)) - before_MM
        averaged_N[members_M] = solve_triangular(system_MM, given_M, lower=True, unit_diagonal=True)
    return scale(averaged_N)


def closeness(feature_HWD: Single, feature_ND: Array, labels_HW: Labels) -> Single:
    """Return 1 / distance of each pixel's feature to the mean feature of its superpixel."""
    # Paper: here the authors' program has the pixel's position in pixels and the superpixel's in shares of the image.
    difference_HWD = feature_HWD - feature_ND.astype(np.float32)[labels_HW]
    return np.asarray(1 / np.sqrt(np.einsum("hwd,hwd->hw", difference_HWD, difference_HWD) + 1e-6), dtype=np.float32)


def towards_object(error_HW: Array) -> Array:
    """Return errors multiplied by a Gaussian around their weighted centre, scaled to [0, 1]."""
    height, width = error_HW.shape
    factors = []
    for axis, size in ((1, height), (0, width)):
        position = np.arange(size)
        profile = error_HW.sum(axis=axis)
        centre = position @ profile / profile.sum() if profile.any() else (size - 1) / 2
        factors.append(np.exp(-((position - centre) ** 2) / (2 * (OBJECT_SIGMA * size) ** 2)))
    return scale(error_HW * np.outer(*factors))


def posterior(prior_HW: Array, evidence_HW: Array) -> Array:
    """Return the posterior probability of the object, given its prior and another map as evidence (Bayes).

    The likelihoods are histograms of the evidence inside and outside of the pixels whose prior is above its mean.
    """
    bin_HW = np.minimum((evidence_HW * BINS).astype(np.int64), BINS - 1)
    inside_HW = prior_HW > prior_HW.mean()
    object_HW, ground_HW = (_histogram(bin_HW[part_HW])[bin_HW] for part_HW in (inside_HW, ~inside_HW))
    joint_HW = prior_HW * object_HW
    return np.asarray(joint_HW / (joint_HW + (1 - prior_HW) * ground_HW))


def _histogram(bin_P: npt.NDArray[np.int64]) -> Array:
    """Return the smoothed share of each bin; never 0, so that no pixel has likelihood 0."""
    share_B = np.bincount(bin_P, minlength=BINS) / max(1, len(bin_P))
    smooth_B = cv2.GaussianBlur(share_B[None], (0, 0), BIN_SIGMA * BINS, borderType=cv2.BORDER_REFLECT)[0]
    return np.asarray(smooth_B + TINY)
