"""Tables of simulated arms with a known true difference, made by the code that makes the tables of a report."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from previts.evals.outcome import ITEMS, ItemScores, item_scores, pack
from previts.evals.result import Result
from previts.reporting.inputs import ReportRow, Seed
from previts.reporting.numbers import Table, make_tables
from previts.storage import files

METRICS = tuple(f"in9/{name}" for name in ("original", "mixed_same", "mixed_rand", "mixed_next", "only_fg"))
Numbers = NDArray[np.float64]
_places = itertools.count()


def table_of(
    values: Sequence[Mapping[str, Sequence[float]]], items: Sequence[Mapping[str, ItemScores]] | None = None
) -> Table:
    """Return the table of some arms.

    Args:
        values: For each arm, by metric, the value of each seed.
        items: For each arm, by metric, the item scores of its only seed.
    """
    rows, results = [], []
    for arm, numbers in enumerate(values):
        count = len(next(iter(numbers.values())))
        seeds = tuple(Seed(seed, f"memory://{arm}/{seed}", f"{arm}-{seed}") for seed in range(count))
        rows.append(ReportRow(f"6a/{arm}", f"arm {arm}", seeds[0].checkpoint, seeds[0].fingerprint, seeds=seeds))
        for place, seed in enumerate(seeds):
            uri = f"memory://simulated/{next(_places)}"
            mine = {key: float(column[place]) for key, column in numbers.items()}
            results.append(Result("", "in9", seed.fingerprint, metrics=mine, uri=uri))
            if items:
                files.write_bytes(files.join(uri, ITEMS), pack(items[arm]))
    (table,) = make_tables(rows, results, {seed.fingerprint: "" for row in rows for seed in row.all_seeds}, {})
    if items:
        files.delete_folder("memory://simulated")
    return table


def seeded_table(
    generator: np.random.Generator, effects: Sequence[float], *, seeds: int, metrics: int, step: float = 0.0
) -> Table:
    """Return a table of arms whose values over seeds have a standard deviation of 1, and share a seed's difficulty.

    Args:
        generator: Draws the values.
        effects: The true difference of each arm to the first, in all metrics.
        seeds: Trainings of each arm.
        metrics: How many numbers of `METRICS` the table has.
        step: Values are rounded to its multiples; 0 rounds nothing.
    """
    shared = {key: 50 + 2 * generator.standard_normal(seeds) for key in METRICS[:metrics]}
    values = [
        {key: column + effect + generator.standard_normal(seeds) for key, column in shared.items()}
        for effect in effects
    ]
    if step:
        values = [{key: step * np.round(column / step) for key, column in numbers.items()} for numbers in values]
    return table_of(values)


def items_table(generator: np.random.Generator, rates: Sequence[float], *, items: int, metrics: int) -> Table:
    """Return a table of arms with one seed, each of which answers each item rightly at its own rate."""
    names = [f"class/{number}.jpg" for number in range(items)]
    scores = [
        {key: item_scores(names, 100.0 * (generator.random(items) < rate)) for key in METRICS[:metrics]}
        for rate in rates
    ]
    return table_of([{key: [item.values.mean()] for key, item in arm.items()} for arm in scores], scores)


def verdicts(table: Table) -> list[str]:
    """Return the verdicts of all comparisons with the baseline."""
    return [cell.verdict for _, cells in table.rows[1:] for cell in cells]
