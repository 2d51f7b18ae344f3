"""A real Kubernetes node on this machine, in namespaces of its own: nothing leaves it, and it leaves nothing behind.

From a shell, as root:

    python tests/cluster/machine/node.py up [HOURS]    build what is missing, and start the node for 2 hours
    python tests/cluster/machine/node.py down          stop it
    python tests/cluster/machine/node.py run COMMAND   run a command in it, for example: kubectl get pods -A
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import boot
import programs
import sandbox

STATE = Path("/var/tmp/previts-node")  # containerd needs an ordinary disk here, not one in memory
START_SECONDS = 420


class NodeError(Exception):
    """A node did not start, or is not there."""


class Node:
    """A node.

    Args:
        state: Folder for its files, which is deleted at its end. Its name is that of the control group of the node.
    """

    def __init__(self, state: Path = STATE) -> None:
        self.state = state
        self.images = programs.cache() / "images"
        self.kubeconfig = state / "certificates" / "admin.kubeconfig"
        self._owner = -1  # the node ends when this end of a pipe is closed, also by the death of this process

    def up(self, seconds: float, detached: bool = False) -> dict[str, float]:
        """Start the node, and return the seconds of each step.

        Args:
            seconds: The node ends by itself after this time.
            detached: Whether the node goes on after the end of this process.

        Raises:
            NodeError: Another node runs, or the node did not start; the message has the end of a log.
        """
        if reasons := sandbox.obstacles():
            raise NodeError("; ".join(reasons))
        lock = self._lock()
        try:
            self._remove()
            self.state.mkdir(parents=True)
            alive, self._owner = os.pipe()
            program = [sys.executable, str(Path(__file__).with_name("boot.py"))]
            command = [*program, str(self.state), str(alive), str(seconds)]
            kept = (alive, lock, self._owner) if detached else (alive, lock)  # then it holds both ends
            process = sandbox.start(command, kept, self.state / "boot.log")
            os.close(alive)
        finally:
            os.close(lock)  # the node has it now
        (self.state / "process").write_text(str(process.pid))
        deadline = time.monotonic() + START_SECONDS
        while not (self.state / "ready").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                reason = self._reason() or f"no answer in {START_SECONDS} s"
                if "PREVITS_NODE_KEEP" not in os.environ:
                    self.down()
                raise NodeError(f"the node did not start: {reason}")
            time.sleep(0.1)
        first = sandbox.first_process(process.pid)
        (self.state / "first").write_text(str(first))
        return dict(json.loads((self.state / "ready").read_text()))

    def down(self) -> None:
        """Stop the node, and remove all that is left of it."""
        if self._owner >= 0:
            os.close(self._owner)
            self._owner = -1
        with suppress(OSError, ValueError):
            process = int((self.state / "process").read_text())
            if str(self.state).encode() in Path(f"/proc/{process}/cmdline").read_bytes():
                os.kill(process, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while True:
            try:
                lock = self._lock()
                break
            except NodeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        try:
            self._remove()
        finally:
            os.close(lock)

    def memory(self) -> int:
        """Return the bytes of memory that the programs and the pods of the node use now, without caches of files."""
        return sandbox.memory(self.state.name)

    def is_up(self) -> bool:
        try:
            os.close(self._lock())
        except NodeError:
            return (self.state / "ready").exists()
        return False

    def command(self, *command: str) -> list[str]:
        """Return a command that runs another one in the namespaces of the node."""
        return [*sandbox.entering(int((self.state / "first").read_text())), *command]

    def kubectl(self, *arguments: str, given: str | None = None, seconds: float = 120) -> str:
        """Run kubectl as administrator, with a text as its input, and return its output.

        Raises:
            NodeError: It failed; with its messages.
        """
        kubectl = (str(programs.path("kubectl")), "--kubeconfig", str(self.kubeconfig))
        done = subprocess.run(
            self.command(*kubectl, *arguments), input=given, capture_output=True, text=True, timeout=seconds
        )
        if done.returncode:
            raise NodeError(f"kubectl {' '.join(arguments)}: {(done.stdout + done.stderr)[-3000:]}")
        return done.stdout

    def apply(self, *documents: dict[str, Any]) -> None:
        """Apply manifests."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.kubectl("apply", "--filename", "-", given=json.dumps(items))

    def _lock(self) -> int:
        """Return a descriptor that holds the lock of the node, which the node itself inherits.

        Raises:
            NodeError: A node is running.
        """
        lock = os.open(f"{self.state}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise NodeError(f"a node is running; stop it with: python {Path(__file__)} down") from None
        return lock

    def _remove(self) -> None:
        sandbox.remove_control_group(self.state.name)
        shutil.rmtree(self.state, ignore_errors=True)
        if self.state.exists():
            raise NodeError(f"the files of an earlier node in {self.state} cannot be deleted")

    def _reason(self) -> str:
        for name in ("ended", "boot.log"):
            with suppress(OSError):
                if text := (self.state / name).read_text().strip():
                    return text[-6000:]
        return ""


def main(arguments: list[str]) -> int:
    node = Node()
    try:
        match arguments:
            case ["up", *rest] if len(rest) < 2:
                programs.build(*boot.PROGRAMS)
                seconds = node.up(3600 * float(rest[0] if rest else 2), detached=True)
                print(f"up in {sum(seconds.values()):.0f} s: {seconds}")
                print(f"next: python {__file__} run kubectl get pods --all-namespaces")
            case ["down"]:
                node.down()
            case ["run", *command] if command:
                path = f"{programs.path('kubectl').parent}:{os.environ['PATH']}"
                surroundings = {**os.environ, "KUBECONFIG": str(node.kubeconfig), "PATH": path}
                here = ("env", f"--chdir={os.getcwd()}")
                os.execvpe("nsenter", node.command(*here, *command), surroundings)
            case _:
                print(__doc__)
                return 2
    except (NodeError, OSError, subprocess.CalledProcessError) as fault:
        print(fault, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
