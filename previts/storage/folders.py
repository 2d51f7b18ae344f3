"""Result folders: their URIs, computed from settings and inputs, and the manifest that marks them as finished.

A stage writes its files to `address(...)` and its manifest last (`commit`). Readers open a folder through
`read_manifest`; a folder without a manifest is treated as incomplete.

The identity of a result is what was decided: configuration, inputs, format version. Where it ran and its path do not
count.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

import fsspec

from previts.errors import InputError
from previts.storage import fences
from previts.storage.files import absolute, join, open_fs, read_json, write_json
from previts.storage.fingerprints import fingerprint, plain

MANIFEST = "manifest.json"
# Folders up to these sizes are identified by their content, larger ones by names, sizes and the store's checksums.
HASHED_FILES, HASHED_BYTES = 10_000, 1 << 30


def address(root: str, stage: str, label: str, decided: Mapping[str, Any]) -> str:
    """Return the URI of a result folder, `{root}/{stage}/{label}-{fingerprint}`; `decided` gives the fingerprint."""
    slug = re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-")
    return join(absolute(root), stage, f"{slug}-{fingerprint({'stage': stage, **decided})}")


@dataclass(frozen=True)
class Manifest:
    """The content and the inputs of a result folder; a folder with a manifest is finished.

    `inputs` maps a name to the URI that the stage read. On disk, the URI is relative to the folder if both are under
    one root, so that a root can be moved or copied.
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
    """Write the manifest of a folder after all its files; from now on it counts as finished."""
    fences.check(uri)
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
    """Return whether the folder at `uri` is finished; one with a damaged manifest is not, so its stage runs again."""
    try:
        return isinstance(read_json(join(uri, MANIFEST)), dict)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def read_manifest(uri: str) -> Manifest:
    """Return the manifest of a finished folder, its inputs as absolute URIs.

    Raises:
        InputError: If the manifest is missing (the stage did not finish, or the URI is wrong) or damaged.
    """
    try:
        document = read_json(join(uri, MANIFEST))
    except FileNotFoundError:
        raise InputError(
            f"{uri} has no {MANIFEST}: the stage that writes it has not finished, or the URI is not the output of a "
            "stage; run that stage (again), or give the URI that it printed"
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
    """Return the URI of an input of an input: follow the named inputs from a result folder, one after another.

    Raises:
        InputError: If a folder on the way no longer exists.
        KeyError: If a folder on the way has no input of that name.
    """
    for name in inputs:
        uri = read_manifest(uri).inputs[name]
    return uri


def fingerprint_of(uri: str, stage: str) -> str:
    """Return the fingerprint in the address of a stage's output; the output may be unfinished.

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
    """Return the identity of what is at `uri`: the fingerprint of a stage's output, else a digest of the content.

    The path does not count. A folder above 10,000 files or 1 GiB is identified by names, sizes and the checksums that
    its store lists. On the local disk this misses a file that was replaced by another of the same size.

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
    """Return `target` relative to the folder `uri` (`root/stage/name`) if it is under the same root, else unchanged."""
    target, root = absolute(target), absolute(uri).rsplit("/", 2)[0]
    return f"../../{target.removeprefix(root + '/')}" if target.startswith(root + "/") else target


def _resolve(target: str, uri: str) -> str:
    """Return the absolute URI of a target that `_relative` returned."""
    if not target.startswith("../../"):
        return target
    return join(absolute(uri).rsplit("/", 2)[0], target.removeprefix("../../"))
