"""Where results live: content-addressed folders on any fsspec file system, believed only once their manifest is there.

A stage writes to `address(...)`, its manifest last (`commit`). A reader trusts a folder only through `read_manifest`.
Nothing here knows what a stage computes.

Identity is what was decided (configuration, inputs, format version), never where it ran or under which path.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib import metadata
from typing import Any

import fsspec
from fsspec.core import url_to_fs
from fsspec.utils import get_protocol

from previts.errors import InputError

MANIFEST = "manifest.json"
# Folders up to these sizes are identified by their content, larger ones by names, sizes and the store's checksums.
HASHED_FILES, HASHED_BYTES = 10_000, 1 << 30


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


def plain(value: Any) -> Any:
    """Return `value` as JSON types, the same for the same decision.

    Raises:
        TypeError: For a type that has no single JSON form (sets, functions, arrays, ...).
        ValueError: For a float that is not finite.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a fingerprint needs finite numbers, got {value = }")
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"a fingerprint needs string keys, got {list(value)}")
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise TypeError(f"a fingerprint cannot cover {type(value).__name__}: {value!r}")


def fingerprint(value: Any) -> str:
    """Return 12 hex digits that name a decision: equal values give equal digits, in every process and for good."""
    canonical = json.dumps(plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def address(root: str, stage: str, label: str, decided: Mapping[str, Any]) -> str:
    """Return the folder for what `decided` decides: `{root}/{stage}/{label}-{fingerprint}`."""
    slug = re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-")
    return join(absolute(root), stage, f"{slug}-{fingerprint({'stage': stage, **decided})}")


@dataclass(frozen=True)
class Manifest:
    """What a finished folder holds and what it was made of; its presence is what makes the folder finished.

    `inputs` maps a name to the URI it was read from, relative to the folder where both lie under one root, so that a
    root can be moved or copied.
    """

    stage: str
    fingerprint: str
    decided: dict[str, Any]
    inputs: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int | float] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    code_version: str = ""


def code_version() -> str:
    """Return the installed version of previts."""
    try:
        return metadata.version("previts")
    except metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return "0+checkout"


def commit(
    uri: str,
    decided: Mapping[str, Any],
    *,
    inputs: Mapping[str, str] | None = None,
    counts: Mapping[str, int | float] | None = None,
    info: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write the manifest of a folder whose files are all there; only now do readers believe it."""
    stage, name = uri.rstrip("/").rsplit("/", 2)[-2:]
    manifest = Manifest(
        stage=stage,
        fingerprint=name.rsplit("-", 1)[-1],
        decided=plain(decided),
        inputs={key: _relative(value, uri) for key, value in (inputs or {}).items()},
        counts=dict(counts or {}),
        info=plain(info or {}),
        code_version=code_version(),
    )
    write_json(join(uri, MANIFEST), asdict(manifest))
    return manifest


def is_committed(uri: str) -> bool:
    """Return whether the folder at `uri` is finished; a damaged manifest makes it unfinished, so it is made again."""
    try:
        return isinstance(read_json(join(uri, MANIFEST)), dict)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def read_manifest(uri: str) -> Manifest:
    """Return the manifest of a finished folder, its inputs as absolute URIs.

    Raises:
        InputError: If there is no manifest: the stage did not finish, or the URI names something else.
    """
    try:
        document = read_json(join(uri, MANIFEST))
    except FileNotFoundError:
        raise InputError(
            f"{uri} has no {MANIFEST}: the stage that writes it has not finished, or the URI is not one of a stage; "
            "run that stage (again), or give the URI that it printed"
        ) from None
    except ValueError as error:
        raise InputError(f"{join(uri, MANIFEST)} is damaged ({error}); run the stage that writes it again") from None
    try:
        manifest = Manifest(**document)
    except TypeError:
        raise InputError(
            f"{join(uri, MANIFEST)} is not a manifest of previts; delete it and run the stage that writes it again"
        ) from None
    manifest.inputs.update({key: _resolve(value, uri) for key, value in manifest.inputs.items()})
    return manifest


def ancestor(uri: str, *inputs: str) -> str:
    """Return the URI of what an output was made of: its input of the first name, that one's of the second, and so on.

    Raises:
        InputError: If an output on the way is gone.
        KeyError: If one has no input of that name.
    """
    for name in inputs:
        uri = read_manifest(uri).inputs[name]
    return uri


def fingerprint_of(uri: str, stage: str) -> str:
    """Return the fingerprint in the address of a stage's output, finished or not.

    Raises:
        InputError: If the URI is not the address of an output of that stage.
    """
    match = re.search(rf"/{stage}/[^/]*-([0-9a-f]{{12}})/?$", absolute(uri))
    if not match:
        raise InputError(
            f"{uri} is not an output of stage {stage!r}: expected {{root}}/{stage}/{{label}}-{{fingerprint}}"
        )
    return match[1]


def identity(uri: str) -> str:
    """Return what is at `uri`, whatever its path: a stage's fingerprint, else a digest of the content.

    A folder above 10,000 files or 1 GiB is identified by names, sizes and the checksums that its store lists; on a
    local disk that misses a file replaced by another of equal size.

    Raises:
        InputError: If there is nothing at `uri`.
    """
    if is_committed(uri):
        return read_manifest(uri).fingerprint
    fs, path = open_fs(uri)
    if fs.isfile(path):
        return _content_digest(fs, path)
    found = {name: info for name, info in fs.find(path, detail=True).items() if info["type"] == "file"}
    if not found:
        raise InputError(f"there is nothing at {uri}; give a file or a folder that exists")
    small = len(found) <= HASHED_FILES and sum(info["size"] for info in found.values()) <= HASHED_BYTES
    root = path.rstrip("/") + "/"
    listing = []
    for name, info in sorted(found.items()):
        stamp = next((str(info[key]) for key in ("md5Hash", "crc32c", "ETag", "etag") if info.get(key)), "")
        if not stamp and small:
            stamp = _content_digest(fs, name)
        listing.append([name.removeprefix(root), info["size"], stamp])
    return fingerprint(listing)


def _content_digest(fs: fsspec.AbstractFileSystem, path: str) -> str:
    digest = hashlib.sha256()
    with fs.open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:12]


def _relative(target: str, uri: str) -> str:
    """Return `target` relative to the folder `uri` where both lie under one root (`root/stage/name`), else as it is."""
    target, root = absolute(target), absolute(uri).rsplit("/", 2)[0]
    return f"../../{target.removeprefix(root + '/')}" if target.startswith(root + "/") else target


def _resolve(target: str, uri: str) -> str:
    return (
        join(absolute(uri).rsplit("/", 2)[0], target.removeprefix("../../")) if target.startswith("../../") else target
    )
