"""How certain a number is: means with intervals over seeds, and over test items with the bootstrap.

Not in the paper, which reports single runs. Pure functions on SciPy's distributions and resampling; no files.

Shape suffixes: B resamples, N items, C classes, R repetitions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from previts.evals.outcome import ItemScores

LEVEL = 0.05  # the accepted probability of a false alarm, for one comparison or for all of a table
RESAMPLES = 2000  # the standard error of a bootstrap is then known to 1.6 %
LEAST_ITEMS = 10  # fewer items, or fewer on which two arms differ, do not have an interval
_AT_ONCE = 500_000  # numbers of a batch of resamples
_ROUNDING = 1e-9  # relative to the values; a smaller spread comes from floating point only
_RESAMPLING_SEED = 0

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean, or a mean difference, and its standard error; Student's t distribution gives its interval.

    Attributes:
        value: The mean.
        n: How many seeds or items it is a mean of.
        source: What varies: the seeds of the training, or the test items with one training.
        error: The standard error; None where `n` values do not tell it.
    """

    value: float
    n: int
    source: Literal["seeds", "items"]
    error: float | None = None

    @property
    def deviation(self) -> float | None:
        """The standard deviation over seeds or items."""
        return None if self.error is None else self.error * math.sqrt(self.n)

    def half_width(self, comparisons: int = 1) -> float | None:
        """Return half the width of the interval that all of some comparisons share (Bonferroni), 95 % for one."""
        if self.error is None:
            return None
        return float(stats.t.isf(LEVEL / comparisons / 2, self.n - 1) * self.error)

    def interval(self, comparisons: int = 1) -> tuple[float, float] | None:
        """Return the interval that all of some comparisons share (Bonferroni), 95 % for one."""
        half = self.half_width(comparisons)
        return None if half is None else (self.value - half, self.value + half)

    def p(self, comparisons: int = 1) -> float | None:
        """Return the p-value of no difference, two-sided and multiplied by the number of comparisons (Bonferroni).

        It is below 0.05 exactly if the interval of the same number of comparisons excludes zero.
        """
        if self.error is None:
            return None
        return min(1.0, comparisons * 2 * float(stats.t.sf(abs(self.value) / self.error, self.n - 1)))


def over_seeds(values: Sequence[float]) -> Estimate:
    """Return the mean over seeds; without an error for one seed or equal values.

    Raises:
        ValueError: If there is no value.
    """
    return _estimate(values, max(map(abs, values)))


def paired_over_seeds(values: Mapping[int, float], baseline: Mapping[int, float]) -> Estimate | None:
    """Return the mean difference to a baseline over the seeds that both have; None if there is none.

    It has no error for one seed, or if all differences are equal.
    """
    common = [seed for seed in baseline if seed in values]
    if not common:
        return None
    largest = max(abs(item[seed]) for item in (values, baseline) for seed in common)
    return _estimate([values[seed] - baseline[seed] for seed in common], largest)


def _estimate(values: Sequence[float], scale: float) -> Estimate:
    """Return a mean over seeds; a spread within the rounding of numbers of this scale counts as none."""
    if not values:
        raise ValueError("there is no value to average")
    mean = math.fsum(values) / len(values)
    error = float(stats.sem(values)) if len(values) > 1 else 0.0
    return Estimate(mean, len(values), "seeds", error if error > _ROUNDING * scale else None)


@dataclass(frozen=True)
class Resampled:
    """One number on its test items and on resamples of them (B).

    The resamples of two arms on the same items are the same, so that the difference of the two arms is paired.
    """

    scores: ItemScores
    value: float
    numbers: Numbers


def resample(scores: ItemScores) -> Resampled | None:
    """Return a number on resamples of its items, each as large as all of them; None for fewer than `LEAST_ITEMS`."""
    count = scores.count
    if count < LEAST_ITEMS:
        return None

    def numbers_of(items_BN: NDArray[np.int64], axis: int) -> Numbers:
        assert axis in (-1, items_BN.ndim - 1)
        return compute(scores, np.atleast_2d(items_BN))

    found = stats.bootstrap(
        (np.arange(count),),
        numbers_of,
        n_resamples=RESAMPLES,
        batch=max(1, _AT_ONCE // count),
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(_RESAMPLING_SEED),
    )
    return Resampled(scores, float(compute(scores, np.arange(count)[None])[0]), found.bootstrap_distribution)


def over_items(mine: Resampled) -> Estimate:
    """Return a number with its error over test items; without an error if no resample changes it."""
    return _bootstrapped(mine.value, mine.numbers, mine.scores.count, abs(mine.value))


def paired_over_items(mine: Resampled, baseline: Resampled) -> Estimate:
    """Return the difference of two numbers on the same items.

    It has no error if the two arms differ on fewer than `LEAST_ITEMS` items: a resample without any of them would then
    not be rare, and the interval too short.

    Raises:
        ValueError: If the two are not on the same items.
    """
    if mine.scores.items != baseline.scores.items or mine.scores.count != baseline.scores.count:
        raise ValueError("the two numbers are not on the same items")
    difference = mine.value - baseline.value
    if mine.scores.labels is None:
        unequal = ~np.isclose(mine.scores.values, baseline.scores.values, rtol=_ROUNDING, atol=0)
        if unequal.sum() < LEAST_ITEMS:
            return Estimate(difference, mine.scores.count, "items")
    scale = max(abs(mine.value), abs(baseline.value))
    return _bootstrapped(difference, mine.numbers - baseline.numbers, mine.scores.count, scale)


def _bootstrapped(value: float, numbers_B: Numbers, count: int, scale: float) -> Estimate:
    """Return an estimate with the standard error of resamples.

    A resample varies as if the items were the population, which is too little by (n - 1) / n (Hesterberg 2015).
    """
    error = float(np.std(numbers_B, ddof=1)) * math.sqrt(count / (count - 1))
    return Estimate(value, count, "items", error if error > _ROUNDING * scale else None)


def compute(scores: ItemScores, items_BN: NDArray[np.integer[Any]]) -> Numbers:
    """Return the number on each of B samples of N items: the mean of the contributions, or the mean AP in percent.

    A class without a positive in a sample does not count in the sample.
    """
    if scores.labels is None:
        return np.asarray(scores.values[items_BN].mean(axis=1), np.float64)
    samples, count = len(items_BN), scores.count
    places_BN = items_BN + count * np.arange(samples)[:, None]
    counts_BN = np.bincount(places_BN.ravel(), minlength=samples * count).reshape(samples, count).astype(np.float32)
    runs = [_mean_precision(values_NC, scores.labels, counts_BN) for values_NC in scores.values]
    return np.asarray(np.mean(runs, axis=0))


def _mean_precision(
    scores_NC: NDArray[np.floating[Any]], labels_NC: NDArray[np.int8], counts_BN: NDArray[np.float32]
) -> Numbers:
    """Return the mean AP in percent of samples, in which each item occurs some times.

    Equal scores enter together, as in scikit-learn's `average_precision_score`.
    """
    precision_sum, classes = np.zeros(len(counts_BN)), np.zeros(len(counts_BN))
    for scores_N, labels_N in zip(scores_NC.T, labels_NC.T, strict=True):
        order = np.argsort(-scores_N, kind="stable")
        order = order[labels_N[order] != 0]
        ends = np.flatnonzero(np.append(np.diff(scores_N[order]) != 0, True))
        # Only the ends with a positive count. Whole numbers up to 2^24 are exact in float32.
        is_positive = labels_N[order] == 1
        groups = np.append(0, ends[:-1] + 1)
        ends = ends[np.logical_or.reduceat(is_positive, groups)]
        taken_BN = counts_BN[:, order]
        seen_BE = np.cumsum(taken_BN, axis=1)[:, ends]
        hits_BE = np.cumsum(taken_BN * is_positive, axis=1)[:, ends]
        found_BE = np.diff(hits_BE, axis=1, prepend=0)
        positives_B = hits_BE[:, -1]
        precision_B = (found_BE * hits_BE / np.maximum(seen_BE, 1)).sum(axis=1) / np.maximum(positives_B, 1)
        precision_sum += precision_B
        classes += positives_B > 0
    return np.asarray(100 * precision_sum / np.maximum(classes, 1))
