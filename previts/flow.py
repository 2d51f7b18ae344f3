"""What a DAG needs between the verbs: check a run before it costs anything, fan out, fan in, close.

The pipeline's loops are flat: rows to pretrain, then pairs of checkpoint and benchmark to evaluate.
"""

import collections
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from previts import addresses, crawls, paper, storage, workers
from previts.errors import InputError
from previts.evals import protocol
from previts.evaluation import EvaluationConfig
from previts.results import Result, write_result


def distinct_rows(
    rows: Sequence[str],
    benchmarks: Sequence[str],
    profile: str,
    set: Sequence[str],
    parts: int,
    launcher: str,
    processes: int,
    job: Sequence[str] = (),
) -> list[str]:
    """Return the rows to pretrain: of rows that mean the same experiment, the first.

    Raises:
        InputError: For a choice that does not exist or cannot be carried out; nothing is read or written to find that.
    """
    if parts < 1:
        raise InputError(f"parts must be 1 or more, got {parts}")
    protocol.check(benchmarks)
    addresses.check_launch(launcher, processes, job)
    distinct: dict[str, tuple[str, EvaluationConfig]] = {}
    for row in paper.expand(rows):
        resolved = paper.resolve(row.name, profile, set)
        resolved.experiment.check_processes(processes)
        addresses.check_start(row.name, resolved)
        addresses.check_fit(row.name, resolved, benchmarks or row.benchmarks)
        addresses.check_perception(row.name, resolved, paper.resolve(None, profile, set))
        # What decides a checkpoint: two steps must not train one at the same time.
        trained = {**resolved.experiment.learned(), "weights": resolved.experiment.model.weights}
        first, measured = distinct.setdefault(storage.fingerprint(trained), (row.name, resolved.evaluation))
        if measured != resolved.evaluation:
            raise InputError(
                f"rows {first} and {row.name} share a checkpoint, which is measured once: give evaluation settings to "
                "both or to none, or run one row at a time"
            )
    return [name for name, _ in distinct.values()]


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
    job: Sequence[str] = (),
) -> list[str]:
    """Check a run's choices and inputs before it costs anything, and return the rows to pretrain.

    Raises:
        InputError: For a choice that cannot be carried out, a broken crawl, or a labelled set that is not there.
    """
    distinct = distinct_rows(rows, benchmarks, profile, set, parts, launcher, processes, job)
    for row in distinct:
        addresses.check_weights(paper.resolve(row, profile, set))
    crawls.read_crawl(crawl)
    wanted = benchmarks or [name for row in paper.expand(rows) for name in row.benchmarks]
    for benchmark in dict.fromkeys(wanted):
        addresses.data_folders(benchmark, data)
    return distinct


def unprocessed(prefix: str, root: str) -> str:
    """Return the first manifest below a prefix, by name, that no report under a root rests on; empty if there is none.

    A manifest is known by its address: one that is corrected later is given a new name.

    Raises:
        InputError: If there is no manifest at all.
    """
    prefix = storage.absolute(prefix)
    names = [name for name in storage.names(prefix) if name.lower().endswith((".csv", ".parquet", ".pq"))]
    if not names:
        raise InputError(f"there is no manifest below {prefix}; expected .csv or .parquet files")
    reports = storage.join(storage.absolute(root), "report")
    processed = set()
    for name in storage.names(reports):
        report = storage.join(reports, name)
        if storage.is_committed(report):
            processed.add(storage.absolute(storage.ancestor(report, "index", "videos", "crawl")))
    waiting = [uri for name in names if (uri := storage.join(prefix, name)) not in processed]
    print(f"{len(waiting)} of {len(names)} manifests are waiting", file=sys.stderr)
    return waiting[0] if waiting else ""


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
    """Return what to evaluate: benchmarks on the checkpoint of every row, found by the row's own address.

    Without benchmarks, each checkpoint is measured by those of all rows that share it. The order in which a loop's
    outputs are collected decides nothing.

    Raises:
        InputError: If the checkpoint of a row is not among those that were pretrained.
    """
    made = {storage.absolute(checkpoint) for checkpoint in checkpoints}
    first: dict[str, str] = {}
    wanted: dict[tuple[str, str], None] = {}
    for row in paper.expand(rows):
        checkpoint = addresses.checkpoint_address(paper.resolve(row.name, profile, set), index, root)
        if checkpoint not in made:
            raise InputError(f"row {row.name} has no checkpoint at {checkpoint}; pretrained were {sorted(made)}")
        first.setdefault(checkpoint, row.name)
        wanted |= dict.fromkeys((checkpoint, benchmark) for benchmark in benchmarks or row.benchmarks)
    return [
        {"row": first[checkpoint], "benchmark": benchmark, "checkpoint": checkpoint} for checkpoint, benchmark in wanted
    ]


def measure(
    row: str,
    benchmark: str,
    checkpoint: str,
    data: str,
    root: str,
    profile: str,
    set: Sequence[str],
    processes: int = 1,
) -> str:
    """Evaluate in a process of its own, and return the URI of the result or, where there is none, of why.

    So one benchmark that fails, or is killed for its memory, does not lose the others: the report shows its reason, and
    another run tries it again.

    Raises:
        SystemExit: If it was told to stop.
    """
    command = [sys.executable, "-m", "previts", "evaluate", "--row", row, "--benchmark", benchmark]
    command += ["--checkpoint", checkpoint, "--data", data, "--root", root, "--profile", profile]
    command += ["--processes", str(processes), "--set", *set]
    last: collections.deque[str] = collections.deque(maxlen=1)
    said: list[str] = []
    # It ends with this process, not with the engine: it would be gone first, and look like one that failed.
    surroundings = {**os.environ, workers.STARTED_BY: str(os.getpid())}
    # A file, not a pipe: a library that prints much there must not wait for a reader.
    with tempfile.TemporaryFile("w+", errors="replace") as printed:
        process = subprocess.Popen(
            command, stdout=printed, stderr=subprocess.PIPE, text=True, errors="replace", env=surroundings
        )
        signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
        assert process.stderr
        for line in process.stderr:
            print(line.rstrip(), file=sys.stderr, flush=True)
            if line.strip():
                last.append(line.strip())
            if line.startswith("previts: "):
                said = [line.removeprefix("previts: ").strip()]  # of several processes, the last tells of all
            elif said:
                said.append(line.strip())
        code = process.wait()
        printed.seek(0)
        uri = (printed.read().strip().splitlines() or [""])[-1]
    if code == 0:
        return uri
    if code in (130, 143, -signal.SIGTERM):
        raise SystemExit(143)
    reason = " ".join(said) or (last[0] if last else "it said nothing")
    if code < 0:
        killed = signal.Signals(-code).name
        hint = ", often for want of memory" if killed == "SIGKILL" else ""
        reason = f"the process was killed by {killed}{hint}"
    fingerprint = addresses.finished(checkpoint, "checkpoints")
    decided = {"checkpoint": fingerprint, "benchmark": benchmark, "error": reason}
    failed = storage.address(root, "results", f"failed-{benchmark}-{fingerprint}", decided)
    write_result(failed, Result(row, benchmark, fingerprint, status="failed", error=reason))
    storage.commit(failed, decided, inputs={"checkpoint": checkpoint, "data": data}, info={"failed": reason})
    return failed


def settle(report: str) -> None:
    """Raise an InputError if an evaluation that a report shows has failed."""
    inputs = storage.read_manifest(report).inputs
    results = [storage.read_manifest(uri) for name, uri in inputs.items() if name.startswith("result")]
    failed = [
        f"  {result.decided['benchmark']} of {result.inputs['checkpoint']}: {result.info['failed']}"
        for result in results
        if "failed" in result.info
    ]
    if failed:
        lines = "\n".join(failed)
        raise InputError(
            f"{len(failed)} of {len(results)} evaluations failed:\n{lines}\nThe report at {report} has the others; "
            "the same run again tries these anew"
        )


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
