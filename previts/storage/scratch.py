"""Temporary folders on the local disk, which are deleted even if their process was killed.

A folder is locked while its process lives. The next process that needs one deletes those that no process has locked.
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator

from previts.errors import InputError
from previts.storage import locks

_PREFIX = "previts-scratch-"
_NAME = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}")


def parent() -> str:
    """Return the folder of temporary files: TMPDIR, or another one of the system if that cannot be written to.

    Raises:
        InputError: If none can be written to.
    """
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        raise InputError(
            f"no folder for temporary files can be written to (TMPDIR is {os.environ.get('TMPDIR') or 'not set'}); "
            "free some space, or set TMPDIR to a folder that you may write to"
        ) from None


@contextlib.contextmanager
def folder() -> Iterator[str]:
    """Yield the path of a new folder among the temporary files (TMPDIR); it is deleted at the end of the block.

    Raises:
        InputError: If no folder for temporary files can be written to.
    """
    sweep(parent())
    path, lock = _locked(parent())
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def sweep(temporary: str) -> int:
    """Delete the folders that killed processes of this user left among the temporary files; return their number."""
    swept = 0
    with os.scandir(temporary) as entries:
        left = [entry for entry in entries if _NAME.fullmatch(entry.name)]
    for entry in left:
        with contextlib.suppress(OSError):  # deleted meanwhile, or a file system without locks
            mine = entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
            if not mine:
                continue
            with locks.taken(entry.path) as free:
                if free:
                    shutil.rmtree(entry.path, ignore_errors=True)
                    swept += 1
    return swept


def _locked(temporary: str) -> tuple[str, int]:
    while True:
        path = tempfile.mkdtemp(prefix=_PREFIX, dir=temporary)
        with contextlib.suppress(FileNotFoundError):  # another process swept it before it was locked
            lock = os.open(path, os.O_RDONLY)
            if locks.hold(lock) and os.path.exists(path):
                return path, lock
            os.close(lock)
