"""The temporary folder of a command, which the next command deletes if this one is killed.

It contains the temporary files of all libraries and processes of the command. While the command works, it holds a lock
on a file in the folder; the system releases the lock when the process ends in any way.
"""

import contextlib
import fcntl
import glob
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO

PREFIX, LOCK = "previts-run-", "command.lock"
SHORT = "/tmp"
MAX_FOLDER_BYTES = 80  # of the folder of a socket; Linux allows 107 bytes for the folder and the name


@contextlib.contextmanager
def temporary_folder() -> Iterator[None]:
    """Let `tempfile`, and the processes that this one starts, use a folder that is deleted after the block.

    The folders of killed commands are deleted first. A process of another command uses the folder of that command.
    Without a disk for temporary files there is no such folder, because many commands need none. If its path is too long
    for sockets, those of multiprocessing are in a second folder in `SHORT`.
    """
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    settings = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    sockets = settings.get("tempdir")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            if own := not _is_one(tempfile.gettempdir()):
                tempfile.tempdir = os.environ["TMPDIR"] = stack.enter_context(_folder(tempfile.gettempdir()))
            if len(os.fsencode(tempfile.gettempdir())) > MAX_FOLDER_BYTES:
                settings["tempdir"] = stack.enter_context(_folder(SHORT))
            elif own:
                # Otherwise multiprocessing makes a folder in there, and reports at exit that it has gone.
                settings["tempdir"] = tempfile.tempdir
        try:
            yield
        finally:
            tempfile.tempdir, settings["tempdir"] = before, sockets
            if variable is None:
                os.environ.pop("TMPDIR", None)
            else:
                os.environ["TMPDIR"] = variable


@contextlib.contextmanager
def _folder(parent: str) -> Iterator[str]:
    """Make a folder of this command, after those of killed ones are deleted, and delete it after the block."""
    _sweep(parent)
    folder, lock = _create(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def lasting_folder() -> str:
    """Return the folder for files that other commands read too."""
    folder = tempfile.gettempdir()
    return os.path.dirname(folder) if _is_one(folder) else folder


def _is_one(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, LOCK))


def _create(parent: str) -> tuple[str, IO[str]]:
    while True:
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        with contextlib.suppress(FileNotFoundError):  # another command has just deleted the empty folder
            lock = open(os.path.join(folder, LOCK), "w")  # noqa: SIM115 (stays open during the command)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock.fileno()).st_nlink:
                return folder, lock


def _sweep(parent: str) -> None:
    """Delete the folders of killed commands."""
    for folder in glob.glob(os.path.join(glob.escape(parent), f"{PREFIX}????????")):
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # killed before it had a lock
        with contextlib.suppress(OSError), open(os.path.join(folder, LOCK), "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The lock is deleted last: a folder whose deletion is interrupted is found again.
            for name in os.listdir(folder):
                path = os.path.join(folder, name)
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path, ignore_errors=True)
                elif name != LOCK:
                    os.remove(path)
            os.remove(lock.name)
            os.rmdir(folder)
