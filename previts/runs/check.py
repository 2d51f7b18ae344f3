"""The checks of a run before its first expensive step."""

from collections.abc import Sequence

from previts.config import benchmarks as known_benchmarks
from previts.config import paper
from previts.config.evaluation import EvaluationConfig
from previts.config.profiles import benchmarks_of
from previts.errors import InputError
from previts.processes import prefetch
from previts.runs.trials import MAX_ITERATIONS, Trial, distinct, evaluation_shares, list_trials, shares
from previts.stages import addresses, checks
from previts.storage.listings import Folders


def check_choices(
    *,
    rows: Sequence[str],
    seeds: Sequence[int],
    benchmarks: Sequence[str],
    profile: str,
    set: Sequence[str],
    parts: int,
    launcher: str,
    processes: int,
    job: Sequence[str] = (),
    evaluation_processes: int = 1,
) -> list[Trial]:
    """Check the parameters of a run, and return its trials. Reads and writes no file.

    Raises:
        InputError: If a parameter has a value that does not exist, or if values contradict each other.
    """
    if not 1 <= parts <= MAX_ITERATIONS:
        raise InputError(f"parts must be from 1 to {MAX_ITERATIONS}, got {parts}")
    known_benchmarks.check(benchmarks)
    checks.check_launch(launcher, processes, job)
    checks.check_processes(evaluation_processes)
    _check_weights_given(rows, profile, set)
    trials = list_trials(rows, seeds, profile, set)
    paper.check_scopes(rows, set)
    evaluated: dict[str, tuple[str, EvaluationConfig]] = {}
    for trial in trials:
        row, plan = trial.row, trial.plan
        plan.experiment.check_processes(processes)
        checks.check_fit(row.name, plan, benchmarks or trial.benchmarks)
        checks.check_perception(row.name, plan)
        first, evaluation = evaluated.setdefault(trial.trained, (row.name, plan.evaluation))
        if evaluation != plan.evaluation:
            raise InputError(
                f"rows {first} and {row.name} share a checkpoint, which is evaluated once, but their evaluation "
                "settings differ; give both rows the same evaluation settings, or run one row at a time"
            )
    return trials


def _check_weights_given(rows: Sequence[str], profile: str, set: Sequence[str]) -> None:
    """Raise an InputError that names all rows whose weights are not set, and the rows that need none."""
    expanded = paper.expand(rows)
    missing = {row.name: checks.missing_weights(row.name, paper.resolve(row.name, profile, set)) for row in expanded}
    if not any(missing.values()):
        return
    needs = " ".join(f"{row}:{field}=URI" for row, field in missing.items() if field)
    without = list[str]()
    for table in dict.fromkeys(row.table for row in expanded):
        names = [row.name for row in expanded if row.table == table and not missing[row.name]]
        without += [table] if len(names) == len(paper.expand([table])) else names
    instead = f", or leave these rows out: --rows {' '.join(without)}" if without else ""
    raise InputError(f"these rows need weights: set them with --set {needs}{instead}")


def check_run(
    *,
    crawl: str,
    data: str,
    rows: Sequence[str],
    seeds: Sequence[int],
    benchmarks: Sequence[str],
    profile: str,
    set: Sequence[str],
    parts: int,
    launcher: str = "local",
    processes: int = 1,
    job: Sequence[str] = (),
) -> tuple[list[int], list[int], list[int]]:
    """Check the parameters and inputs of a run before any expensive step.

    Returns:
        The numbers that the loops of the run are over: the parts of the videos, and the shares of the trials and of the
        evaluations.

    Raises:
        InputError: If a parameter is invalid, the crawl is broken, or weights or a labelled dataset are missing.
    """
    trials = check_choices(
        rows=rows,
        seeds=seeds,
        benchmarks=benchmarks,
        profile=profile,
        set=set,
        parts=parts,
        launcher=launcher,
        processes=processes,
        job=job,
    )
    for trial in trials[: len(trials) // len(seeds)]:  # each row once
        checks.check_weights(trial.plan)
    check_sources(crawl, data, rows=rows, benchmarks=benchmarks, profile=profile)
    evaluations = evaluation_shares(trials, benchmarks, profile)
    return list(range(parts)), shares(len(distinct(trials))), list(range(len(evaluations)))


def check_sources(
    crawl: str | None, data: str | None, *, rows: Sequence[str], benchmarks: Sequence[str], profile: str
) -> None:
    """Raise an InputError if a crawl is broken, or a labelled dataset is missing; None is not checked."""
    if crawl is not None:
        from previts.ingest import crawl_lines, crawls

        known, sources = Folders(), crawls.list_crawls(crawl)
        tables = zip(sources, prefetch.requested(sources, crawls.find), strict=True)
        for _ in crawl_lines.each(tables, lambda source, found: bool(crawls.read_crawl(source, known, found))):
            pass
    if data is not None:
        wanted = benchmarks or [name for row in paper.expand(rows) for name in benchmarks_of(row.benchmarks, profile)]
        for benchmark in dict.fromkeys(wanted):
            addresses.data_folders(benchmark, data)
