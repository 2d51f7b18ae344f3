"""The numbers of one column: how certain they are, and their differences to the baseline.

Over seeds if two arms share at least two of them, else over the test items of one seed. An interval that cannot be
computed has a reason. Reads the item scores of results and writes nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from previts.errors import InputError
from previts.evals.outcome import ItemScores, Population
from previts.evals.result import Result, read_items
from previts.reporting.inputs import ReportRow
from previts.reporting.metrics import Metric
from previts.reporting.statistics import (
    LEAST_ITEMS,
    Estimate,
    Resampled,
    over_items,
    over_seeds,
    paired_over_items,
    paired_over_seeds,
    resample,
)

WITHOUT_ITEMS = ("voc_det", "coco")  # average precision of detections ranks the boxes of all images together
_SAME = 1e-4  # relative: by how much a number may differ from that of its item scores, which may have 32 bits


@dataclass(frozen=True)
class TableCell:
    """One number of one row, or the cause of its absence.

    Attributes:
        row: The arm.
        metric: The number.
        results: The results that have it, by seed.
        status: measured, failed or missing.
        cause: Why it is absent, or why some seeds lack it.
        population: What the first of the results measured it on.
        estimate: The mean over seeds, or the number of one seed; None if it is absent.
        difference: To the baseline of the arm, over the seeds that both have; None for the baseline itself.
        comparisons: How many differences of the table have an interval and a better direction; 0 outside of columns.
        unsure: Why the number, or its difference, has no interval.
        paper_delta: The difference of the paper.
        is_baseline_again: Whether it has the same trainings as the baseline.
        comparison: What the difference compares: the number, the trainings of the arm and those of its baseline.
        best: Whether it is the best of its column.
    """

    row: ReportRow
    metric: Metric
    results: Mapping[int, Result]
    status: str
    cause: str
    population: Population | None = None
    estimate: Estimate | None = None
    difference: Estimate | None = None
    comparisons: int = 0
    unsure: str = ""
    paper_delta: float | None = None
    is_baseline_again: bool = False
    comparison: tuple[str, tuple[str, ...], tuple[str, ...]] = ("", (), ())
    best: bool = False

    @property
    def values(self) -> dict[int, float]:
        """The number of each seed that has it."""
        found = {seed: result.metrics[self.metric.key] for seed, result in self.results.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    @property
    def value(self) -> float | None:
        """The mean over seeds."""
        return self.estimate.value if self.estimate else None

    @property
    def delta(self) -> float | None:
        """The difference to the baseline."""
        return self.difference.value if self.difference else None

    @property
    def half_width(self) -> float | None:
        """Half the 95 % interval of the number."""
        return self.estimate.half_width() if self.estimate else None

    @property
    def delta_half_width(self) -> float | None:
        """Half the interval of the difference that holds for all comparisons of the table together."""
        if not self.difference or not self.comparisons or not self.is_comparison:
            return None
        return self.difference.half_width(self.comparisons)

    @property
    def paper(self) -> float | None:
        """The number that the paper reports."""
        return self.row.reported.get(self.metric.key)

    @property
    def is_comparison(self) -> bool:
        """Whether the difference to the baseline can be an improvement, and has an interval."""
        return bool(self.metric.better and self.difference and self.difference.error is not None)

    @property
    def is_ordered_by_paper(self) -> bool:
        """Whether the paper reports a difference to the baseline in a number with a better direction.

        Rows that share their trainings with the baseline, such as those on two corpora of the paper, have no order.
        """
        return bool(self.metric.better and self.paper_delta and self.delta is not None and not self.is_baseline_again)

    @property
    def direction(self) -> int:
        """The sign of the difference to the baseline as it is shown: -1, 0 or 1."""
        shown = float(f"{self.delta or 0:.{self.metric.digits}f}")
        return (shown > 0) - (shown < 0)

    @property
    def has_content(self) -> bool:
        """Whether the cell has a number, a failure or a number of the paper."""
        return self.status != "missing" or self.paper is not None

    @property
    def verdict(self) -> str:
        """Whether the difference to the baseline is an improvement: "up", "down", or "same" within the noise.

        The interval that decides holds for all comparisons of the table together.
        """
        half = self.delta_half_width
        if half is None or abs(self.delta or 0) <= half or not self.direction:
            return "same"
        return "up" if (self.direction > 0) == (self.metric.better == "higher") else "down"


@dataclass
class ItemScoresOf:
    """Resamples of the numbers of results; each file is read once and each number resampled once."""

    _scores: dict[str, dict[str, ItemScores] | str] = field(default_factory=dict)
    _numbers: dict[tuple[str, str], Resampled | str] = field(default_factory=dict)

    def resampled(self, result: Result, metric: str) -> Resampled | str:
        """Return a number on resamples of its test items, or the reason why this is not possible."""
        if result.uri not in self._scores:
            self._scores[result.uri] = _read(result)
        if (result.uri, metric) not in self._numbers:
            self._numbers[result.uri, metric] = _resampled(result, metric, self._scores[result.uri])
        return self._numbers[result.uri, metric]


def _read(result: Result) -> dict[str, ItemScores] | str:
    if result.benchmark in WITHOUT_ITEMS:
        return "The average precision of detections is not computed from single test items, so it needs two seeds."
    try:
        scores = read_items(result)
    except InputError as error:
        return f"The outcomes of the test items cannot be read: {error}"
    return scores or "The result has no outcomes of its test items, because an earlier version wrote it."


def _resampled(result: Result, metric: str, scores: dict[str, ItemScores] | str) -> Resampled | str:
    if isinstance(scores, str):
        return scores
    if metric not in scores:
        return "The result has no outcomes of the test items for this number."
    found = resample(scores[metric])
    if found is None:
        return f"There are fewer than {LEAST_ITEMS} test items."
    value = result.metrics[metric]
    if value is None or not math.isclose(found.value, value, rel_tol=_SAME, abs_tol=_SAME):
        return f"The outcomes of the test items give another number ({found.value:.6g}) than the result."
    return replace(found, value=value)  # the result's own digits


def compare(column: list[TableCell], baselines: Sequence[int], items: ItemScoresOf) -> list[TableCell]:
    """Return the cells of a column, each compared with the baseline of its arm, and with the best.

    Values are compared as they are displayed. Nothing is best where all arms have the same value, or one arm has any.

    Args:
        column: The cells, at least one.
        baselines: For each cell, the place of the one that it is compared with.
        items: Resamples of numbers that were made before.
    """
    metric = column[0].metric
    found = []
    for cell, place in zip(column, baselines, strict=True):
        baseline = column[place]
        if not cell.values:
            found.append(cell)
            continue
        estimate, unsure = _spread(cell, items)
        delta, same = None, False
        if cell is not baseline and baseline.values:
            delta, unknown = _difference(cell, baseline, items)
            same = _has_same_training(cell, baseline)
            unsure = unsure or ("" if same else unknown)
        paper = cell.paper - baseline.paper if cell.paper is not None and baseline.paper is not None else None
        paper = None if cell is baseline else paper
        found.append(
            replace(
                cell,
                estimate=estimate,
                difference=delta,
                unsure=unsure,
                paper_delta=paper,
                is_baseline_again=same,
                comparison=(metric.key, _trainings(cell), _trainings(baseline)),
            )
        )
    measured = [cell.value for cell in found if cell.value is not None]
    if not metric.better or len({metric.show(value) for value in measured}) < 2:
        return found
    best = metric.show(max(measured) if metric.better == "higher" else min(measured))
    return [replace(cell, best=cell.value is not None and metric.show(cell.value) == best) for cell in found]


def _trainings(cell: TableCell) -> tuple[str, ...]:
    return tuple(result.checkpoint for _, result in sorted(cell.results.items()))


def _has_same_training(cell: TableCell, baseline: TableCell) -> bool:
    """Return whether all seeds that an arm shares with the baseline are of the same checkpoints."""
    common = [seed for seed in cell.results if seed in baseline.results]
    pairs = [(cell.results[seed].checkpoint, baseline.results[seed].checkpoint) for seed in common]
    return bool(pairs) and all(mine == theirs for mine, theirs in pairs)


def _spread(cell: TableCell, items: ItemScoresOf) -> tuple[Estimate, str]:
    """Return the mean of a number and how certain it is, with the reason if that is not known."""
    estimate = over_seeds(list(cell.values.values()))
    if estimate.n > 1:
        return estimate, "" if estimate.error is not None else "All seeds have the same value."
    (seed,) = cell.values
    found = items.resampled(cell.results[seed], cell.metric.key)
    if isinstance(found, str):
        return estimate, found
    over = replace(over_items(found), value=estimate.value)  # of the result; item scores may have 32 bits
    return (over, "") if over.error is not None else (estimate, "All test items have the same outcome.")


def _difference(cell: TableCell, baseline: TableCell, items: ItemScoresOf) -> tuple[Estimate | None, str]:
    """Return the difference to the baseline over the seeds that both have, with the reason if it is not certain.

    None if they share no seed.
    """
    estimate = paired_over_seeds(cell.values, baseline.values)
    if estimate is None:
        return None, "This arm has no seed in common with the baseline."
    if estimate.n > 1:
        known = estimate.error is not None
        return estimate, "" if known else "The difference to the baseline is the same for all seeds."
    seed = next(seed for seed in baseline.values if seed in cell.values)
    mine, theirs = (items.resampled(arm.results[seed], arm.metric.key) for arm in (cell, baseline))
    if isinstance(mine, str) or isinstance(theirs, str):
        return estimate, mine if isinstance(mine, str) else str(theirs)
    try:
        over = paired_over_items(mine, theirs)
    except ValueError:
        return estimate, "The baseline was measured on other test items."
    over = replace(over, value=estimate.value)
    return over, "" if over.error is not None else f"The baseline differs on fewer than {LEAST_ITEMS} test items."
