"""Helpers of tests that kill commands: kill one at a random moment, and compare what is left with an oracle."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

# What measures the machine, or names the run, by file, and the checksums of such files. Everything else must be equal.
MEASURED = {
    "manifest.json": ("pairs_per_second", "log.jsonl", "result.json", "run", "checksum"),
    "log.jsonl": ("pairs_per_second", "data_wait", "memory_gib"),
    "result.json": ("seconds",),
}


class Command:
    """A command in a session and with temporary files of its own."""

    def __init__(self, arguments: Sequence[str], root: Path, temporary: Path, **environment: str) -> None:
        temporary.mkdir(exist_ok=True)
        self.arguments, self.root, self.temporary = arguments, root, temporary
        self.environment = {**os.environ, "TMPDIR": str(temporary), **environment}

    def start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.arguments,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self) -> str:
        """Run the command to its end, and return what it printed."""
        process = self.start()
        _, error = process.communicate(timeout=600)
        assert process.returncode == 0, error
        return error

    def work_seconds(self) -> float:
        """Run the command to its end, and return the time that it held a lease."""
        process = self.start()
        begun = self._wait_for_lease(process)
        _, error = process.communicate(timeout=600)
        assert process.returncode == 0, error
        return time.monotonic() - begun

    def kill(self, chance: random.Random, work_seconds: float) -> bool:
        """Start the command and kill it; return whether it was killed before its end.

        One of five kills comes while the command starts, and the others while it holds a lease. Half of them kill all
        processes of the session, the others only the first process.
        """
        process = self.start()
        if chance.random() < 0.2:
            time.sleep(chance.uniform(0, 2))
        else:
            self._wait_for_lease(process)
            time.sleep(chance.uniform(0, work_seconds))
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                if chance.random() < 0.5:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
        _, error = process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGKILL), error
        return process.returncode != 0

    def _wait_for_lease(self, process: "subprocess.Popen[str]") -> float:
        while process.poll() is None and not any(self.root.glob("*/*/*.lease")):
            time.sleep(0.01)
        return time.monotonic()

    def orphans(self, seconds: float = 60.0) -> list[str]:
        """Return the processes of this command that still exist after a while."""
        deadline = time.monotonic() + seconds
        while True:
            found = [name for name in map(self._name_if_ours, psutil.process_iter()) if name]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.2)

    def _name_if_ours(self, process: psutil.Process) -> str:
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get("TMPDIR", "").startswith(str(self.temporary))
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                return f"{process.pid} {' '.join(process.cmdline())[:200]}"
        return ""

    def leftovers(self) -> list[str]:
        """Return what only a command at work should have: leases, temporary files, states."""
        kept = [*self.root.rglob("*.lease"), *self.root.rglob("*.tmp"), *self.root.rglob("work")]
        return [str(path) for path in [*kept, *self.temporary.iterdir()]]


def content(folder: Path) -> dict[str, Any]:
    """Return the files of a folder by their names, as bytes, or as JSON without measured numbers."""
    return {str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _content(path: Path) -> Any:
    measured = MEASURED.get(path.name)
    if measured is None:
        return path.read_bytes()
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    return [_without(json.loads(line), measured) for line in lines]


def _without(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, dict):
        return {name: _without(item, names) for name, item in value.items() if name not in names}
    return value
