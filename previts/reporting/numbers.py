"""The tables of a report: one cell for every number of every arm.

Tables 1, 4, 5 and 6 of PreViTS. A missing number is a cell with its cause. Writes no files, and reads only the item
scores of results.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from previts.config import paper
from previts.evals.result import Result
from previts.reporting.comparisons import ItemScoresOf, TableCell, compare
from previts.reporting.inputs import ReportRow, Seed, short
from previts.reporting.metrics import KNOWN, METRICS, PLACES, SPLIT, TITLES, Metric

FEW_ITEMS = 200  # below it, the standard error of an accuracy of 50 % is more than 3.5 points


@dataclass(frozen=True)
class MeasuredOn:
    """What the numbers of a column are measured on, as text; empty where no result of the column states it.

    Attributes:
        chance: The chance level, such as "chance 11.1".
        items: The test items, such as "108 images".
        few: Whether any number of the column is measured on fewer than `FEW_ITEMS` items.
    """

    chance: str = ""
    items: str = ""
    few: bool = False


def measured_on(metric: Metric, cells: Sequence[TableCell]) -> MeasuredOn:
    """Return what the measured cells of one column are measured on; a range where they differ."""
    known = [cell.population for cell in cells if cell.value is not None and cell.population is not None]
    if not known:
        return MeasuredOn()
    chances = sorted({population.chance for population in known if population.chance is not None})
    counts = sorted({population.items for population in known})
    shown_chances = dict.fromkeys(metric.show(chance) for chance in (chances[:1] + chances[-1:]))
    shown_counts = dict.fromkeys(f"{count:,}" for count in (counts[0], counts[-1]))
    units = "/".join(dict.fromkeys(population.unit for population in known))
    return MeasuredOn(
        chance=f"chance {' to '.join(shown_chances)}" if chances else "",
        items=f"{' to '.join(shown_counts)} {units}",
        few=counts[0] < FEW_ITEMS,
    )


@dataclass(frozen=True)
class Orderings:
    """How the differences to the baseline point, where the paper reports a difference.

    `agreeing` point the way that the paper's do, `certain` are those of them beyond noise. `opposed` point the other
    way, and `equal` are shown as zero.
    """

    agreeing: list[TableCell]
    certain: list[TableCell]
    opposed: list[TableCell]
    equal: list[TableCell]

    @property
    def total(self) -> int:
        """The number of comparisons."""
        return len(self.agreeing) + len(self.opposed) + len(self.equal)


@dataclass(frozen=True)
class Table:
    """A table of the paper: cells by row, columns grouped by benchmark.

    `extra` holds numbers that the paper lacks, `cited` the lines of others' work that it quotes, and `not_run` the
    benchmarks of the paper that no arm was evaluated on: they have no columns.
    """

    name: str
    metrics: list[Metric]
    rows: list[tuple[ReportRow, list[TableCell]]]
    extra: list[tuple[Metric, list[TableCell]]]
    cited: list[tuple[str, list[float | None]]] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)

    @property
    def baselines(self) -> set[int]:
        """The places of the arms that others are compared with."""
        compared = enumerate(_baselines([row for row, _ in self.rows]))
        return {baseline for place, baseline in compared if baseline != place}

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The benchmarks in order, each with its number of columns."""
        return list(Counter(metric.benchmark for metric in self.metrics).items())

    @property
    def columns(self) -> list[tuple[Metric, MeasuredOn]]:
        """The numbers in order, each with what it is measured on."""
        return [
            (metric, measured_on(metric, [cells[place] for _, cells in self.rows]))
            for place, metric in enumerate(self.metrics)
        ]

    @property
    def further(self) -> list[tuple[Metric, MeasuredOn, list[TableCell]]]:
        """The numbers of `extra`, each with what it is measured on."""
        return [(metric, measured_on(metric, cells), cells) for metric, cells in self.extra]

    @property
    def orderings(self) -> Orderings:
        """How the differences of the columns point."""
        cells = [cell for _, cells in self.rows for cell in cells if cell.is_ordered_by_paper]
        ways = [(cell.direction * (1 if (cell.paper_delta or 0) > 0 else -1), cell) for cell in cells]
        agreeing, opposed, equal = ([cell for way, cell in ways if way == wanted] for wanted in (1, -1, 0))
        return Orderings(agreeing, [cell for cell in agreeing if cell.verdict != "same"], opposed, equal)

    @property
    def comparisons(self) -> int:
        """The number of differences that have an interval and a better direction; equal ones count once."""
        return len({cell.comparison for _, cells in self.rows for cell in cells if cell.is_comparison})

    @property
    def over_items(self) -> bool:
        """Whether an interval of the columns is over test items."""
        cells = [cell for _, cells in self.rows for cell in cells]
        known = [estimate for cell in cells for estimate in (cell.estimate, cell.difference) if estimate]
        return any(estimate.source == "items" and estimate.error is not None for estimate in known)

    @property
    def unsure(self) -> dict[str, list[str]]:
        """The reasons why numbers of the columns have no interval, each with their arms and numbers."""
        found: dict[str, list[str]] = {}
        for cell in (cell for _, cells in self.rows for cell in cells if cell.unsure):
            found.setdefault(cell.unsure, []).append(f"{cell.row.name} ({cell.metric.key})")
        return found

    @property
    def few_items(self) -> bool:
        """Whether any number is measured on fewer than `FEW_ITEMS` items."""
        return any(items.few for _, items in self.columns) or any(items.few for _, items, _ in self.further)

    @property
    def cells(self) -> list[TableCell]:
        """Every cell that counts: all columns, and further numbers that were measured or have a new cause."""
        columns = [cell for _, cells in self.rows for cell in cells]
        causes = {(cell.row.name, cell.cause) for cell in columns}
        further = [cell for _, cells in self.extra for cell in cells if cell.status != "missing"]
        return columns + [cell for cell in further if not cell.cause or (cell.row.name, cell.cause) not in causes]


@dataclass(frozen=True)
class Note:
    """A cause of missing numbers, with its rows and benchmarks."""

    number: int
    status: str
    cause: str
    where: list[str]


def make_tables(
    rows: Sequence[ReportRow],
    results: list[Result],
    causes: Mapping[str, str],
    cited: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> list[Table]:
    """Return the tables of the paper that have these rows, split by the first part of their names, then by benchmark.

    Args:
        rows: The arms in order.
        results: All results.
        causes: By fingerprint, why a checkpoint is unusable (`read_causes`).
        cited: By table and title, the numbers of others that the paper quotes.
    """
    # Numbers of another protocol have names, and so columns, of their own.
    by_cell = {
        (result.checkpoint, name): replace(result, benchmark=name)
        for result in results
        for name in dict.fromkeys(key.split("/")[0] for key in result.metrics) or [result.benchmark]
    }
    items = ItemScoresOf()
    grouped: dict[str, list[ReportRow]] = {}
    for row in rows:
        grouped.setdefault(row.name.split("/")[0] if "/" in row.name else "", []).append(row)
    found = []
    for name, members in grouped.items():
        elsewhere = {benchmark for row in rows if row not in members for benchmark in _benchmarks(row)}
        for part in _split(_table(name, members, by_cell, causes, elsewhere)):
            table = _judged(part, items)
            lines = [
                (title, [numbers.get(metric.key) for metric in table.metrics])
                for title, numbers in cited.get(table.name, {}).items()
            ]
            found.append(replace(table, cited=lines))
    return found


def _split(table: Table) -> list[Table]:
    """Return a table of several benchmarks in the parts that the paper prints, each with the rows that have numbers."""
    if table.name not in SPLIT:
        return [table]
    parts = []
    for name in dict.fromkeys([table.name, *(PLACES.get(metric.benchmark, table.name) for metric in table.metrics)]):
        chosen = [n for n, metric in enumerate(table.metrics) if PLACES.get(metric.benchmark, table.name) == name]
        rows = [(row, [cells[n] for n in chosen]) for row, cells in table.rows]
        filled = [(row, cells) for row, cells in rows if any(cell.has_content for cell in cells)]
        main = name == table.name
        if chosen or main:
            metrics = [table.metrics[n] for n in chosen]
            extra, not_run = (table.extra, table.not_run) if main else ([], [])
            parts.append(Table(name, metrics, rows if main else filled or rows, extra, not_run=not_run))
    return parts


def _table(
    name: str,
    rows: list[ReportRow],
    results: dict[tuple[str, str], Result],
    causes: Mapping[str, str],
    elsewhere: Collection[str],
) -> Table:
    """Return the table of some rows; `elsewhere` are the benchmarks of the rows of other tables."""
    own = {benchmark for row in rows for benchmark in _benchmarks(row)}
    present = {seed.fingerprint for row in rows for seed in row.all_seeds}
    mine = [result for (checkpoint, _), result in results.items() if checkpoint in present]
    reported = dict.fromkeys(key for row in rows for key in row.reported)
    every = dict.fromkeys([*reported, *(key for item in mine for key in item.metrics)])
    runs = Counter(item.benchmark for item in mine)
    trained = sum(not causes[fingerprint] for fingerprint in present)
    metrics: list[Metric] = []
    extra: list[Metric] = []
    not_run: list[str] = []
    for benchmark in sorted({*runs, *(key.split("/")[0] for key in reported)}, key=_benchmark_order):
        if mine and not runs[benchmark]:
            not_run.append(benchmark)
            continue
        known = [metric for metric in METRICS if metric.benchmark == benchmark]
        others = [_unknown(key) for key in sorted(every) if key.split("/")[0] == benchmark and key not in KNOWN]
        shown = [metric for metric in known if metric.key in every] or known or others
        shown = shown or [Metric(f"{benchmark}/result", "result")]
        # Arms that share a checkpoint with another table may have its benchmarks too: these are no columns of this one.
        is_shared = benchmark in elsewhere and any(runs[name] for name in own)
        is_own = benchmark in own or any(metric.key in reported for metric in shown)
        is_column = is_own or (not is_shared and 2 * runs[benchmark] > trained)
        (metrics if is_column else extra).extend(shown)
        extra += [metric for metric in others if metric not in shown]
    return Table(
        name,
        metrics,
        [(row, [_cell(row, metric, results, causes) for metric in metrics]) for row in rows],
        [(metric, [_cell(row, metric, results, causes) for row in rows]) for metric in extra],
        not_run=not_run,
    )


def _benchmarks(row: ReportRow) -> tuple[str, ...]:
    return paper.ROWS[row.name].benchmarks if row.name in paper.ROWS else ()


def _benchmark_order(benchmark: str) -> tuple[int, str]:
    return (list(TITLES).index(benchmark) if benchmark in TITLES else len(TITLES), benchmark)


def _unknown(key: str) -> Metric:
    return Metric(key, short(key.partition("/")[2] or key, 60))


def _judged(table: Table, items: ItemScoresOf) -> Table:
    """Return a table whose cells know their intervals and differences, and the best of each column."""
    of = _baselines([row for row, _ in table.rows])
    columns = [compare([cells[place] for _, cells in table.rows], of, items) for place in range(len(table.metrics))]
    rows = [(row, [column[number] for column in columns]) for number, (row, _) in enumerate(table.rows)]
    judged = replace(table, rows=rows, extra=[(metric, compare(cells, of, items)) for metric, cells in table.extra])
    count = judged.comparisons
    return replace(judged, rows=[(row, [replace(cell, comparisons=count) for cell in cells]) for row, cells in rows])


def _baselines(rows: Sequence[ReportRow]) -> list[int]:
    """Return for each arm the place of the one that it is compared with; its own if there is no other."""
    found = []
    for row in rows:
        near = [place for place, other in enumerate(rows) if other.corpus == row.corpus]
        name = paper.baseline_of(row.name, [rows[place].name for place in near])
        named = [place for place in near if rows[place].name == name]
        found.append(next((place for place in named if rows[place].changes == row.changes), named[0]))
    return found


def _cell(
    row: ReportRow, metric: Metric, results: Mapping[tuple[str, str], Result], causes: Mapping[str, str]
) -> TableCell:
    found: dict[int, Result] = {}
    absent: dict[tuple[str, str], list[int]] = {}
    for seed in row.all_seeds:
        result = results.get((seed.fingerprint, metric.benchmark))
        if lack := _absence(seed, metric, result, causes):
            absent.setdefault(lack, []).append(seed.seed)
        elif result is not None:
            found[seed.seed] = result
    cause = " ".join(
        text
        if len(seeds) == len(row.all_seeds)
        else f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}: {text}"
        for (_, text), seeds in absent.items()
    )
    if not found:
        status = "failed" if any(status == "failed" for status, _ in absent) else "missing"
        return TableCell(row, metric, {}, status, cause)
    population = next(iter(found.values())).populations.get(metric.key)
    return TableCell(row, metric, found, "measured", cause, population)


def _absence(seed: Seed, metric: Metric, result: Result | None, causes: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the status and the cause if a seed lacks a number."""
    if result is None:
        if cause := causes[seed.fingerprint]:
            return "failed", cause
        return "missing", "This benchmark was not run on this arm."
    if result.status != "ok":
        return "failed", f"Evaluation failed: {short(result.error) or 'no reason was recorded'}"
    if metric.key not in result.metrics:
        return "missing", "The evaluation finished, but does not give this number."
    if result.metrics[metric.key] is None:
        return "missing", "This number is not defined on the test items."
    return None


def make_notes(tables: list[Table]) -> list[Note]:
    """Return every cause once, with its rows and benchmarks; failures come first."""
    found: dict[tuple[str, str], dict[str, dict[str, None]]] = {}
    for cell in (cell for table in tables for cell in table.cells if cell.cause):
        title = TITLES.get(cell.metric.benchmark, (cell.metric.benchmark,))[0]
        found.setdefault((cell.status, cell.cause), {}).setdefault(cell.row.name, {})[title] = None
    ordered = sorted(found.items(), key=lambda item: item[0][0] != "failed")
    return [
        Note(number, *key, [f"{row} ({', '.join(titles)})" for row, titles in where.items()])
        for number, (key, where) in enumerate(ordered, start=1)
    ]
