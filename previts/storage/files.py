"""Files on any fsspec file system: URIs and paths, reading, writing, listing, deleting.

Every write is whole: a reader sees the complete file or no file. A bare path is a file on the local disk.
"""

import contextlib
import errno
import fcntl
import functools
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import fsspec
from fsspec.core import url_to_fs

from previts.errors import InputError

_TEMPORARY = re.compile(r"\.([0-9a-f]{8})-[0-9a-f]{32}\.tmp$")
_DAY = 24 * 3600

AGAIN = "and run the same command again; if the result is finished, delete its manifest.json too"

REPLACE = "replace it by the original file"  # of a dataset

ON_DISK = ("", "file", "local")  # protocols of the local disk


def protocol(uri: str) -> str:
    """Return the protocol of a URI, or "" for a bare path; a path may contain any characters, `://` too."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", uri)
    return match[1] if match else ""


def open_fs(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URI and the path in it; a bare path is on the local disk.

    Raises:
        InputError: If the protocol is unknown, its library is not installed, or a URI of a store contains `::`.
    """
    if not uri:
        raise InputError("an empty URI was given; expected a path, file://, gs://, s3:// or memory://")
    if protocol(uri) in ON_DISK:
        fs = fsspec.filesystem("file")
        return fs, fs._strip_protocol(uri)
    if "::" in uri:  # fsspec would open what is before it, or chain two file systems
        raise InputError(f"{uri} contains '::', which no URI of a store may contain; choose a name without it")
    try:
        fs, path = url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise InputError(
            f"cannot open {uri!r}: {error}; expected a path, file://, gs://, s3:// or memory://"
        ) from error
    return fs, path


# A loader opens the same few thousand files many times.
_opened = functools.lru_cache(maxsize=4096)(open_fs)


def join(uri: str, *parts: str) -> str:
    """Return the URI of a file or folder below `uri`."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def absolute(uri: str) -> str:
    """Return a URI that means the same in every process: a local path becomes absolute, other URIs stay as they are."""
    if protocol(uri) not in ON_DISK:  # opening a remote URI may search for credentials for many seconds
        return uri.rstrip("/")
    return str(open_fs(uri)[1])


def is_local(fs: fsspec.AbstractFileSystem) -> bool:
    """Return whether the file system is the local disk."""
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def local_path(uri: str) -> str | None:
    """Return the path of a URI on the local disk, or None for a remote URI."""
    fs, path = open_fs(uri)
    return path if is_local(fs) else None


def exists(uri: str) -> bool:
    """Return whether there is a file or a folder at `uri`."""
    fs, path = open_fs(uri)
    return bool(fs.exists(path))


def names(uri: str) -> list[str]:
    """Return the sorted names directly below a folder; a missing folder has none."""
    fs, path = open_fs(uri)
    fs.invalidate_cache(path)
    try:
        return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in fs.ls(path, detail=False))
    except FileNotFoundError:
        return []


def read_bytes(uri: str, start: int | None = None, stop: int | None = None) -> bytes:
    """Return the bytes [start, stop) of a file, by default all of them."""
    fs, path = open_fs(uri)
    return bytes(fs.cat_file(path, start=start, end=stop))


class NotAFileError(InputError):
    """There is a folder, a pipe or a loop of links in place of a file."""


def check_regular(uri: str, remedy: str = f"delete it, {AGAIN}") -> None:
    """Raise a NotAFileError if what is at a path of the local disk cannot be read as a file.

    Opening a pipe would wait for its writer without end. Nothing is raised if there is nothing.
    """
    path = local_path(uri)
    if path is None:
        return
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotAFileError(f"{path} is a link that leads to itself, expected a file; {remedy}") from None
        return
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise NotAFileError(f"{path} is {what}, expected a file; {remedy}")


def read_regular(uri: str, remedy: str = REPLACE) -> bytes:
    """Return a file that the user gives; `remedy` says what to do if there is a folder or a pipe in its place.

    Raises:
        NotAFileError: If there is.
        FileNotFoundError: If there is nothing.
    """
    check_regular(uri, remedy)
    return read_bytes(uri)


class Ranges(NamedTuple):
    """Ranges of bytes [starts, stops) of a file."""

    uri: str
    starts: Sequence[int]
    stops: Sequence[int]


Read = Callable[[str, Sequence[int], Sequence[int]], list[bytes]]
"""A function like `read_ranges`."""


def read_ranges(uri: str, starts: Sequence[int], stops: Sequence[int]) -> list[bytes]:
    """Return ranges of bytes of one file; a remote store gets all requests at once.

    A range that reaches past the end of the file gives fewer bytes.

    Raises:
        FileNotFoundError: If the file does not exist.
    """
    fs, path = _opened(uri)
    if not is_local(fs):
        if len(starts) == 1:
            return [bytes(fs.cat_file(path, start=starts[0], end=stops[0]))]
        return [bytes(block) for block in fs.cat_ranges([path] * len(starts), starts, stops, on_error="raise")]
    if not os.path.isdir(path):  # callers say what to do about a folder
        check_regular(uri)
    file = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            size = os.fstat(file).st_size  # `pread` would allocate the memory of a range that the file does not have
            pairs = ((min(start, size), min(stop, size)) for start, stop in zip(starts, stops, strict=True))
            return [os.pread(file, max(0, stop - start), start) for start, stop in pairs]
    finally:
        os.close(file)


def read_whole(uris: Sequence[str]) -> list[bytes]:
    """Return files of one file system; a remote store gets all requests at once.

    Raises:
        FileNotFoundError: If a file does not exist.
    """
    paths, whole = [_opened(uri)[1] for uri in uris], [None] * len(uris)
    return [bytes(data) for data in _opened(uris[0])[0].cat_ranges(paths, whole, whole, on_error="raise")]


def write_bytes(uri: str, data: bytes, *, create: bool = False) -> None:
    """Write a file so that a reader sees the complete file or no file.

    An object store guarantees this. On the local disk, the file is written under a temporary name and renamed.

    Raises:
        FileExistsError: If the file exists and `create` is true.
        OSError: If the disk does not accept the file; the error names the file, and nothing is left of it.
    """
    fs, path = open_fs(uri)
    if not is_local(fs):
        fs.pipe_file(path, data, **({"mode": "create"} if create else {}))
        return
    with _replacing(path, create) as file:
        file.write(data)


@contextlib.contextmanager
def _replacing(path: str, create: bool) -> Iterator[BinaryIO]:
    """Yield a file under a temporary name that replaces `path` at the end of the block, or is deleted on an error.

    The file is locked while it is written, so that `sweep` knows whether its writer still lives.
    """
    with naming(path):
        temporary, file = _temporary(path)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                _rename(temporary, path, create)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.remove(temporary)
            raise


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Let an error of the disk name a path, if it names none: with an open file, it does not say which one it is."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, path) from error


def write_json(uri: str, value: Any) -> None:
    """Write a JSON document; a reader sees the complete document or none."""
    write_bytes(uri, json.dumps(value, indent=1, allow_nan=False).encode() + b"\n")


def upload(path: str, uri: str, *, create: bool = False) -> None:
    """Copy a file from the local disk to `uri`; a reader sees the complete file or no file.

    Raises:
        FileExistsError: If the file exists and `create` is true.
    """
    fs, target = open_fs(uri)
    if not is_local(fs):
        fs.put_file(path, target, **({"mode": "create"} if create else {}))
        return
    with open(path, "rb") as source, _replacing(target, create) as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _rename(temporary: str, path: str, create: bool) -> None:
    if not create:
        try:
            os.replace(temporary, path)
        except IsADirectoryError:
            raise NotAFileError(f"{path} is a folder, expected a file; delete it, {AGAIN}") from None
        return
    try:
        os.link(temporary, path)  # in contrast to a rename, this does not replace a file
    except FileExistsError:
        raise
    except OSError:  # a disk without hard links
        os.replace(temporary, path)
        return
    os.remove(temporary)


def check_writable(uri: str) -> None:
    """Create a folder on the local disk and check that it is writable; a remote folder is not checked.

    Raises:
        InputError: If the folder cannot be created or written to.
    """
    folder = local_path(uri) if protocol(uri) in ON_DISK else None
    if folder is None:
        return
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):  # another folder on the same disk would not help
            raise
        raise InputError(f"cannot write to {folder}: {error.strerror}; choose another root") from error
    if not os.access(folder, os.W_OK):
        reason = "the disk is read-only" if os.statvfs(folder).f_flag & os.ST_RDONLY else "permission denied"
        raise InputError(f"cannot write to {folder}: {reason}; choose a root that you may write to")


def _temporary(path: str) -> tuple[str, BinaryIO]:
    """Create the folder of `path` and a new locked file next to it, to write to before renaming."""
    check_writable(os.path.dirname(path))
    while True:
        temporary = f"{path}.{_machine()}-{uuid.uuid4().hex}.tmp"
        file = open(temporary, "xb")  # noqa: SIM115 (closed by the caller)
        if _hold(file.fileno()) and os.path.exists(temporary):  # else `sweep` deleted it before it was locked
            return temporary, file
        file.close()


@functools.cache
def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def sweep(uri: str, *, deep: bool = True) -> int:
    """Delete the temporary files that killed writers left in a folder on the local disk; return their number.

    A file is left alone while its writer lives. A writer on another machine counts as living for a day after its last
    write, because not every shared disk knows the locks of other machines.

    Args:
        uri: The folder. A remote folder has no temporary files: object stores write whole files.
        deep: Whether to look in the folders below it too.
    """
    path = local_path(uri) if protocol(uri) in ON_DISK else None
    if path is None:
        return 0
    swept = 0
    for folder, below, found in os.walk(path):
        if not deep:
            below.clear()
        for name in found:
            if match := _TEMPORARY.search(name):
                swept += _delete_abandoned(os.path.join(folder, name), match[1])
    return swept


def _delete_abandoned(path: str, machine: str) -> bool:
    try:
        if machine != _machine():
            abandoned = time.time() - os.stat(path).st_mtime > _DAY
            if abandoned:
                os.remove(path)
            return abandoned
        with _taken(path) as free:
            if free:
                os.remove(path)
            return free
    except OSError:  # renamed or deleted meanwhile, or a disk without locks
        return False


def _hold(file: int) -> bool:
    """Lock an open file until it is closed; return False if another process has locked it.

    The kernel releases the lock when the process ends in any way. On a file system without locks, the file stays
    unlocked and `_taken` raises, so every file counts as in use.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def _taken(path: str) -> Iterator[bool]:
    """Yield whether no living process has locked a file; it stays locked during the block, to be deleted.

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


def delete(uri: str) -> None:
    """Delete a file, if it exists."""
    fs, path = open_fs(uri)
    with contextlib.suppress(FileNotFoundError):  # another process may delete it at the same time
        if fs.exists(path):
            fs.rm_file(path)


def delete_folder(uri: str) -> None:
    """Delete a folder and everything in it, if it exists; several processes may do so at once."""
    fs, path = open_fs(uri)
    while fs.exists(path):
        with contextlib.suppress(FileNotFoundError):
            # Stores take the path for a pattern: without `escape`, a `?` in it would match other folders.
            fs.rm(path if is_local(fs) else glob.escape(path), recursive=True)
