"""The tables of a report as text in a terminal, from MLflow alone.

For section 4 of PreViTS, whose tables compare arms with a baseline. MLflow has no test items, so the intervals are over
seeds only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from previts.config import paper
from previts.errors import InputError
from previts.evals.result import Result
from previts.reporting.comparisons import TableCell
from previts.reporting.contents import ARROWS, around, delta_around, orderings_sentences, table_title
from previts.reporting.inputs import ReportRow, Seed
from previts.reporting.metrics import KNOWN, TITLES
from previts.reporting.numbers import Table, make_tables
from previts.runlog import description
from previts.runlog.finished_runs import StoredTrial, read_comparison

COLUMNS = 4  # metrics next to each other
LEGEND = """\
A number is the mean over the seeds, ± half its 95 % interval. In brackets: the difference to the baseline of the row, ±
half the interval that holds for all comparisons of the table (Bonferroni); * means beyond noise. Then the number and
the difference of the paper. With one seed, only the report has intervals."""


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
        Result(trial.rows[0], benchmark, trial.fingerprint, metrics=metrics)
        for trial in found.trials
        for benchmark, metrics in _by_benchmark(trial).items()
    ]
    causes = {trial.fingerprint: "" for trial in found.trials}
    lines = [*found.names, ""]
    for table in make_tables(_rows(found.trials), results, causes, {}):
        lines += _text(table)
    return "\n".join([*lines, LEGEND, *([found.link] if found.link else [])])


def _by_benchmark(trial: StoredTrial) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for key, value in trial.metrics.items():
        if key in KNOWN:
            found.setdefault(KNOWN[key].benchmark, {})[key] = value
    return found


@dataclass(frozen=True, order=True)
class _Arm:
    """What the trials of an arm have in common."""

    row: str
    profile: str
    group: str
    index: str
    changes: str


def _rows(trials: Sequence[StoredTrial]) -> list[ReportRow]:
    """Return the arms in the order of the paper: a row has one for each corpus, index and change of its settings."""
    order = {name: place for place, name in enumerate(paper.ROWS)}
    arms: dict[_Arm, list[Seed]] = {}
    for trial in sorted(trials, key=lambda trial: (int(trial.seed), trial.fingerprint)):
        for row in trial.rows:
            arm = _Arm(row, trial.profile, trial.group, trial.index, _changes(row, trial))
            arms.setdefault(arm, []).append(Seed(int(trial.seed), "", trial.fingerprint))
    shown = sorted(arms, key=lambda arm: (order.get(arm.row, len(order)), arm))
    names = [arm.row for arm in shown]
    return [
        ReportRow(
            name=arm.row,
            title=arm.row
            if names.count(arm.row) == 1
            else f"{arm.row} ({', '.join(filter(None, (arm.profile, f'index {arm.index}', arm.changes)))})",
            checkpoint="",
            fingerprint=arms[arm][0].fingerprint,
            reported=paper.ROWS[arm.row].reported if arm.row in paper.ROWS else {},
            seeds=tuple({seed.seed: seed for seed in arms[arm]}.values()),
            corpus=f"{arm.profile} {arm.group}",
            changes=arm.changes,
        )
        for arm in shown
    ]


def _changes(row: str, trial: StoredTrial) -> str:
    """Return the settings of a trial that differ from those of a row as text; "" if the row is not of the paper."""
    try:
        changed = description.changes_of(row, trial.profile, trial.params)
    except InputError:  # of another version
        return ""
    return ", ".join(f"{name}={value}" for name, value in changed.items())


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
                [
                    row.title + (" (baseline)" if number in table.baselines else ""),
                    str(len(row.all_seeds)),
                    *(_cell(cells[place]) for place in chosen),
                ]
                for number, (row, cells) in enumerate(table.rows)
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
