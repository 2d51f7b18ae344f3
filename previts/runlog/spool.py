"""The spool: a file that keeps the entries of a run log while MLflow does not answer.

For section 4 of PreViTS. A spool is stored in the root. For a remote root, it is stored among the temporary files, and
copied to the root when it is closed. This file does not use MLflow.
"""

import fcntl
import json
import logging
import os
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from typing import IO, Any

from previts.errors import InputError
from previts.processes import command_folder
from previts.runlog.entries import Entry, Identity, check_entry
from previts.storage import files, fingerprints
from previts.storage.documents import from_json

SPOOLS = "runlog"
LEFT_OUT = "the line is left out"

logger = logging.getLogger(__name__)


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
        file = open(path, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115 (stays open during the run)
        fcntl.flock(file, fcntl.LOCK_EX)
        spool = Spool(root, path, file)
        spool.write([asdict(identity)])
        return spool

    @staticmethod
    def left_behind(root: str) -> Iterator["Spool"]:
        """Yield the spools that no process has locked; those of a remote root are downloaded first."""
        folder = _spool_folder(root)
        files.sweep(folder, deep=False)
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
                file = open(os.path.join(folder, name), "a+", encoding="utf-8", errors="replace")  # noqa: SIM115
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            if os.fstat(file.fileno()).st_nlink:  # else another process has just sent and deleted it
                yield Spool(root, file.name, file)

    def write(self, entries: list[Entry]) -> None:
        """Append entries; they are kept if the process is killed."""
        with files.naming(self.path):
            self._file.writelines(json.dumps(entry) + "\n" for entry in entries)
            self._file.flush()

    def identity(self) -> Identity | None:
        """Return the run of these entries, or None if the process was killed before the first line was complete.

        Raises:
            InputError: If the first line is damaged: the entries belong to no run.
        """
        lines = self._lines()
        if lines and isinstance(lines[0], dict) and lines[0].get("kind") == "arm":  # of an earlier version
            lines[0]["kind"] = "trial"
        return from_json(Identity, lines[0], self.path, LEFT_OUT) if lines else None

    def entries(self) -> list[Entry]:
        """Return the entries in order; a message reports each one that is damaged."""
        found = []
        for line in self._lines()[1:]:
            try:
                found.append(check_entry(line, self.path, LEFT_OUT))
            except InputError as error:
                logger.warning("%s", error)
        return found

    def _lines(self) -> list[Any]:
        """Return the parsed lines, None for a damaged one; a killed process may have left the last one incomplete."""
        self._file.seek(0)
        return [_parsed(line) for line in self._file if line.endswith("\n")]

    def leave(self) -> None:
        """Close the file; another run sends it. A remote root gets a copy, because the local disk may be temporary."""
        self._file.close()
        if self._copy():
            files.upload(self.path, self._copy())

    def set_aside(self) -> None:
        """Rename the file, which cannot be sent, so that no later run reads it again; its content is kept."""
        os.replace(self.path, f"{self.path}.damaged")
        self._file.close()
        if self._copy():
            files.upload(f"{self.path}.damaged", f"{self._copy()}.damaged")
            files.delete(self._copy())

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


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _spool_folder(root: str) -> str:
    """Return the local folder of spools: in the root if it is local, else among the temporary files."""
    folder = files.local_path(root)
    if folder is not None:
        return os.path.join(os.path.abspath(folder), SPOOLS)
    return os.path.join(
        command_folder.lasting_folder(), f"previts-{SPOOLS}-{fingerprints.fingerprint(files.absolute(root))}"
    )
