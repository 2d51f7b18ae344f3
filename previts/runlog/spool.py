"""The spool: a file that keeps the entries of a run log while MLflow does not answer.

For section 4 of PreViTS. A spool is stored in the root. For a remote root, it is stored among the temporary files, and
copied to the root when it is closed. This file does not use MLflow.
"""

import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import IO, Any, Literal

from previts.processes import command_folder
from previts.storage import files, fingerprints

Entry = dict[str, Any]

SPOOLS = "runlog"


@dataclass(frozen=True)
class Identity:
    """Names an MLflow run: an arm at work, an arm that gets additional metrics, or the group's parent run."""

    kind: Literal["arm", "addition", "group"]
    experiment: str
    group: str = ""
    name: str = ""
    fingerprint: str = ""
    params: dict[str, str] = field(default_factory=dict)


class Spool:
    """A file of entries that wait for MLflow: one JSON document a line, first the identity of their run.

    The file is locked while its run works, so that no other process sends it.
    """

    def __init__(self, root: str, path: str, file: IO[str]) -> None:
        self.path, self._root, self._file = path, root, file

    @staticmethod
    def create(root: str, identity: Identity) -> "Spool":
        """Create and lock the file of a run that works."""
        folder = _spool_folder(root)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"{identity.fingerprint or identity.group}-{uuid.uuid4().hex[:8]}.jsonl")
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (stays open during the run)
        fcntl.flock(file, fcntl.LOCK_EX)
        spool = Spool(root, path, file)
        spool.write([asdict(identity)])
        return spool

    @staticmethod
    def left_behind(root: str) -> Iterator["Spool"]:
        """Yield the spools that no process has locked; those of a remote root are downloaded first."""
        folder = _spool_folder(root)
        if files.local_path(root) is None:
            for name in files.names(files.join(root, SPOOLS)):
                os.makedirs(folder, exist_ok=True)
                if not os.path.exists(os.path.join(folder, name)):
                    data = files.read_bytes(files.join(root, SPOOLS, name))
                    files.write_bytes(os.path.join(folder, name), data)
        for name in files.names(folder):
            if not name.endswith(".jsonl"):
                continue
            try:
                file = open(os.path.join(folder, name), "a+", encoding="utf-8")  # noqa: SIM115
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            if os.fstat(file.fileno()).st_nlink:  # else another process has just sent and deleted it
                yield Spool(root, file.name, file)

    def write(self, entries: list[Entry]) -> None:
        """Append entries; they are kept if the process is killed."""
        self._file.writelines(json.dumps(entry) + "\n" for entry in entries)
        self._file.flush()

    def identity(self) -> Identity | None:
        """Return the run of these entries, or None if the process was killed before the first line was complete."""
        lines = self._lines()
        return Identity(**lines[0]) if lines else None

    def entries(self) -> list[Entry]:
        """Return the entries in order."""
        return self._lines()[1:]

    def _lines(self) -> list[Entry]:
        self._file.seek(0)
        # A killed process may have left an incomplete last line.
        return [json.loads(line) for line in self._file if line.endswith("\n")]

    def leave(self) -> None:
        """Close the file; another run sends it. A remote root gets a copy, because the local disk may be temporary."""
        self._file.close()
        if self._copy():
            files.upload(self.path, self._copy())

    def delete(self) -> None:
        """Delete the file and its copy, after its entries have been sent."""
        os.remove(self.path)
        self._file.close()
        if self._copy():
            files.delete(self._copy())

    def _copy(self) -> str:
        """Return the URI of the copy in a remote root, or "" for a root on the local disk."""
        here = files.local_path(self._root) is not None
        return "" if here else files.join(self._root, SPOOLS, os.path.basename(self.path))


def _spool_folder(root: str) -> str:
    """Return the local folder of spools: in the root if it is local, else among the temporary files."""
    folder = files.local_path(root)
    if folder is not None:
        return os.path.join(os.path.abspath(folder), SPOOLS)
    return os.path.join(
        command_folder.lasting_folder(), f"previts-{SPOOLS}-{fingerprints.fingerprint(files.absolute(root))}"
    )
