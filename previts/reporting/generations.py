"""The generations of a corpus that grows: its size and the numbers of each arm, beside those of smaller corpora.

Not in the paper, whose corpora were made once. `turnover` reads the generations. This module writes nothing.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from previts.reporting import figures
from previts.reporting.comparisons import TableCell
from previts.reporting.inputs import short
from previts.reporting.metrics import KNOWN, Metric
from previts.storage import folders

CSV = "report.csv"
SHOWN = 12  # the newest generations that the tables have; the curves have all
COUNTS = {
    "crawls": "crawls",
    "videos_in": "videos stored",
    "videos": "videos kept",
    "videos_with_tube": "with a tube",
    "hours": "hours",
    "filtered_duplicate": "duplicate",
    "filtered_leak": "leak",
    "filtered_withdrawn": "withdrawn",
}


@dataclass(frozen=True)
class Turnover:
    """What came and what went.

    Attributes:
        came: By the name of a count of the index, how much the older generation lacks.
        went: By the same names, how much the newer generation lacks.
        reasons: How many videos were kept before and are not now, by their reason now, the most frequent first.
        examples: Some of these videos: id, reason, and more about the reason in words.
        cause: Why the generations could not be compared; "" if they were.
    """

    came: Mapping[str, int | float]
    went: Mapping[str, int | float]
    reasons: Mapping[str, int]
    examples: tuple[tuple[str, str, str], ...] = ()
    cause: str = ""


@dataclass(frozen=True)
class Generation:
    """A corpus and what was measured on it.

    Attributes:
        number: 1 for the oldest.
        fingerprint: Of its index.
        index: URI of its index.
        counts: Of its index, and the number of its `crawls`.
        numbers: Values by name of the row and key of the metric.
        turnover: What came and went since the generation before; None for the first one and those before `SHOWN`.
    """

    number: int
    fingerprint: str
    index: str
    counts: dict[str, int | float]
    numbers: dict[tuple[str, str], float] = field(default_factory=dict)
    turnover: Turnover | None = None


@dataclass(frozen=True)
class Change:
    """One number of one arm over the generations, the oldest first; None where it was not measured."""

    cell: TableCell
    values: list[float | None]

    @property
    def metric(self) -> Metric:
        """The number."""
        return self.cell.metric

    @property
    def shown(self) -> list[float | None]:
        """The values of the newest generations."""
        return self.values[-SHOWN:]

    @property
    def delta(self) -> float | None:
        """The difference to the generation before."""
        last, before = self.values[-1], self.values[-2]
        return None if last is None or before is None else last - before


def read_numbers(report: str) -> dict[tuple[str, str], float]:
    """Return the numbers of a report by the name of the row and the key of the metric.

    Raises:
        InputError: If the report is damaged.
    """
    rows = csv.DictReader(io.StringIO(folders.read_file(report, CSV).decode()))
    return {(row["row"], row["metric"]): float(row["value"]) for row in rows if row["value"]}


def sizes(generations: Sequence[Generation]) -> tuple[list[str], list[tuple[Generation, list[tuple[str, str]]]]]:
    """Return the table of the newest generations' sizes: its head, and a line for each generation.

    Each cell is a number, and what came and went since the generation before.
    """
    reasons = dict.fromkeys(
        name for item in generations for name, count in item.counts.items() if name.startswith("filtered_") and count
    )
    titles = COUNTS | {name: name.removeprefix("filtered_") for name in reasons if name not in COUNTS}
    lines = []
    for item in generations[-SHOWN:]:
        moved = item.turnover or Turnover({}, {}, {})
        cells = [
            (_count(item.counts.get(name, 0)), _came_and_went(moved.came.get(name, 0), moved.went.get(name, 0)))
            for name in titles
        ]
        lines.append((item, cells))
    return list(titles.values()), lines


def _count(count: float) -> str:
    return f"{count:,.2f}" if isinstance(count, float) else f"{count:,}"


def _came_and_went(came: float, went: float) -> str:
    """Return what came and went as text; "" if nothing did."""
    parts = [f"{sign}{_count(count)}" for sign, count in (("+", came), ("−", went)) if count]  # noqa: RUF001
    return " ".join(parts)


def departures(generations: Sequence[Generation]) -> list[str]:
    """Return a sentence for each of the newest generations from which videos went: how many, why, and examples."""
    sentences = []
    for item in generations[-SHOWN:]:
        if item.turnover is None:
            continue
        if item.turnover.cause:
            sentences.append(f"Generation {item.number} was not compared with the one before: {item.turnover.cause}")
        elif reasons := item.turnover.reasons:
            count = sum(reasons.values())
            listed = ", ".join(f"{number:,} {name}" for name, number in reasons.items())
            named = "; ".join(
                f"{short(video, 60)} ({name}{': ' + short(detail, 120) if detail else ''})"
                for video, name, detail in item.turnover.examples
            )
            which = f"such as {named}" if count > len(item.turnover.examples) else named
            sentences.append(
                f"Generation {item.number} leaves out {count:,} video{'s' if count > 1 else ''} that the one before "
                f"kept ({listed}): {which}."
            )
    return sentences


def changes(cells: Iterable[TableCell], generations: Sequence[Generation]) -> list[Change]:
    """Return the numbers, of those in the columns of all tables, that an earlier generation has measured."""
    found = {}
    for cell in cells:
        key = (cell.row.name, cell.metric.key)
        values = [*(item.numbers.get(key) for item in generations[:-1]), cell.value]
        if any(value is not None for value in values[:-1]):
            found[key] = Change(cell, values)
    return list(found.values())


def charts(found: Sequence[Change]) -> list[tuple[Metric, list[str], Markup]]:
    """Return for each metric its curves over the generations, and the titles of the arms in the order of the styles."""
    by_metric: dict[str, list[Change]] = {}
    for change in found:
        by_metric.setdefault(change.metric.key, []).append(change)
    drawn = []
    for key, same in by_metric.items():
        series = {}
        for number, change in enumerate(same):
            points = [(place, value) for place, value in enumerate(change.values, 1) if _finite(value)]
            series[number] = [float(place) for place, _ in points], [value for _, value in points if value is not None]
        svg = figures.curves(series, f"generations {key}", across="generation")
        drawn.append((same[0].metric, [change.cell.row.title for change in same], Markup(svg)))  # safe: only numbers
    return drawn


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def trial_points(generations: Sequence[Generation], rows: Iterable[str]) -> list[tuple[int, dict[str, float]]]:
    """Return the main numbers of a trial for the run log, each with its step, the number of a generation.

    Args:
        generations: All generations, the last one with the numbers of the trial.
        rows: Names of the rows of the trial; of numbers that several have, those of the first count.
    """
    last = generations[-1]
    lines = [_numbers(item, rows) for item in generations]
    points = [
        (item.number, {f"generations/{key}": value for key, value in line.items()})
        for item, line in zip(generations, lines, strict=True)
    ]
    about: dict[str, float] = {"generation": last.number}
    about |= {f"corpus/{name}": last.counts[name] for name in ("crawls", "videos", "hours") if name in last.counts}
    for key, value in lines[-2].items() if len(lines) > 1 else ():
        about[f"{key}.previous"] = value
        if key in lines[-1]:
            about[f"{key}.change"] = lines[-1][key] - value
    return [*points, (last.number, about)]


def _numbers(generation: Generation, rows: Iterable[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in rows:
        for (name, key), value in generation.numbers.items():
            if name == row and key in KNOWN and math.isfinite(value):
                found.setdefault(key, value)
    return found


def corpus_points(generations: Sequence[Generation]) -> list[tuple[int, dict[str, float]]]:
    """Return the sizes of the corpus for the run log, and what came and went, with their steps as in `trial_points`."""
    points = []
    for item in generations:
        sizes_of: Mapping[str, float] = {name: item.counts[name] for name in COUNTS if name in item.counts}
        moved = item.turnover or Turnover({}, {}, {})
        points.append(
            (
                item.number,
                {
                    **{f"corpus/{name}": value for name, value in sizes_of.items()},
                    **{f"came/{name}": value for name, value in moved.came.items() if name in COUNTS},
                    **{f"went/{name}": value for name, value in moved.went.items() if name in COUNTS},
                },
            )
        )
    return [*points, (generations[-1].number, {"generation": generations[-1].number})]
