"""The tables of a report as text in a terminal, from MLflow alone.

For section 4 of PreViTS, whose tables compare arms with a baseline. MLflow has no test items, so the intervals are over
seeds only.
"""

from collections.abc import Iterator, Sequence

from previts.config import paper
from previts.evals.result import Result
from previts.reporting.comparisons import TableCell
from previts.reporting.contents import ARROWS, around, delta_around, orderings_sentences, table_title
from previts.reporting.inputs import ReportRow, Seed
from previts.reporting.metrics import KNOWN, TITLES
from previts.reporting.numbers import Table, make_tables
from previts.runlog.finished_runs import StoredArm, read_comparison

COLUMNS = 4  # metrics next to each other
LEGEND = """\
A number is the mean over the seeds, ± half its 95 % interval. In brackets: the difference to the baseline, the first
trained row of the table, ± half the interval that holds for all comparisons of the table (Bonferroni); * means beyond
noise. Then the number and the difference of the paper. With one seed, only the report has intervals."""


def compare(root: str, runs: Sequence[str]) -> str:
    """Return the tables of parent runs.

    Args:
        root: Folder or bucket prefix of all results, for the store if `MLFLOW_TRACKING_URI` is not set.
        runs: Ids or names of parent runs; empty: the newest with numbers.

    Raises:
        InputError: If MLflow does not answer, or there is no such run, or it has no numbers yet.
    """
    found = read_comparison(root, runs, set(KNOWN))
    results = [
        Result(arm.rows[0], benchmark, arm.fingerprint, metrics=metrics)
        for arm in found.arms
        for benchmark, metrics in _by_benchmark(arm).items()
    ]
    causes = {arm.fingerprint: "" for arm in found.arms}
    lines = [*found.names, ""]
    for table in make_tables(_rows(found.arms), results, causes, {}):
        lines += _text(table)
    return "\n".join([*lines, LEGEND, *([found.link] if found.link else [])])


def _by_benchmark(arm: StoredArm) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for key, value in arm.metrics.items():
        if key in KNOWN:
            found.setdefault(KNOWN[key].benchmark, {})[key] = value
    return found


def _rows(arms: Sequence[StoredArm]) -> list[ReportRow]:
    """Return the rows in the order of the paper; a row has a line for each profile, index and change of it."""
    order = {name: place for place, name in enumerate(paper.ROWS)}
    lines: dict[tuple[str, str, str, str], list[Seed]] = {}
    for arm in sorted(arms, key=lambda arm: (int(arm.seed), arm.fingerprint)):
        for row in arm.rows:
            lines.setdefault((row, arm.profile, arm.index, arm.diff), []).append(
                Seed(int(arm.seed), "", arm.fingerprint)
            )
    keys = sorted(lines, key=lambda key: (order.get(key[0], len(order)), key))
    names = [key[0] for key in keys]
    return [
        ReportRow(
            name=row,
            title=row if names.count(row) == 1 else f"{row} ({profile}, index {index}{f', {diff}' if diff else ''})",
            checkpoint="",
            fingerprint=seeds[0].fingerprint,
            reported=paper.ROWS[row].reported if row in paper.ROWS else {},
            seeds=tuple({seed.seed: seed for seed in seeds}.values()),
        )
        for (row, profile, index, diff), seeds in ((key, lines[key]) for key in keys)
    ]


def _text(table: Table) -> Iterator[str]:
    measured = [
        place for place in range(len(table.metrics)) if any(cells[place].value is not None for _, cells in table.rows)
    ]
    if not measured:
        return
    yield table_title(table.name)
    for benchmark in dict.fromkeys(table.metrics[place].benchmark for place in measured):
        places = [place for place in measured if table.metrics[place].benchmark == benchmark]
        for start in range(0, len(places), COLUMNS):
            chosen = places[start : start + COLUMNS]
            head = ["row", "seeds", *(f"{table.metrics[p].title}{ARROWS[table.metrics[p].better]}" for p in chosen)]
            lines = [head] + [
                [row.title, str(len(row.all_seeds)), *(_cell(cells[place]) for place in chosen)]
                for row, cells in table.rows
            ]
            widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
            yield TITLES.get(benchmark, (benchmark,))[0]
            for line in lines:
                yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            yield ""
    yield from (line for sentence in orderings_sentences(table) for line in (sentence, ""))


def _cell(cell: TableCell) -> str:
    metric = cell.metric
    parts = []
    if cell.value is not None:
        parts += [metric.show(cell.value), around(cell)]
    if cell.delta is not None:
        difference = " ".join(filter(None, (metric.show(cell.delta, "+"), delta_around(cell))))
        parts.append(f"({difference}){'' if cell.verdict == 'same' else '*'}")
    if cell.paper is not None:
        delta = f" ({metric.show(cell.paper_delta, '+')})" if cell.paper_delta is not None else ""
        parts.append(f"paper {metric.show(cell.paper)}{delta}")
    return " ".join(filter(None, parts)) or "-"
