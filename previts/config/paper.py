"""The rows of the paper, found by their names, and the plan of each.

`resolve` turns a row of `tables.py`, a profile (`profiles.py`) and assignments into a `Plan`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from previts.config.experiment import Plan, override
from previts.config.fields import did_you_mean
from previts.config.profiles import PROFILES
from previts.config.tables import ARMS, CITED, GROUPS, PREVITS, ROWS, TABLES, Row
from previts.errors import InputError

__all__ = [
    "ARMS",
    "CITED",
    "GROUPS",
    "ROWS",
    "TABLES",
    "Row",
    "baseline_of",
    "check_scopes",
    "check_seeds",
    "expand",
    "find_row",
    "resolve",
    "with_seed",
]


def find_row(name: str) -> Row:
    """Return a row by its name.

    Raises:
        InputError: If there is no such row. The message suggests the closest name, or the rows of a table.
    """
    if name in TABLES:
        rows = ", ".join(row for row in ROWS if row.startswith(f"{name}/"))
        raise InputError(f"{name} is a table, and one row is expected; give one of its rows: {rows}")
    if name in GROUPS:
        raise InputError(
            f"{name} is a group of tables, which only --rows takes; give its tables: {' '.join(GROUPS[name])}"
        )
    if name not in ROWS:
        raise InputError(f"there is no row {name!r}{did_you_mean(name, ROWS)}; `previts show` lists all rows")
    return ROWS[name]


def baseline_of(name: str, shown: Sequence[str] = tuple(ROWS)) -> str:
    """Return the row that a row is compared with: 1/vgg/moco for 1/vgg/previts, 6b/mu=0.0 for 6b/mu=0.3.

    It is the row's `baseline`, if that is set. Else, of the trained rows with the same kind of encoder, it is the first
    one, in the order of the paper, with the same name up to the last "/". If there is none, it is the first one of the
    table, or the row itself.

    Args:
        name: Name of the row.
        shown: Names of the rows that it can be compared with. Names that the paper does not have come last.
    """
    if name in ROWS and ROWS[name].baseline in shown:
        return ROWS[name].baseline
    order = {known: place for place, known in enumerate(ROWS)}
    others = [row for row in sorted(shown, key=lambda row: order.get(row, len(order))) if _is_comparable(row, name)]
    near = [row for row in others if row.rpartition("/")[0] == name.rpartition("/")[0]]
    table = [row for row in others if row.partition("/")[0] == name.partition("/")[0]]
    return next(iter([*near, *table]), name)


def _is_comparable(row: str, name: str) -> bool:
    """Return whether a row is trained and has the kind of encoder of another; rows that the paper lacks are and do."""
    if row not in ROWS or name not in ROWS:
        return True
    model = ROWS[row].experiment.model
    return not model.frozen and model.encoder == ROWS[name].experiment.model.encoder


def expand(names: Sequence[str]) -> list[Row]:
    """Return the rows of a list of names, each once, in order.

    Args:
        names: Rows ("1/vgg/previts"), tables ("6b") and groups of tables ("6", "6-video", "all").

    Raises:
        InputError: If a name is none of these, or the list is empty.
    """
    if not names:
        raise InputError(
            "no rows were given; give rows or tables such as 1/vgg/previts or 6b (`previts show` lists them)"
        )
    rows: dict[str, Row] = {}
    for name in names:
        tables = GROUPS.get(name, (name,))
        found = [row for row in ROWS.values() if row.table in tables] or [find_row(name)]
        rows.update({row.name: row for row in found})
    return list(rows.values())


def resolve(row: str | None, profile: str, assignments: Sequence[str]) -> Plan:
    """Return the plan of a row, or without a row the plan of the steps that all rows share.

    The evaluations have the seed of the pretraining, unless evaluation.seed is set.

    Args:
        row: Name of a row, or None.
        profile: Name of a profile.
        assignments: `section.field=value`, or `ROW:section.field=value` for only one row or table.

    Raises:
        InputError: If a name is unknown or an assignment is invalid.
    """
    if profile not in PROFILES:
        raise InputError(f"there is no profile {profile!r}; allowed: {', '.join(PROFILES)}")
    experiment = find_row(row).experiment if row else PREVITS
    chosen = [*_select(row, assignments)]
    plan = override(PROFILES[profile].shrink(Plan(experiment)), chosen)
    if any(_field(assignment) == "evaluation.seed" for assignment in chosen):
        return plan
    return replace(plan, evaluation=replace(plan.evaluation, seed=plan.experiment.seed))


def with_seed(assignments: Sequence[str], seed: int) -> list[str]:
    """Return the assignments of an arm: those of its run, and its seed."""
    return [*assignments, f"seed={seed}"]


def check_seeds(seeds: Sequence[int], assignments: Sequence[str]) -> None:
    """Raise an InputError if the seeds of a run are invalid, or if an assignment sets a seed too."""
    if not seeds or len(dict.fromkeys(seeds)) != len(seeds) or min(seeds) < 0 or max(seeds) >= 2**63:
        raise InputError(
            f"seeds must be different whole numbers from 0 to 2**63 - 1, at least one, got {list(seeds)}; for example "
            "--seeds 0 1 2"
        )
    for assignment in assignments:
        if _field(assignment.rpartition(":")[2]) == "seed":
            raise InputError(f"--set {assignment}: the seeds of a run are given by --seeds, such as --seeds 0 1 2")


def check_scopes(rows: Sequence[str], assignments: Sequence[str]) -> None:
    """Raise an InputError if an assignment is for a row or table that a run does not have."""
    known = {name for row in expand(rows) for name in (row.name, row.table)}
    for assignment in assignments:
        scope, _ = _scope(assignment)
        if scope and scope not in known:
            raise InputError(
                f"--set {assignment} changes nothing, because the run has no row of {scope}; add it to --rows, or "
                "leave the setting out"
            )


def _field(assignment: str) -> str:
    return assignment.partition("=")[0].strip()


def _select(row: str | None, assignments: Sequence[str]) -> Iterator[str]:
    """Yield the assignments that apply to a row, without their `ROW:`."""
    for assignment in assignments:
        scope, rest = _scope(assignment)
        if not scope or (row is not None and scope in (row, row.split("/")[0])):
            yield rest


def _scope(assignment: str) -> tuple[str, str]:
    """Return the row or table that an assignment is for, or "" for all rows, and the assignment without it."""
    scope, colon, rest = assignment.partition(":")
    # Names of rows may contain "=", and values may contain ":". Names of fields contain neither these nor "/".
    if not colon or ("=" in scope and "/" not in scope.partition("=")[0]):
        return "", assignment
    if scope not in TABLES:
        find_row(scope)
    return scope, rest
