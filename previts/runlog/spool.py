"""The spool: what a run log has to say while MLflow does not answer, kept in a file until it does.

Beside section 4 of PreViTS. A spool lies in the root, or among temporary files with a copy in a root elsewhere. Nothing
here knows MLflow.
"""

import fcntl
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import IO, Any, Literal

from previts.storage import files, fingerprints

Entry = dict[str, Any]

SPOOLS = "runlog"


@dataclass(frozen=True)
class Identity:
    """Which MLflow run is meant: an arm that works now, an arm that is only added to, or the group above its arms."""

    kind: Literal["arm", "addition", "group"]
    experiment: str
    group: str = ""
    name: str = ""
    fingerprint: str = ""
    params: dict[str, str] = field(default_factory=dict)


class Spool:
    """A file of entries that wait for MLflow, one JSON document a line, the first the identity of their run.

    It is locked while its run is at work, so that no other process sends it too.
    """

    def __init__(self, root: str, path: str, file: IO[str]) -> None:
        self.path, self._root, self._file = path, root, file

    @staticmethod
    def create(root: str, identity: Identity) -> "Spool":
        """Begin a file for a run that is at work."""
        folder = _spool_folder(root)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"{identity.fingerprint or identity.group}-{uuid.uuid4().hex[:8]}.jsonl")
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (open for as long as the run)
        fcntl.flock(file, fcntl.LOCK_EX)
        spool = Spool(root, path, file)
        spool.write([asdict(identity)])
        return spool

    @staticmethod
    def left_behind(root: str) -> Iterator["Spool"]:
        """Yield the spools that no process holds, those of a remote root fetched to this disk."""
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
            if os.fstat(file.fileno()).st_nlink:  # else another process has just sent and removed it
                yield Spool(root, file.name, file)

    def write(self, entries: list[Entry]) -> None:
        """Append entries; they survive the death of the process."""
        self._file.writelines(json.dumps(entry) + "\n" for entry in entries)
        self._file.flush()

    def identity(self) -> Identity | None:
        """Return whose entries these are, None where the process died in the first line."""
        lines = self._lines()
        return Identity(**lines[0]) if lines else None

    def entries(self) -> list[Entry]:
        """Return the entries in order."""
        return self._lines()[1:]

    def _lines(self) -> list[Entry]:
        self._file.seek(0)
        # A process that was killed may have left half a line at the end.
        return [json.loads(line) for line in self._file if line.endswith("\n")]

    def leave(self) -> None:
        """Close the file for another run to send; a root elsewhere gets a copy, as this disk may not last."""
        self._file.close()
        if self._copy():
            files.upload(self.path, self._copy())

    def delete(self) -> None:
        """Remove the file and its copy: its entries have been sent."""
        os.remove(self.path)
        self._file.close()
        if self._copy() and files.exists(self._copy()):
            fs, path = files.open_fs(self._copy())
            fs.rm_file(path)

    def _copy(self) -> str:
        """Return where a root elsewhere keeps a copy of this file, nothing for a root on this disk."""
        here = files.local_path(self._root) is not None
        return "" if here else files.join(self._root, SPOOLS, os.path.basename(self.path))


def _spool_folder(root: str) -> str:
    """Return the folder of spools on this disk: in the root if that is here, else among temporary files."""
    folder = files.local_path(root)
    if folder is not None:
        return os.path.join(os.path.abspath(folder), SPOOLS)
    return os.path.join(tempfile.gettempdir(), f"previts-{SPOOLS}-{fingerprints.fingerprint(files.absolute(root))}")
