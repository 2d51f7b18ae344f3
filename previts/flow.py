"""What a DAG needs between the verbs: check a run before it costs anything, fan out, fan in, close.

The pipeline's loops are flat: rows to pretrain, then pairs of checkpoint and benchmark to evaluate.
"""

import sys
from collections.abc import Sequence

from previts import addresses, crawls, paper, storage
from previts.errors import InputError
from previts.evals.protocol import BENCHMARKS


def distinct_rows(
    rows: Sequence[str],
    benchmarks: Sequence[str],
    profile: str,
    set: Sequence[str],
    parts: int,
    launcher: str,
    processes: int,
) -> list[str]:
    """Return the rows to pretrain: of rows that mean the same experiment, the first.

    Raises:
        InputError: For a choice that does not exist or cannot be carried out; nothing is read or written to find that.
    """
    if not benchmarks:
        raise InputError(f"no benchmarks were given; allowed: {', '.join(BENCHMARKS)}")
    if parts < 1:
        raise InputError(f"parts must be 1 or more, got {parts}")
    paper.check_benchmarks(benchmarks)
    addresses.check_launch(launcher, processes)
    distinct: dict[str, str] = {}
    for row in paper.expand(rows):
        resolved = paper.resolve(row.name, profile, set)
        resolved.experiment.check_processes(processes)
        addresses.check_fit(row.name, resolved, benchmarks)
        addresses.check_perception(row.name, resolved, paper.resolve(None, profile, set))
        distinct.setdefault(storage.fingerprint(resolved), row.name)
    return list(distinct.values())


def plan(
    crawl: str,
    data: str,
    rows: Sequence[str],
    benchmarks: Sequence[str],
    profile: str,
    set: Sequence[str],
    parts: int,
    launcher: str = "local",
    processes: int = 1,
) -> list[str]:
    """Check a run's choices and inputs before it costs anything, and return the rows to pretrain.

    Raises:
        InputError: For a choice that cannot be carried out, a broken crawl, or a labelled set that is not there.
    """
    distinct = distinct_rows(rows, benchmarks, profile, set, parts, launcher, processes)
    crawls.read_crawl(crawl)
    for benchmark in benchmarks:
        addresses.data_folders(benchmark, data)
    return distinct


def one(uris: Sequence[str]) -> str:
    """Return the one URI that all parts of a fan-out made.

    Raises:
        InputError: If they differ, or the whole is not finished.
    """
    if len(dict.fromkeys(uris)) != 1:
        raise InputError(f"the parts of one stage must make one output, got {sorted(dict.fromkeys(uris))}")
    storage.read_manifest(uris[0])
    return uris[0]


def pairs(
    rows: Sequence[str],
    benchmarks: Sequence[str],
    checkpoints: Sequence[str],
    index: str,
    root: str,
    profile: str,
    set: Sequence[str],
) -> list[dict[str, str]]:
    """Return what to evaluate: every benchmark on the checkpoint of every row, found by the row's own address.

    The order in which a loop's outputs are collected decides nothing.

    Raises:
        InputError: If the checkpoint of a row is not among those that were pretrained.
    """
    made = {storage.absolute(checkpoint) for checkpoint in checkpoints}
    found = []
    for row in rows:
        checkpoint = addresses.checkpoint_address(paper.resolve(row, profile, set), index, root)
        if checkpoint not in made:
            raise InputError(f"row {row} has no checkpoint at {checkpoint}; pretrained were {sorted(made)}")
        found += [{"row": row, "benchmark": benchmark, "checkpoint": checkpoint} for benchmark in benchmarks]
    return found


def close(root: str, state: str, error: str) -> str:
    """Close what a run left open, whatever its end, and return a Markdown account for the pipeline's page."""
    from previts import runlog

    closed = runlog.close_runs(root) if state != "SUCCEEDED" else 0
    lines = [f"### The run ended: {state}", "", f"Results so far are under `{root}`."]
    if state != "SUCCEEDED":
        lines += [
            "",
            error or "A step failed; its log says why.",
            "",
            "Run the pipeline again with the same parameters: finished work is found and not repeated.",
            f"MLflow runs marked as failed because nobody works on them any more: {closed}.",
        ]
    print("\n".join(lines), file=sys.stderr)
    return "\n".join(lines) + "\n"
