"""What a report has to tell: results and checkpoints as found, and one cell for every number of every arm.

Stands for tables 1, 4, 5 and 6 of PreViTS. A number that is missing is a cell with its cause; nothing here is guessed,
and nothing is written.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from previts import storage
from previts.errors import InputError
from previts.report_metrics import KNOWN, METRICS, TITLES, Metric
from previts.storage import Manifest, join

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]  # steps, values


@dataclass(frozen=True)
class ReportRow:
    """An arm of the paper: its checkpoint, and the numbers that the paper reports for it by metric key."""

    name: str
    title: str
    checkpoint: str
    fingerprint: str
    reported: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """One benchmark of one checkpoint, as `previts evaluate` left it."""

    uri: str
    manifest: Manifest
    benchmark: str
    checkpoint: str
    status: str
    error: str
    metrics: dict[str, float]
    protocol: dict[str, Any]
    seconds: float
    figures: list[str]


@dataclass(frozen=True)
class Checkpoint:
    """What pretraining left: configuration by dotted field, curves by name; `cause` if it is unusable."""

    uri: str
    fingerprint: str
    title: str
    also: list[str]
    manifest: Manifest | None
    cause: str
    configuration: dict[str, str]
    curves: dict[str, Curve]

    def last(self, name: str) -> float | None:
        """Return the last logged value of a curve."""
        return float(self.curves[name][1][-1]) if name in self.curves else None

    def late(self, name: str) -> float | None:
        """Return the mean of the last tenth of a curve."""
        return (
            float(self.curves[name][1][-max(1, len(self.curves[name][1]) // 10) :].mean())
            if name in self.curves
            else None
        )

    def median(self, name: str) -> float | None:
        """Return the median of a curve."""
        return float(np.median(self.curves[name][1])) if name in self.curves else None


@dataclass(frozen=True)
class Cell:
    """One number of one row, or the cause why there is none."""

    row: ReportRow
    metric: Metric
    value: float | None
    status: str
    cause: str
    delta: float | None = None
    best: bool = False

    @property
    def paper(self) -> float | None:
        """What the paper reports here."""
        return self.row.reported.get(self.metric.key)

    @property
    def verdict(self) -> str:
        """Whether the difference to the first arm is for the better."""
        if not self.metric.better or not self.delta or float(f"{self.delta:.{self.metric.digits}f}") == 0:
            return "same"
        return "up" if (self.delta > 0) == (self.metric.better == "higher") else "down"


@dataclass(frozen=True)
class Table:
    """A table of the paper: cells by row, columns grouped by benchmark; `extra` holds numbers that the paper lacks."""

    name: str
    metrics: list[Metric]
    rows: list[tuple[ReportRow, list[Cell]]]
    extra: list[tuple[Metric, list[Cell]]]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The benchmarks in order, each with its number of columns."""
        return list(Counter(metric.benchmark for metric in self.metrics).items())

    @property
    def cells(self) -> list[Cell]:
        """Every cell that counts: all columns, and further numbers that were measured or bring a new cause."""
        columns = [cell for _, cells in self.rows for cell in cells]
        causes = {(cell.row.name, cell.cause) for cell in columns}
        further = [cell for _, cells in self.extra for cell in cells if cell.status != "missing"]
        return columns + [cell for cell in further if not cell.cause or (cell.row.name, cell.cause) not in causes]


@dataclass(frozen=True)
class Note:
    """A cause of missing numbers and the rows and benchmarks that it concerns."""

    number: int
    status: str
    cause: str
    where: list[str]


def short(text: object, limit: int = 300) -> str:
    """Return text that came from data as one bounded line without control characters."""
    line = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in " ".join(str(text).split())
    )
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def read_results(uris: Sequence[str]) -> list[Result]:
    """Return the results at some URIs, each once.

    Raises:
        InputError: If a URI is not that of a result, or two results are of the same checkpoint and benchmark.
    """
    found: dict[tuple[str, str], Result] = {}
    for uri in dict.fromkeys(storage.absolute(uri) for uri in uris):
        manifest = storage.read_manifest(uri)
        if manifest.stage != "results":
            raise InputError(f"{uri} is the output of the stage {manifest.stage!r}; a report reads that of `evaluate`")
        try:
            document = storage.read_json(join(uri, "result.json"))
            result = Result(
                uri=uri,
                manifest=manifest,
                benchmark=str(document["benchmark"]),
                checkpoint=str(document["checkpoint"]),
                status=str(document["status"]),
                error=str(document.get("error") or ""),
                metrics=dict(document.get("metrics") or {}),
                protocol=dict(document.get("protocol") or {}),
                seconds=float(document.get("seconds") or 0),
                figures=[str(name) for name in document.get("figures") or []],
            )
        except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{join(uri, 'result.json')} cannot be read ({type(error).__name__}: {error}); "
                "delete the folder and run `previts evaluate` again"
            ) from None
        key = (result.checkpoint, result.benchmark)
        if key in found:
            raise InputError(
                f"two results of {result.benchmark} for checkpoint {result.checkpoint}: {found[key].uri} and {uri}; "
                "they differ in data or protocol, so give one of them"
            )
        found[key] = result
    return list(found.values())


def read_checkpoints(rows: Sequence[ReportRow]) -> list[Checkpoint]:
    """Return each checkpoint once, in the order of the rows that share it."""
    shared: dict[str, list[ReportRow]] = {}
    for row in rows:
        shared.setdefault(row.fingerprint, []).append(row)
    found = [_read_checkpoint(fingerprint, sharing) for fingerprint, sharing in shared.items()]
    titles = Counter(item.title for item in found)
    ambiguous = {title for title, count in titles.items() if count > 1}
    named = {item.fingerprint: f"{item.title} ({short(shared[item.fingerprint][0].name, 60)})" for item in found}
    return [replace(item, title=named[item.fingerprint]) if item.title in ambiguous else item for item in found]


def _read_checkpoint(fingerprint: str, rows: list[ReportRow]) -> Checkpoint:
    uri, manifest, cause = rows[0].checkpoint, None, ""
    if uri and storage.is_committed(uri):
        manifest = storage.read_manifest(uri)
    else:
        cause = f"Pretraining of this arm did not finish: no finished checkpoint at {short(uri, 160) or '(no URI)'}."
    return Checkpoint(
        uri=uri,
        fingerprint=fingerprint,
        title=short(rows[0].title, 80),
        also=[short(title, 80) for title in dict.fromkeys(row.title for row in rows[1:]) if title != rows[0].title],
        manifest=manifest,
        cause=cause,
        configuration=flatten(_read_optional(join(uri, "experiment.json")) if uri else {}),
        curves=_read_log(join(uri, "log.jsonl")) if uri else {},
    )


def _read_optional(uri: str) -> Any:
    try:
        return storage.read_json(uri)
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def flatten(value: Any, path: str = "") -> dict[str, str]:
    """Return a tree of configuration as text by dotted field."""
    if isinstance(value, dict):
        parts = [flatten(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()]
        return {key: text for part in parts for key, text in part.items()}
    if isinstance(value, list) and (len(value) > 8 or any(isinstance(item, dict | list) for item in value)):
        return {path: f"a list of {len(value)}"}
    if isinstance(value, list):
        return {path: ", ".join(_plain_number(item) for item in value)}
    return {path: _plain_number(value)}


def _plain_number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else short(value, 80)


def _read_log(uri: str) -> dict[str, Curve]:
    """Return steps and finite values of every logged number; a step logged again after a restart counts once."""
    try:
        lines = storage.read_bytes(uri).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    steps: dict[float, dict[str, Any]] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the last line of a run that was killed
            continue
        if isinstance(entry, dict) and _finite(entry.get("step")):
            steps[float(entry["step"])] = entry
    names = dict.fromkeys(name for entry in steps.values() for name in entry)
    series = {
        name: [(step, float(entry[name])) for step, entry in sorted(steps.items()) if _finite(entry.get(name))]
        for name in names
    }
    return {
        name: (np.array([step for step, _ in points]), np.array([value for _, value in points]))
        for name, points in series.items()
        if points
    }


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def make_tables(rows: Sequence[ReportRow], results: list[Result], checkpoints: list[Checkpoint]) -> list[Table]:
    """Return one table for each table of the paper: the first part of the rows' names."""
    by_cell = {(result.checkpoint, result.benchmark): result for result in results}
    state = {item.fingerprint: item for item in checkpoints}
    grouped: dict[str, list[ReportRow]] = {}
    for row in rows:
        grouped.setdefault(row.name.split("/")[0] if "/" in row.name else "", []).append(row)
    return [_table(name, members, by_cell, state) for name, members in grouped.items()]


def _table(
    name: str, rows: list[ReportRow], results: dict[tuple[str, str], Result], state: dict[str, Checkpoint]
) -> Table:
    present = {row.fingerprint for row in rows}
    mine = [result for (checkpoint, _), result in results.items() if checkpoint in present]
    told = dict.fromkeys(key for row in rows for key in row.reported)
    seen = dict.fromkeys([*told, *(key for item in mine for key in item.metrics)])
    runs = Counter(item.benchmark for item in mine)
    trained = sum(not state[fingerprint].cause for fingerprint in present)
    metrics: list[Metric] = []
    extra: list[Metric] = []
    for benchmark in sorted({*runs, *(key.split("/")[0] for key in told)}, key=_benchmark_order):
        known = [metric for metric in METRICS if metric.benchmark == benchmark]
        others = [_unknown(key) for key in sorted(seen) if key.split("/")[0] == benchmark and key not in KNOWN]
        shown = [metric for metric in known if metric.key in seen] or known or others
        shown = shown or [Metric(f"{benchmark}/result", "result")]
        # What only some arms have because they share a checkpoint with another table is no column of this one.
        is_column = 2 * runs[benchmark] > trained or any(metric.key in told for metric in shown)
        (metrics if is_column else extra).extend(shown)
        extra += [metric for metric in others if metric not in shown]
    return Table(
        name,
        metrics,
        list(zip(rows, _columns(rows, metrics, results, state), strict=True)),
        [(metric, [cells[0] for cells in _columns(rows, [metric], results, state)]) for metric in extra],
    )


def _benchmark_order(benchmark: str) -> tuple[int, str]:
    return (list(TITLES).index(benchmark) if benchmark in TITLES else len(TITLES), benchmark)


def _unknown(key: str) -> Metric:
    return Metric(key, short(key.partition("/")[2] or key, 60))


def _columns(
    rows: list[ReportRow], metrics: list[Metric], results: dict[tuple[str, str], Result], state: dict[str, Checkpoint]
) -> list[list[Cell]]:
    """Return the cells of each row, compared with the first row and with the best of the column."""
    grid = [
        [
            _cell(row, metric, results.get((row.fingerprint, metric.benchmark)), state[row.fingerprint])
            for metric in metrics
        ]
        for row in rows
    ]
    for column, metric in enumerate(metrics):
        values = {cells[column].row.fingerprint: cells[column].value for cells in grid}
        measured = [value for value in values.values() if value is not None]
        best = None
        if metric.better and len(measured) > 1:
            best = max(measured) if metric.better == "higher" else min(measured)
        first = grid[0][column].value
        for number, cells in enumerate(grid):
            cell = cells[column]
            if cell.value is not None:
                delta = cell.value - first if first is not None and number > 0 else None
                cells[column] = replace(cell, delta=delta, best=cell.value == best)
    return grid


def _cell(row: ReportRow, metric: Metric, result: Result | None, checkpoint: Checkpoint) -> Cell:
    if result is None:
        if checkpoint.cause:
            return Cell(row, metric, None, "failed", checkpoint.cause)
        return Cell(row, metric, None, "missing", "This benchmark was not run on this arm.")
    if result.status != "ok":
        return Cell(
            row, metric, None, "failed", f"Evaluation failed: {short(result.error) or 'no reason was recorded'}"
        )
    if metric.key not in result.metrics:
        return Cell(row, metric, None, "missing", "The evaluation finished, but does not give this number.")
    value = result.metrics[metric.key]
    if not _finite(value):
        return Cell(
            row, metric, None, "failed", f"The evaluation gave {short(value, 40)}, which is not a finite number."
        )
    return Cell(row, metric, float(value), "measured", "")


def make_notes(tables: list[Table]) -> list[Note]:
    """Return every cause once, with the rows and benchmarks that it leaves empty; failures come first."""
    found: dict[tuple[str, str], dict[str, dict[str, None]]] = {}
    for cell in (cell for table in tables for cell in table.cells if cell.cause):
        title = TITLES.get(cell.metric.benchmark, (cell.metric.benchmark,))[0]
        found.setdefault((cell.status, cell.cause), {}).setdefault(cell.row.name, {})[title] = None
    ordered = sorted(found.items(), key=lambda item: item[0][0] != "failed")
    return [
        Note(number, *key, [f"{row} ({', '.join(titles)})" for row, titles in where.items()])
        for number, (key, where) in enumerate(ordered, start=1)
    ]
