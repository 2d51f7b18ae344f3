"""The launcher for this machine: it runs the training program with torchx's scheduler `local_cwd`."""

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import FrameType

import psutil
from torchx.runner import get_runner
from torchx.specs import AppDef, AppState

from previts.errors import InputError, TemporaryError
from previts.processes.exits import TEMPORARY
from previts.processes.workers import STARTED_BY, available

# The first line of torchrun's report about a failure.
REPORT_STARTS = re.compile(r"failed \(exitcode: -?\d+\)")
# The last line of a traceback, with the prefix that torch adds in its worker processes.
EXCEPTION = re.compile(r"\[rank(\d+)\]: ([\w.]+(?:Error|Exception)\b.*)")
ROOT_CAUSE = re.compile(r"Root Cause.*?rank\s*: (?P<rank>\d+).*?exitcode\s*: (?P<code>-?\d+)", re.DOTALL)


def run_locally(app: AppDef, processes: int = 1) -> None:
    """Run an app on this machine, print the output of its processes and wait for the end.

    SIGTERM is passed on to the processes, which save their state and end. If this process is killed, they end at once.

    Args:
        app: The app.
        processes: Number of its processes, which share the threads that OMP_NUM_THREADS allows this one.

    Raises:
        InputError: If a process failed. The message names the first one that failed, and the cause. It is a
            TemporaryError if the cause may pass.
        SystemExit: With code 143 after SIGTERM.
    """
    messages: list[str] = []  # error messages of the processes
    exceptions: dict[int, str] = {}  # the last exception of each process
    report: list[str] = []  # torchrun's report with its traceback; the user gets only the cause from it
    given = {STARTED_BY: str(os.getpid())}  # they end with this process
    if "OMP_NUM_THREADS" in os.environ:  # otherwise torchrun sets it to 1
        given["OMP_NUM_THREADS"] = str(max(1, available() // processes))
    app = replace(app, roles=[replace(role, env={**role.env, **given}) for role in app.roles])
    with get_runner() as runner:
        handle = runner.run(app, scheduler="local_cwd", workspace="")
        terminated = _pass_on_sigterm()
        for line in runner.log_lines(handle, app.roles[0].name, 0, should_tail=True):
            if report or REPORT_STARTS.search(line):
                report.append(line)
                continue
            if line.startswith("previts: process "):
                messages.append(line.removeprefix("previts: ").rstrip())
            if match := EXCEPTION.match(line):
                exceptions[int(match[1])] = match[2].rstrip()
            print(line.rstrip(), file=sys.stderr)
        status = runner.wait(handle, wait_interval=1)
    if terminated.is_set():
        raise SystemExit(128 + signal.SIGTERM)
    if status is None or status.state != AppState.SUCCEEDED:
        root_cause = ROOT_CAUSE.search("".join(report))
        kind = TemporaryError if root_cause and int(root_cause["code"]) == TEMPORARY else InputError
        raise kind(f"{app.name} failed: {_cause(messages, root_cause, exceptions)}")


def _pass_on_sigterm() -> threading.Event:
    """Pass SIGTERM on to the training processes from now on, and return the flag that is set when this happens.

    torchrun does not get the signal: it would kill its processes after some seconds, also if they are still saving.
    """
    terminated = threading.Event()

    def pass_on(number: int, frame: FrameType | None) -> None:
        terminated.set()
        for torchrun in psutil.Process().children():
            for process in torchrun.children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.terminate()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, pass_on)
    return terminated


def _cause(messages: Sequence[str], first: re.Match[str] | None, exceptions: Mapping[int, str]) -> str:
    """Return which process failed first and why, from the end of torchrun's report and the output of the processes."""
    if first is None:
        return messages[0] if messages else "see the output above"
    rank, code = int(first["rank"]), int(first["code"])
    if own := [message for message in messages if message.startswith(f"process {rank}:")]:
        return own[0]
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; often the machine or container is out of memory" if name == "SIGKILL" else ""
        return f"process {rank} was killed by {name}{hint}. The same command resumes the run"
    return f"process {rank} ended with exit code {code}: {exceptions.get(rank, 'see the output above')}"
