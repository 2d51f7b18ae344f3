"""The numbers of several benchmarks, from plain arrays: average precision, accuracy, pointing.

PreViTS tables 1 and 4. Pure numpy and scikit-learn: no models, no files, no randomness.

Shape suffixes: N images, C classes, H W pixels or grid cells.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
POINTING_SHARE = 0.5  # of a cell, which the object must cover for a hit


def average_precision(truth_N: NDArray[np.bool_], scores_N: Array) -> float:
    """Return the area under the stepwise precision-recall curve, in [0, 1] (scikit-learn).

    Raises:
        ValueError: If there is no positive, because the number is not defined then.
    """
    if not truth_N.any():
        raise ValueError("average precision needs at least one positive")
    from sklearn.metrics import average_precision_score  # a second of imports, which few benchmarks need

    return float(average_precision_score(truth_N, scores_N))


def chance_average_precision(positives: int, items: int) -> float:
    """Return the expected average precision of a random ranking, in [0, 1].

    Each of the N ranks holds a positive with probability P / N. The ranks above it then hold (P - 1) / (N - 1)
    positives each, so the precision at rank n is [1 + (n - 1) (P - 1) / (N - 1)] / n. The mean of this over all ranks
    is the expectation. It is close to the prevalence P / N in large sets and above it in small ones.

    Raises:
        ValueError: If there is no positive, or more positives than items.
    """
    if not 0 < positives <= items:
        raise ValueError(f"positives must be from 1 to the number of items, got {positives = }, {items = }")
    ranks_N = np.arange(1, items + 1)
    above = (positives - 1) / max(1, items - 1)
    return float(np.mean((1 + (ranks_N - 1) * above) / ranks_N))


def chance_accuracy(classes: int, k: int = 1) -> float:
    """Return the expected top-k accuracy of a guess among that many classes, in percent."""
    return 100.0 * min(k, classes) / classes


def eleven_point_average_precision(truth_N: NDArray[np.bool_], scores_N: Array) -> float:
    """Return VOC 2007's own number, in [0, 1]: the best precision at recall >= r, averaged over r = 0, 0.1, ..., 1.

    Equal scores enter together, so that the order of the images has no effect.

    Raises:
        ValueError: If there is no positive.
    """
    positives = int(truth_N.sum())
    if not positives:
        raise ValueError("average precision needs at least one positive")
    order = np.argsort(-scores_N, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores_N[order]) != 0, True))
    hits = np.cumsum(truth_N[order])[ends]
    precision = hits / (ends + 1)
    # In integers: 3 of 10 positives must count as recall 0.3, which is not equal to 0.1 * 3 in floating point.
    reached = [10 * hits >= tenth * positives for tenth in range(11)]
    return float(np.mean([precision[where].max() for where in reached]))


def top_k_hits(scores_NC: Array, labels_N: NDArray[np.integer], k: int) -> NDArray[np.bool_]:
    """Return whether the label of each image is among the `k` best scores; the lower class wins ties."""
    best = np.argsort(-scores_NC, axis=1, kind="stable")[:, :k]
    return np.asarray((best == labels_N[:, None]).any(axis=1))


def mapped_hits(scores_NC: Array, labels_N: NDArray[np.integer], mapping_C: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return whether the best class of each image, mapped by `mapping_C`, is its label; -1 is never right."""
    return np.asarray(mapping_C[np.argmax(scores_NC, axis=1)] == labels_N)


def accuracy(hits_N: NDArray[np.bool_]) -> float:
    """Return the percentage of hits."""
    return 100.0 * float(hits_N.mean())


def energy_in_mask(cam_NHW: Array, mask_NHW: NDArray[np.bool_] | Array) -> NDArray[np.float64]:
    """Return the share of each map's sum inside its mask, N in [0, 1]; 0 for a map of zeros.

    Args:
        cam_NHW: Non-negative maps; also of clips (NTHW), whose cells count together.
        mask_NHW: On the same grid: bool, or the share of each cell that the object covers.

    Raises:
        ValueError: If the two shapes differ.
    """
    _same_grid(cam_NHW, mask_NHW)
    cells = tuple(range(1, cam_NHW.ndim))
    whole_N = cam_NHW.sum(cells, dtype=np.float64)
    inside_N = (cam_NHW * mask_NHW).sum(cells, dtype=np.float64)
    return np.asarray(np.divide(inside_N, whole_N, out=np.zeros_like(whole_N), where=whole_N > 0))


def pointing(cam_NHW: Array, mask_NHW: NDArray[np.bool_] | Array) -> NDArray[np.float64]:
    """Return whether the strongest cell of each map is in its mask, N: 1 or 0 (the pointing game, Zhang et al. 2018).

    Of equally strong cells the share inside the mask counts, so that their order has no effect; 0 for a map of zeros.

    Args:
        cam_NHW: Non-negative maps; also of clips (NTHW).
        mask_NHW: On the same grid: bool, or the share of each cell that the object covers, of which a hit needs half.

    Raises:
        ValueError: If the two shapes differ.
    """
    _same_grid(cam_NHW, mask_NHW)
    cam_NX, mask_NX = cam_NHW.reshape(len(cam_NHW), -1), mask_NHW.reshape(len(mask_NHW), -1) >= POINTING_SHARE
    strongest_NX = (cam_NX == cam_NX.max(axis=1, keepdims=True)) & (cam_NX > 0)
    hits_N = (strongest_NX & mask_NX).sum(axis=1)
    return np.asarray(hits_N / np.maximum(strongest_NX.sum(axis=1), 1))


def _same_grid(cam_NHW: Array, mask_NHW: NDArray[np.bool_] | Array) -> None:
    if cam_NHW.shape != mask_NHW.shape:
        raise ValueError(f"map and mask must share a grid, got {cam_NHW.shape = }, {mask_NHW.shape = }")
