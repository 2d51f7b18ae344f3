"""Errors of a disk in words: what is full or broken, how much space is left, and what to do."""

import errno
import os
import tempfile

# Errors whose cause is the disk or the rights on it, and not the program.
REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of this user on the disk is used up",
    errno.EFBIG: "the file is larger than this process may write (ulimit -f) or than the disk allows",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EIO: "the disk or its connection fails (input/output error)",
    errno.EISDIR: "this is a folder, expected a file",
    errno.ELOOP: "this is a symbolic link that leads back to itself",
}
_SPACE = (errno.ENOSPC, errno.EDQUOT)


def explain(error: OSError) -> str:
    """Return the message about an error of a disk, or "" if it is another error.

    An error of writing to an open file does not name the file. The message then has the space on the disk of temporary
    files and on that of the working directory.
    """
    if error.errno == errno.ENOENT and "temporary directory" in (error.strerror or ""):  # of `tempfile`
        return (
            f"no folder for temporary files can be written to (TMPDIR is {os.environ.get('TMPDIR') or 'not set'}); "
            "free some space, or set TMPDIR to a folder that you may write to"
        )
    reason = REASONS.get(error.errno or 0, "")
    if not reason:
        return ""
    if isinstance(error.filename, str):
        path = os.path.abspath(error.filename)
        what, space = f"{path}: {reason}", _space(path) if error.errno in _SPACE else ""
    else:
        path, what = "", reason
        places = dict.fromkeys(filter(None, (_temporary(), os.getcwd())))
        space = "; ".join(_space(place) for place in places) if error.errno in _SPACE else ""
    return f"{what}{f' ({space})' if space else ''}; {_remedy(error.errno or 0, path)}"


def _remedy(number: int, path: str) -> str:
    temporary = bool(path and _temporary()) and path.startswith(os.path.join(_temporary(), "previts-"))
    other = "set TMPDIR to another disk" if temporary else "choose another folder or --root"
    if number in _SPACE:
        other = other if path else "set TMPDIR or --root to another disk"
        return f"free some space or {other}, and run the same command again: finished work is kept"
    if number == errno.EFBIG:
        return "raise the limit and run the same command again: finished work is kept"
    if number == errno.EIO:
        return "check the disk and the system's log, and run the same command again: finished work is kept"
    if number in (errno.EISDIR, errno.ELOOP):
        return "move it away, and run the same command again"
    return f"change its permissions, or {other}"


def _temporary() -> str:
    try:
        return os.path.abspath(tempfile.gettempdir())
    except FileNotFoundError:  # no folder for temporary files can be written to
        return ""


def _space(path: str) -> str:
    """Return how much space is left on the disk of a path, which need not exist."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    mount = path
    while not os.path.ismount(mount):
        mount = os.path.dirname(mount)
    found = os.statvfs(path)
    left, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    files = f", {found.f_favail} more files" if found.f_files and found.f_favail < 100 else ""
    return f"{_bytes(left)} of {_bytes(size)} free on {mount}{files}"


def _bytes(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} TiB"
