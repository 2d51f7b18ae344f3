"""Processes that start at once: forked from a process that has imported the heavy modules and does nothing else.

A start of Python that imports torch and previts costs 4 CPU-seconds, more than the small trainings of the tests.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# A forked process leaves the loop and runs its program, with the usual end of an interpreter. The others stay.
SERVER = """
import importlib, json, os, socket, sys
sys.path[:0], modules = json.loads(sys.argv[2])
for name in modules:
    importlib.import_module(name)
server = socket.socket(fileno=int(sys.argv[1]))
while True:
    text, files, _, _ = socket.recv_fds(server, 1 << 20, 1)
    if not text:
        sys.exit()
    request = json.loads(text)
    if "poll" in request:
        pid, status = os.waitpid(request["poll"], os.WNOHANG)
        server.send(json.dumps(os.waitstatus_to_exitcode(status) if pid else None).encode())
        continue
    pid = os.fork()
    if not pid:
        break
    os.close(*files)
    server.send(json.dumps(pid).encode())
server.close()
os.setsid()
os.dup2(files[0], 2)
os.close(files[0])
os.environ.update(request["environment"])
sys.argv[1:] = request["arguments"]
exec(request["program"])
"""


class Forks:
    """The process that forks; it ends with this one."""

    def __init__(self, paths: Sequence[str], modules: Sequence[str]) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-c", SERVER, str(theirs.fileno()), json.dumps([list(paths), list(modules)])]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.Popen(command, env=one_thread, pass_fds=[theirs.fileno()], start_new_session=True)
        theirs.close()

    def ask(self, request: Mapping[str, object], files: Sequence[int] = ()) -> int | None:
        """Send a request with open files, and return the answer."""
        socket.send_fds(self._ours, [json.dumps(request).encode()], files)
        answer = self._ours.recv(100)
        assert answer, "the process that forks has ended"
        found: int | None = json.loads(answer)
        return found

    def start(self, program: str, *arguments: str | Path, **environment: str) -> "Forked":
        """Run a program in a session of its own, with a pipe for its standard error."""
        reading, writing = os.pipe()
        request = {"program": program, "arguments": list(map(str, arguments)), "environment": environment}
        pid = self.ask(request, [writing])
        os.close(writing)
        assert pid
        return Forked(self, pid, reading)


class Forked:
    """A forked process, with the interface of `subprocess.Popen`."""

    def __init__(self, forks: Forks, pid: int, stderr: int) -> None:
        self.pid, self.stderr = pid, open(stderr)  # noqa: SIM115 (closed with this object)
        self.returncode: int | None = None
        self._forks = forks

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._forks.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float) -> int:
        ends = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > ends:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
