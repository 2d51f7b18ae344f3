"""The evaluation of a checkpoint in a subprocess, whose failure is stored as a result."""

import collections
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from previts.config import paper
from previts.errors import InputError
from previts.processes import workers
from previts.stages import addresses, outputs
from previts.stages.evaluate import evaluate
from previts.storage import folders


def evaluate_in_subprocess(
    *,
    row: str,
    benchmark: str,
    checkpoint: str,
    data: str,
    root: str,
    profile: str,
    set: Sequence[str],
    processes: int = 1,
) -> str:
    """Run `previts evaluate` in a subprocess, unless its result exists, and store its failure as a result.

    One benchmark that fails, or that the kernel kills for its memory, does not stop the other benchmarks. The report
    shows the reason, and the next run tries the benchmark again.

    Returns:
        The URI of the result, or of a failed result with the reason.

    Raises:
        SystemExit: If the subprocess was interrupted or terminated from outside.
    """
    if _is_finished(row, benchmark, checkpoint, data, root, profile, set):
        return evaluate(row, benchmark, checkpoint, data, root, profile, set, processes)
    command = [sys.executable, "-m", "previts", "evaluate", "--row", row, "--benchmark", benchmark]
    command += ["--checkpoint", checkpoint, "--data", data, "--root", root, "--profile", profile]
    command += ["--processes", str(processes), "--set", *set]
    code, uri, reason = _run_and_relay(command)
    if code == 0:
        return uri
    if code in (130, 143, -signal.SIGTERM):
        raise SystemExit(143)
    if code < 0:
        killed = signal.Signals(-code).name
        hint = ", often because it ran out of memory" if killed == "SIGKILL" else ""
        reason = f"the process was killed by {killed}{hint}"
    from previts.evals.result import FILE, Result, write_result

    fingerprint = outputs.finished(checkpoint, "checkpoints")
    decided = {"checkpoint": fingerprint, "benchmark": benchmark, "error": reason}
    failed = folders.address(root, "results", f"failed-{benchmark}-{fingerprint}", decided)
    write_result(failed, Result(row, benchmark, fingerprint, status="failed", error=reason))
    folders.commit(
        failed, decided, inputs={"checkpoint": checkpoint, "data": data}, info={"failed": reason}, files=[FILE]
    )
    return failed


def _is_finished(
    row: str, benchmark: str, checkpoint: str, data: str, root: str, profile: str, set: Sequence[str]
) -> bool:
    try:
        plan = paper.resolve(row, profile, set)
        return folders.is_committed(addresses.result_address(benchmark, checkpoint, data, plan, root))
    except InputError:  # the subprocess fails with the same reason
        return False


def _run_and_relay(command: Sequence[str]) -> tuple[int, str, str]:
    """Run a command and relay its standard error.

    SIGTERM to this process is passed on to the command.

    Returns:
        The exit code, the last line of the standard output, and the reason for a failure: the last message that starts
        with "previts: ", else the last line of the standard error.
    """
    last: collections.deque[str] = collections.deque(maxlen=1)
    message: list[str] = []
    # The command must end with this process, not with the engine of the pipeline. If it ended with the engine, it could
    # end before this process, which would take it for a failed evaluation.
    environment = {**os.environ, workers.STARTED_BY: str(os.getpid())}
    # Standard output goes to a file. With a pipe, a library that prints much would wait for a reader.
    with tempfile.TemporaryFile("w+", errors="replace") as printed:
        process = subprocess.Popen(
            command, stdout=printed, stderr=subprocess.PIPE, text=True, errors="replace", env=environment
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
        printed.seek(0)
        uri = (printed.read().strip().splitlines() or [""])[-1]
    return code, uri, " ".join(message) or (last[0] if last else "the process printed no message")
