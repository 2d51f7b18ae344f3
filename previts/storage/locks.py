"""Locks on local files and folders, by which a process sees whether the one that made them still lives.

The kernel releases a lock when its process ends, even if it is killed. A file system without locks counts every file as
in use.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator


def hold(file: int) -> bool:
    """Lock an open file or folder until it is closed; return False if another process has locked it.

    On a file system without locks it stays unlocked, and `taken` raises.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def taken(path: str) -> Iterator[bool]:
    """Yield whether no living process has locked a file or folder; it stays locked during the block, to be deleted.

    Raises:
        OSError: If it does not exist, or its file system has no locks.
    """
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(file)
