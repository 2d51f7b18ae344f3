"""Holders: the processes that leases name, and whether they still live.

Process ids are compared on one machine only, within one boot and one container.
"""

import contextlib
import getpass
import json
import os
import socket
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

TAKE_OVER = "PREVITS_TAKE_OVER"  # set by `--take-over`: a text that identifies the command and all its processes
PODS = ("KFP_POD_NAME", "HOSTNAME")


@dataclass(frozen=True)
class Holder:
    """The content of a lease.

    Attributes:
        token: Identifies the lease.
        beat: Number of renewals.
        verb: What the holder does.
        since: Start, in UTC by the clock of the holder.
        user: Name of the user.
        host: Name of the pod or the machine.
        machine: Identifies a space of process ids: machine, boot and container.
        pid: Process id.
        started: Start of the process after the boot, because ids are used again.
        command: Value of `TAKE_OVER`; a command does not take over from itself.
        training: Identifies the training that the process belongs to, "" for a single process.
    """

    token: str
    beat: int = 0
    verb: str = ""
    since: str = ""
    user: str = ""
    host: str = ""
    machine: str = ""
    pid: int = 0
    started: str = ""
    command: str = ""
    training: str = ""

    def is_dead(self) -> bool:
        """Return whether the holder was a process of this machine that has ended."""
        return self.machine == this_machine() and self.started != _started(self.pid)

    def __str__(self) -> str:
        return f"{self.verb or 'another process'} of {self.user} on {self.host}, process {self.pid}, since {self.since}"


def training() -> str:
    """Return the identity of the training that this process belongs to, or "" for a single process."""
    names = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")
    return "/".join(os.environ.get(name, "") for name in names) if int(os.environ.get("WORLD_SIZE") or 1) > 1 else ""


def this_process(verb: str) -> Holder:
    """Return a new holder: this process, which runs a verb."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = f"user {os.getuid()}"
    return Holder(
        token=uuid.uuid4().hex,
        verb=verb,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        user=user,
        host=next((os.environ[name] for name in PODS if os.environ.get(name)), socket.gethostname()),
        machine=this_machine(),
        pid=os.getpid(),
        started=_started(os.getpid()),
        command=os.environ.get(TAKE_OVER, ""),
        training=training(),
    )


def this_machine() -> str:
    """Return what identifies the process ids that this process sees: the host, its boot, and the container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        parts.append(file.read().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _started(pid: int) -> str:
    """Return when a process of this machine started, or "" if it has ended; a zombie has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            values = file.read().rsplit(")", 1)[1].split()
        return "" if values[0] in "ZX" else values[19]
    except (FileNotFoundError, ProcessLookupError):
        pass
    if os.path.exists("/proc/self/stat"):
        return ""
    try:  # a system without /proc
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "running"


def to_bytes(holder: Holder) -> bytes:
    """Return the content of a lease; its length does not depend on the number of renewals."""
    return json.dumps({**asdict(holder), "beat": f"{holder.beat:012d}"}, indent=1).encode() + b"\n"


def parse(data: bytes) -> Holder:
    """Return the holder that wrote a lease; one whose content is incomplete is not known."""
    try:
        values = json.loads(data)
        return Holder(**{**values, "beat": int(values["beat"])})
    except (ValueError, TypeError, KeyError):
        return Holder(token="", host="an unknown machine", user="an unknown user")
