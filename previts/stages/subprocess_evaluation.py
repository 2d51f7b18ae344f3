"""Evaluations in a subprocess, whose failures are stored as results."""

import collections
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from previts.config import paper
from previts.errors import InputError
from previts.processes import machine, workers
from previts.processes.exits import readable_errors
from previts.stages import addresses, outputs
from previts.stages.evaluate import evaluate
from previts.storage import folders


@dataclass(frozen=True)
class Evaluation:
    """The arguments of one call of the verb `evaluate`."""

    row: str
    benchmark: str
    checkpoint: str
    data: str
    root: str
    profile: str
    set: Sequence[str]
    processes: int = 1

    def run(self) -> str:
        """Run the verb in this process and return the URI of the result."""
        return evaluate(**asdict(self))


def evaluate_in_subprocess(evaluations: Sequence[Evaluation]) -> list[str]:
    """Run evaluations one after another in a subprocess, without finished ones, and store failures as results.

    An evaluation that fails, or that the kernel kills for its memory, does not stop the others: they go on in another
    subprocess. The report shows the reason, and the next run tries the evaluation again. One subprocess for several
    saves loading torch for each.

    Returns:
        The URI of each result, or of a failed result with the reason.

    Raises:
        SystemExit: If the subprocess was interrupted or terminated from outside.
    """
    results = {number: each.run() for number, each in enumerate(evaluations) if _is_finished(each)}
    while waiting := [number for number in range(len(evaluations)) if number not in results]:
        code, uris, reason = _run_and_relay([evaluations[number] for number in waiting])
        results.update(zip(waiting, uris, strict=False))
        if len(uris) == len(waiting):
            break
        if code in (130, 143, -signal.SIGTERM):
            raise SystemExit(143)
        if code < 0:
            killed = signal.Signals(-code).name
            hint = ", often because it ran out of memory" if killed == "SIGKILL" else ""
            reason = f"the process was killed by {killed}{hint}"
        failed = waiting[len(uris)]
        results[failed] = _store_failure(evaluations[failed], reason)
    return [results[number] for number in range(len(evaluations))]


def _is_finished(evaluation: Evaluation) -> bool:
    try:
        plan = paper.resolve(evaluation.row, evaluation.profile, evaluation.set)
        uri = addresses.result_address(
            evaluation.benchmark, evaluation.checkpoint, evaluation.data, plan, evaluation.root
        )
        return folders.is_committed(uri)
    except InputError:  # the subprocess fails with the same reason
        return False


def _store_failure(evaluation: Evaluation, reason: str) -> str:
    """Store the reason for a failure as the result of an evaluation, and return its URI."""
    from previts.evals.result import FILE, Result, write_result

    benchmark = evaluation.benchmark
    fingerprint = outputs.finished(evaluation.checkpoint, "checkpoints")
    decided = {"checkpoint": fingerprint, "benchmark": benchmark, "error": reason}
    uri = folders.address(evaluation.root, "results", f"failed-{benchmark}-{fingerprint}", decided)
    write_result(uri, Result(evaluation.row, benchmark, fingerprint, status="failed", error=reason))
    inputs = {"checkpoint": evaluation.checkpoint, "data": evaluation.data}
    folders.commit(uri, decided, inputs=inputs, info={"failed": reason}, files=[FILE])
    return uri


def _run_and_relay(evaluations: Sequence[Evaluation]) -> tuple[int, list[str], str]:
    """Run evaluations in a subprocess and relay its standard error.

    SIGTERM to this process is passed on to the subprocess.

    Returns:
        The exit code, the URI of each finished evaluation, and the reason for a failure: the last message that starts
        with "previts: ", else the last line of the standard error.
    """
    last: collections.deque[str] = collections.deque(maxlen=1)
    message: list[str] = []
    # The subprocess must end with this process, not with the engine of the pipeline. If it ended with the engine, it
    # could end before this process, which would take it for a failed evaluation.
    environment = {**os.environ, workers.STARTED_BY: str(os.getpid())}
    requests = json.dumps([asdict(evaluation) for evaluation in evaluations])
    # Results go to a file: libraries print to standard output, and a pipe would need a reader.
    with tempfile.NamedTemporaryFile("r", suffix=".txt") as finished:
        process = subprocess.Popen(
            [sys.executable, "-m", "previts.stages.subprocess_evaluation", finished.name, requests],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
        )
        signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
        assert process.stderr
        for line in process.stderr:
            print(line.rstrip(), file=sys.stderr, flush=True)
            if line.strip():
                last.append(line.strip())
            if line.startswith("previts: "):
                message = [line.removeprefix("previts: ").strip()]  # of several processes, the last message counts
            elif message:
                message.append(line.strip())
        code = process.wait()
        uris = finished.read().splitlines()
    return code, uris, " ".join(message) or (last[0] if last else "the process printed no message")


def _main(finished: str, requests: str) -> None:
    """Run evaluations in this process, and append the URI of each result to a file."""
    for request in json.loads(requests):
        uri = Evaluation(**request).run()
        with open(finished, "a") as file:
            file.write(f"{uri}\n")


if __name__ == "__main__":
    machine.limit_threads()
    with readable_errors():
        _main(*sys.argv[1:])
