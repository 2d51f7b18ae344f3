"""A table of rows and their main numbers, with intervals over seeds, from MLflow alone.

For section 4 of PreViTS, whose tables compare arms with a baseline.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from previts.config import paper
from previts.reporting.contents import ARROWS
from previts.reporting.metrics import METRICS, TITLES, Metric
from previts.runlog.finished_runs import StoredArm, read_comparison

LEVEL = 0.95  # of an interval
COLUMNS = 4  # metrics next to each other

Numbers = dict[str, Mapping[str, float]]  # the metrics of a row by seed


def compare(root: str, runs: Sequence[str]) -> str:
    """Return the table of parent runs.

    Args:
        root: Folder or bucket prefix of all results, for the store if `MLFLOW_TRACKING_URI` is not set.
        runs: Ids or names of parent runs; empty: the newest with numbers.

    Raises:
        InputError: If MLflow does not answer, or there is no such run, or it has no numbers yet.
    """
    found = read_comparison(root, runs, {metric.key for metric in METRICS})
    rows = _by_row(found.arms)
    measured = {name for numbers in rows.values() for metrics in numbers.values() for name in metrics}
    shown = [metric for metric in METRICS if metric.key in measured]
    lines = [*found.names, ""]
    for benchmark in dict.fromkeys(metric.benchmark for metric in shown):
        of_benchmark = [metric for metric in shown if metric.benchmark == benchmark]
        for start in range(0, len(of_benchmark), COLUMNS):
            lines += [*_table(rows, of_benchmark[start : start + COLUMNS]), ""]
    lines.append(f"± {LEVEL:.0%} interval over seeds (t distribution); in brackets the difference to the first row")
    lines.append("over the seeds that both rows have. Without an interval there is one seed only.")
    return "\n".join([*lines, *([found.link] if found.link else [])])


def _by_row(arms: Sequence[StoredArm]) -> dict[str, Numbers]:
    """Return the numbers by row, in the order of the paper; a row has a line for each profile and index."""
    order = {name: place for place, name in enumerate(paper.ROWS)}
    keys = sorted(
        {(row, arm.profile, arm.index) for arm in arms for row in arm.rows},
        key=lambda key: (order.get(key[0], len(order)), *key),
    )
    rows = [row for row, _, _ in keys]
    found: dict[str, Numbers] = {}
    for row, profile, index in keys:
        label = row if rows.count(row) == 1 else f"{row} ({profile}, index {index})"
        own = [arm for arm in arms if row in arm.rows and (arm.profile, arm.index) == (profile, index)]
        found[label] = {arm.seed: arm.metrics for arm in own}
    return found


def _table(rows: Mapping[str, Numbers], metrics: Sequence[Metric]) -> Iterator[str]:
    head = ["row", "seeds", *(f"{metric.title}{ARROWS[metric.better]}" for metric in metrics)]
    first = next(iter(rows.values()))
    lines = [head]
    for label, numbers in rows.items():
        cells = [_cell(numbers, None if numbers is first else first, metric) for metric in metrics]
        lines.append([label, str(len(numbers)), *cells])
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    benchmark = metrics[0].benchmark
    yield TITLES.get(benchmark, (benchmark,))[0]
    for line in lines:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _cell(numbers: Numbers, first: Numbers | None, metric: Metric) -> str:
    values = {seed: metrics[metric.key] for seed, metrics in numbers.items() if metric.key in metrics}
    if not values:
        return "-"
    text = _with_interval([*values.values()], metric)
    others = {seed: metrics[metric.key] for seed, metrics in (first or {}).items() if metric.key in metrics}
    if both := [values[seed] - others[seed] for seed in values if seed in others]:
        text += f" ({_with_interval(both, metric, '+')})"
    return text


def _with_interval(values: Sequence[float], metric: Metric, sign: str = "") -> str:
    half = _half_interval(values)
    shown = metric.show(statistics.fmean(values), sign)
    return shown if half is None else f"{shown} ± {metric.show(half)}"


def _half_interval(values: Sequence[float]) -> float | None:
    """Return half the width of the interval of a mean; None for a single value."""
    from scipy import stats

    if len(values) < 2:
        return None
    quantile = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))
