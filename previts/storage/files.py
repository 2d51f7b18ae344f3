"""Where results live: content-addressed folders on any fsspec file system, believed only once their manifest is there.

A stage writes to `address(...)`, its manifest last (`commit`). A reader trusts a folder only through `read_manifest`.
Nothing here knows what a stage computes.

Identity is what was decided (configuration, inputs, format version), never where it ran or under which path.
"""

import contextlib
import functools
import json
import os
import uuid
from collections.abc import Sequence
from typing import Any

import fsspec
from fsspec.core import url_to_fs
from fsspec.utils import get_protocol

from previts.errors import InputError


def open_fs(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URI and the path in it; a bare path is a local file.

    Raises:
        InputError: If the protocol is unknown or its library is not installed.
    """
    if not uri:
        raise InputError("an empty URI was given; expected a path, file://, gs://, s3:// or memory://")
    try:
        fs, path = url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise InputError(
            f"cannot open {uri!r}: {error}; expected a path, file://, gs://, s3:// or memory://"
        ) from error
    return fs, path


def join(uri: str, *parts: str) -> str:
    """Return the URI of something below `uri`."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def absolute(uri: str) -> str:
    """Return a URI that means the same in every process: local paths absolute and bare, others as they are."""
    if get_protocol(uri) != "file":  # without opening it: some stores look for credentials for many seconds
        return uri.rstrip("/")
    return str(open_fs(uri)[1])


def is_local(fs: fsspec.AbstractFileSystem) -> bool:
    """Return whether the file system is this machine's disk."""
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def local_path(uri: str) -> str | None:
    """Return the path of a URI on this machine's disk, or None if it lies elsewhere."""
    fs, path = open_fs(uri)
    return path if is_local(fs) else None


def exists(uri: str) -> bool:
    """Return whether there is a file or a folder at `uri`."""
    fs, path = open_fs(uri)
    return bool(fs.exists(path))


def names(uri: str) -> list[str]:
    """Return the sorted names directly below a folder, or nothing where there is no folder."""
    fs, path = open_fs(uri)
    fs.invalidate_cache(path)
    try:
        return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in fs.ls(path, detail=False))
    except FileNotFoundError:
        return []


def read_bytes(uri: str, start: int | None = None, stop: int | None = None) -> bytes:
    """Return the bytes [start, stop) of a file, the whole of it by default."""
    fs, path = open_fs(uri)
    return bytes(fs.cat_file(path, start=start, end=stop))


def write_bytes(uri: str, data: bytes) -> None:
    """Write a file so that a reader sees all of it or none.

    Object stores do that by themselves; on a disk the file is moved into place.
    """
    fs, path = open_fs(uri)
    if not is_local(fs):
        fs.pipe_file(path, data)
        return
    temporary = _temporary(path)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        raise


def delete(uri: str) -> None:
    """Remove one file, if it is there."""
    fs, path = open_fs(uri)
    if fs.exists(path):
        fs.rm_file(path)


def delete_folder(uri: str) -> None:
    """Delete whatever lies below `uri`; nothing there is fine."""
    fs, path = open_fs(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def upload(path: str, uri: str) -> None:
    """Put a file of this machine's disk to `uri`, whole or not at all."""
    fs, target = open_fs(uri)
    if not is_local(fs):
        fs.put_file(path, target)
        return
    temporary = _temporary(target)
    fs.put_file(path, temporary)
    os.replace(temporary, target)


def check_writable(uri: str) -> None:
    """Make sure that a folder can be written to; on this machine's disk it is made.

    Raises:
        InputError: If it cannot.
    """
    folder = local_path(uri) if get_protocol(uri) == "file" else None
    if folder is None:
        return
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; choose a root that you may write to") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write to {folder}: permission denied; choose a root that you may write to")


def _temporary(path: str) -> str:
    """Return a name beside `path`, in a folder that exists, to write under before moving into place."""
    check_writable(os.path.dirname(path))
    return f"{path}.{uuid.uuid4().hex}.tmp"


def read_json(uri: str) -> Any:
    """Return the JSON document at `uri`."""
    return json.loads(read_bytes(uri))


def write_json(uri: str, value: Any) -> None:
    """Write a JSON document, whole or not at all."""
    write_bytes(uri, json.dumps(value, indent=1, allow_nan=False).encode() + b"\n")


def read_ranges(uri: str, starts: Sequence[int], stops: Sequence[int]) -> list[bytes]:
    """Return ranges of bytes of one file; a remote store is asked for all at once.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    fs, path = _opened(uri)
    if not is_local(fs):
        return [bytes(block) for block in fs.cat_ranges([path] * len(starts), starts, stops, on_error="raise")]
    file = os.open(path, os.O_RDONLY)
    try:
        return [os.pread(file, stop - start, start) for start, stop in zip(starts, stops, strict=True)]
    finally:
        os.close(file)


# A loader asks for the same few thousand files again and again.
_opened = functools.lru_cache(maxsize=4096)(open_fs)
