"""The functions that a pipeline runs between the verbs: check a run, collect parts, list evaluations, close the run.

The loops of the pipeline are flat: over the parts, over the rows to pretrain, and over the pairs of checkpoint and
benchmark. None is over crawls, so their number is not limited, and finished ones cost no iteration.
"""

import sys
from collections.abc import Sequence

from previts.config import paper
from previts.config.benchmarks import check
from previts.config.evaluation import EvaluationConfig
from previts.config.experiment import Plan
from previts.errors import InputError
from previts.ingest import crawl_lines, crawls
from previts.processes import prefetch
from previts.stages import addresses, checks
from previts.storage import files, fingerprints, folders
from previts.storage.listings import Folders

# Iterations of a loop, each with two pods. At about 64, the state of a run gets too large for Kubeflow's database.
MAX_ITERATIONS = 63


def distinct_rows(
    *,
    rows: Sequence[str],
    benchmarks: Sequence[str],
    profile: str,
    set: Sequence[str],
    parts: int,
    launcher: str,
    processes: int,
    job: Sequence[str] = (),
) -> list[str]:
    """Return the rows to pretrain: the first row of each distinct experiment.

    This function checks the parameters alone. It reads and writes no file.

    Raises:
        InputError: If a parameter has a value that does not exist, or if values contradict each other.
    """
    if not 1 <= parts <= MAX_ITERATIONS:
        raise InputError(f"parts must be from 1 to {MAX_ITERATIONS}, got {parts}")
    check(benchmarks)
    checks.check_launch(launcher, processes, job)
    distinct: dict[str, tuple[str, EvaluationConfig]] = {}
    for row in paper.expand(rows):
        resolved = paper.resolve(row.name, profile, set)
        resolved.experiment.check_processes(processes)
        checks.check_start(row.name, resolved)
        checks.check_fit(row.name, resolved, benchmarks or row.benchmarks)
        checks.check_perception(row.name, resolved, paper.resolve(None, profile, set))
        # Two steps must not train the same checkpoint at the same time.
        first, evaluation = distinct.setdefault(_trained(resolved), (row.name, resolved.evaluation))
        if evaluation != resolved.evaluation:
            raise InputError(
                f"rows {first} and {row.name} share a checkpoint, which is evaluated once, but their evaluation "
                "settings differ; give both rows the same evaluation settings, or run one row at a time"
            )
    return [name for name, _ in distinct.values()]


def check_loops(*, rows: Sequence[str], benchmarks: Sequence[str], profile: str, set: Sequence[str]) -> None:
    """Raise an InputError if a cluster should run more evaluations in one loop than Kubeflow runs reliably."""
    wanted = dict[tuple[str, str], None]()
    for row in paper.expand(rows):
        trained = _trained(paper.resolve(row.name, profile, set))
        wanted |= dict.fromkeys((trained, benchmark) for benchmark in benchmarks or row.benchmarks)
    if len(wanted) > MAX_ITERATIONS:
        raise InputError(
            f"these rows and benchmarks need {len(wanted)} evaluations, a run on a cluster may have {MAX_ITERATIONS}; "
            "start several runs on the same root, each with a part of the rows or benchmarks"
        )


def _trained(plan: Plan) -> str:
    """Return the fingerprint of the settings that decide a checkpoint."""
    weights = plan.experiment.model.weights
    return fingerprints.fingerprint({**plan.experiment.learned(), "weights": weights})


def check_run(
    *,
    crawl: str,
    data: str,
    rows: Sequence[str],
    benchmarks: Sequence[str],
    profile: str,
    set: Sequence[str],
    parts: int,
    launcher: str = "local",
    processes: int = 1,
    job: Sequence[str] = (),
) -> list[str]:
    """Check the parameters and inputs of a run before any expensive step, and return the rows to pretrain.

    Raises:
        InputError: If a parameter is invalid, the crawl is broken, or weights or a labelled dataset are missing.
    """
    distinct = distinct_rows(
        rows=rows,
        benchmarks=benchmarks,
        profile=profile,
        set=set,
        parts=parts,
        launcher=launcher,
        processes=processes,
        job=job,
    )
    for row in distinct:
        checks.check_weights(paper.resolve(row, profile, set))
    check_sources(crawl, data, rows=rows, benchmarks=benchmarks)
    return distinct


def check_sources(crawl: str | None, data: str | None, *, rows: Sequence[str], benchmarks: Sequence[str]) -> None:
    """Raise an InputError if a crawl is broken, or a labelled dataset is missing; None is not checked."""
    if crawl is not None:
        known, sources = Folders(), crawls.list_crawls(crawl)
        tables = zip(sources, prefetch.requested(sources, crawls.find), strict=True)
        for _ in crawl_lines.each(tables, lambda source, found: bool(crawls.read_crawl(source, known, found))):
            pass
    if data is not None:
        wanted = benchmarks or [name for row in paper.expand(rows) for name in row.benchmarks]
        for benchmark in dict.fromkeys(wanted):
            addresses.data_folders(benchmark, data)


def list_crawls(crawl: str, root: str) -> str:
    """Return the crawl of a run for all its parts: a crawl, or a list of those that a folder has now.

    A crawl that is added while the parts work belongs to the next run.

    Raises:
        InputError: If the folder contains both crawls and videos.
    """
    found = crawls.list_crawls(files.absolute(crawl))
    return found[0] if len(found) == 1 else crawls.write_list(found, root, addresses.FORMATS["crawls"])


def collect_parts(uris: Sequence[str]) -> str:
    """Check that all parts of a stage wrote one finished output, and return its URI.

    Raises:
        InputError: If the URIs differ, or the output is not finished.
    """
    if len(dict.fromkeys(uris)) != 1:
        raise InputError(
            f"the parts of a stage must write one output, got {sorted(dict.fromkeys(uris))}; run the pipeline again "
            "with one set of parameters"
        )
    folders.read_manifest(uris[0])
    return uris[0]


def list_evaluations(
    *,
    rows: Sequence[str],
    benchmarks: Sequence[str],
    checkpoints: Sequence[str],
    index: str,
    root: str,
    profile: str,
    set: Sequence[str],
) -> list[dict[str, str]]:
    """Return the evaluations to run, each a row, a benchmark and a checkpoint.

    The checkpoint of a row is found by its address, so the order of `checkpoints` has no effect. Without `benchmarks`,
    a checkpoint gets the benchmarks of all rows that share it.

    Raises:
        InputError: If the checkpoint of a row is not among the given ones.
    """
    made = {files.absolute(checkpoint) for checkpoint in checkpoints}
    first: dict[str, str] = {}
    wanted: dict[tuple[str, str], None] = {}
    for row in paper.expand(rows):
        checkpoint = addresses.checkpoint_address(paper.resolve(row.name, profile, set), index, root)
        if checkpoint not in made:
            raise InputError(
                f"row {row.name} has no checkpoint at {checkpoint}; the pretrained ones are {', '.join(sorted(made))}; "
                "pretrain the row with the same index, profile and settings"
            )
        first.setdefault(checkpoint, row.name)
        wanted |= dict.fromkeys((checkpoint, benchmark) for benchmark in benchmarks or row.benchmarks)
    return [
        {"row": first[checkpoint], "benchmark": benchmark, "checkpoint": checkpoint} for checkpoint, benchmark in wanted
    ]


def check_evaluations(report: str) -> None:
    """Raise an InputError if an evaluation that the report shows has failed."""
    inputs = folders.read_manifest(report).inputs
    results = [folders.read_manifest(uri) for name, uri in inputs.items() if name.startswith("result")]
    failed = [
        f"  {result.decided['benchmark']} of {result.inputs['checkpoint']}: {result.info['failed']}"
        for result in results
        if "failed" in result.info
    ]
    if failed:
        lines = "\n".join(failed)
        raise InputError(
            f"{len(failed)} of {len(results)} evaluations failed:\n{lines}\nThe report at {report} shows the others. "
            "Fix the cause and start the same run again: it repeats only the failed evaluations"
        )


def close_run(root: str, state: str, error: str) -> str:
    """Mark MLflow runs that were interrupted as failed, and return a Markdown summary of how the run ended.

    Args:
        root: Root of the results.
        state: Final state of the pipeline run, such as SUCCEEDED or FAILED.
        error: Message of the engine, may be empty.
    """
    from previts.runlog import run_log

    closed = run_log.close_runs(root) if state != "SUCCEEDED" else 0
    lines = [f"### The run ended: {state}", "", f"The results so far are under `{root}`."]
    if state != "SUCCEEDED":
        lines += [
            "",
            error or "A step failed. The log of the step shows the reason.",
            "",
            "Run the pipeline again with the same parameters. It finds finished work and does not repeat it.",
            f"MLflow runs that were interrupted and are now marked as failed: {closed}.",
        ]
    print("\n".join(lines), file=sys.stderr)
    return "\n".join(lines) + "\n"
