"""The training program on this machine, by torchx's `local_cwd`."""

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

from previts.errors import InputError
from previts.processes.workers import STARTED_BY

AGENT_GIVES_UP = re.compile(r"failed \(exitcode: -?\d+\)")
# The last line of a traceback, as torch marks those of its processes.
LAST_WORDS = re.compile(r"\[rank(\d+)\]: ([\w.]+(?:Error|Exception)\b.*)")
ROOT_CAUSE = re.compile(r"Root Cause.*?rank\s*: (?P<rank>\d+).*?exitcode\s*: (?P<code>-?\d+)", re.DOTALL)


def run_locally(app: AppDef) -> None:
    """Run an app on this machine and wait for the end; what its processes say is passed on.

    SIGTERM is passed on to the processes, which save and end; they end at once when this process is killed.

    Raises:
        InputError: If a process failed; names the first one that did, and what became of it.
        SystemExit: With code 143 after SIGTERM.
    """
    causes: list[str] = []
    words: dict[int, str] = {}
    account: list[str] = []  # torchrun's own of a failure, its traceback included: only the cause is passed on
    ends_with_us = {STARTED_BY: str(os.getpid())}
    app = replace(app, roles=[replace(role, env={**role.env, **ends_with_us}) for role in app.roles])
    with get_runner() as runner:
        handle = runner.run(app, scheduler="local_cwd", workspace="")
        terminated = _pass_on_sigterm()
        for line in runner.log_lines(handle, app.roles[0].name, 0, should_tail=True):
            if account or AGENT_GIVES_UP.search(line):
                account.append(line)
                continue
            if line.startswith("previts: process "):
                causes.append(line.removeprefix("previts: ").rstrip())
            if match := LAST_WORDS.match(line):
                words[int(match[1])] = match[2].rstrip()
            print(line.rstrip(), file=sys.stderr)
        status = runner.wait(handle, wait_interval=1)
    if terminated.is_set():
        raise SystemExit(128 + signal.SIGTERM)
    if status is None or status.state != AppState.SUCCEEDED:
        raise InputError(f"{app.name} failed: {_cause(causes, ''.join(account), words)}")


def _pass_on_sigterm() -> threading.Event:
    """Send SIGTERM on to the training processes from now on; return the flag that it was.

    Not to torchrun, which ends what it started after some seconds, saved or not.
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


def _cause(causes: Sequence[str], account: str, words: Mapping[int, str]) -> str:
    """Return which process failed first and why, from torchrun's account and from what the processes said."""
    first = ROOT_CAUSE.search(account)
    if first is None:
        return causes[0] if causes else "see above"
    rank, code = int(first["rank"]), int(first["code"])
    if said := [cause for cause in causes if cause.startswith(f"process {rank}:")]:
        return said[0]
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; often a machine or container without memory left" if name == "SIGKILL" else ""
        return f"process {rank} was killed by {name}{hint}. The same command goes on where it stopped"
    return f"process {rank} ended with exit code {code}: {words.get(rank, 'see above')}"
