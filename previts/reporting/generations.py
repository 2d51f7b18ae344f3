"""The generations of a corpus that grows: its size and the numbers of each arm, beside those of smaller corpora.

Not in the paper, whose corpora were made once. This module reads the reports of earlier generations; it writes nothing.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from previts.reporting import figures
from previts.reporting.metrics import Metric
from previts.reporting.numbers import Table, TableCell
from previts.storage import folders

CSV = "report.csv"
_COUNTS = {
    "crawls": "crawls",
    "videos_in": "videos stored",
    "videos": "videos kept",
    "videos_with_tube": "with a tube",
    "hours": "hours",
}


@dataclass(frozen=True)
class Generation:
    """A corpus and what was measured on it.

    Attributes:
        fingerprint: Of its index.
        counts: Of its index, and the number of its `crawls`.
        numbers: Values by name of the row and key of the metric.
    """

    fingerprint: str
    counts: dict[str, int | float]
    numbers: dict[tuple[str, str], float]


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
    def delta(self) -> float | None:
        """The difference to the generation before."""
        last, before = self.values[-1], self.values[-2]
        return None if last is None or before is None else last - before

    @property
    def verdict(self) -> str:
        """Whether the difference is an improvement, as `TableCell.verdict`."""
        return TableCell(self.cell.row, self.metric, self.values[-1], "measured", "", delta=self.delta).verdict


def read_generation(report: str) -> Generation:
    """Return the generation of a finished report.

    Raises:
        InputError: If the report or its index is damaged, or the index was deleted.
    """
    rows = csv.DictReader(io.StringIO(folders.read_file(report, CSV).decode()))
    numbers = {(row["row"], row["metric"]): float(row["value"]) for row in rows if row["value"]}
    index = folders.read_manifest(folders.read_manifest(report).inputs["index"])
    return Generation(index.fingerprint, counts_of(index), numbers)


def counts_of(index: folders.Manifest) -> dict[str, int | float]:
    """Return the counts of an index, with the number of its crawls."""
    return {"crawls": folders.read_manifest(index.inputs["videos"]).counts.get("crawls", 1), **index.counts}


def sizes(generations: Sequence[Generation]) -> tuple[list[str], list[list[str]]]:
    """Return the table of the generations' sizes: its head, and a line for each generation."""
    reasons = dict.fromkeys(
        name for item in generations for name, count in item.counts.items() if name.startswith("filtered_") and count
    )
    head = [*_COUNTS.values(), *(name.removeprefix("filtered_") for name in reasons)]
    lines = []
    for item in generations:
        counts = [item.counts.get(name, 0) for name in [*_COUNTS, *reasons]]
        lines.append([f"{count:,.2f}" if isinstance(count, float) else f"{count:,}" for count in counts])
    return head, lines


def changes(tables: Sequence[Table], earlier: Sequence[Generation]) -> list[Change]:
    """Return the numbers of the columns of all tables that this generation and an earlier one have measured."""
    found = {}
    for cell in (cell for table in tables for _, cells in table.rows for cell in cells):
        key = (cell.row.name, cell.metric.key)
        values = [*(item.numbers.get(key) for item in earlier), cell.value]
        if cell.value is not None and any(value is not None for value in values[:-1]):
            found[key] = Change(cell, values)
    return list(found.values())


def charts(found: Sequence[Change]) -> list[tuple[Metric, list[str], Markup]]:
    """Return for each metric its curves over the generations, and the titles of the arms in the order of the styles."""
    by_metric: dict[str, list[Change]] = {}
    for change in found:
        by_metric.setdefault(change.metric.key, []).append(change)
    drawn = []
    for key, same in by_metric.items():
        series = {
            number: ([float(place) for place, value in enumerate(change.values, 1) if value is not None],
                     [value for value in change.values if value is not None and math.isfinite(value)])
            for number, change in enumerate(same)
        }  # fmt: skip
        svg = figures.curves(series, f"generations {key}", across="generation")
        drawn.append((same[0].metric, [change.cell.row.title for change in same], Markup(svg)))  # safe: only numbers
    return drawn
