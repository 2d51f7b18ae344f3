"""Result folders: their URIs, computed from settings and inputs, and the manifest that marks them as finished.

A stage writes its files to `address(...)` and its manifest last (`commit`). Readers open a folder through
`read_manifest`, and its files through `read_file`; a folder without a manifest is treated as incomplete.

The identity of a result is what was decided: configuration, inputs, format version. Where it ran and its path do not
count. What is read is checked along a chain: the address contains the fingerprint of what was decided, the manifest
contains what was decided and the digests of its files, and a table contains the checksums of the ranges in its tar.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

import fsspec

from previts import origin
from previts.errors import InputError
from previts.storage import fences
from previts.storage.documents import from_json, parse_json
from previts.storage.files import (
    NotAFileError,
    absolute,
    check_regular,
    join,
    open_fs,
    read_bytes,
    read_whole,
    write_json,
)
from previts.storage.fingerprints import fingerprint, plain

MANIFEST = "manifest.json"
# Folders up to these sizes are identified by their content, larger ones by names, sizes and the store's checksums.
HASHED_FILES, HASHED_BYTES = 10_000, 1 << 30
_AT_ONCE = 32  # files that `commit` asks a store for at once

_AGAIN = f"delete {MANIFEST} and run the stage that writes it again"
_digests: dict[str, dict[str, str]] = {}  # of the files of the finished folders whose manifests were read, by URI


def address(root: str, stage: str, label: str, decided: Mapping[str, Any]) -> str:
    """Return the URI of a result folder, `{root}/{stage}/{label}-{fingerprint}`; `decided` gives the fingerprint."""
    slug = re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-")
    return join(absolute(root), stage, f"{slug}-{_fingerprint(stage, decided)}")


def _fingerprint(stage: str, decided: Mapping[str, Any]) -> str:
    return fingerprint({"stage": stage, **decided})


def place(uri: str) -> str:
    """Return what a file keeps when its root is moved: the fingerprint of its result folder, and its name in there.

    Outside a folder with a fingerprint, this is the name of the file.
    """
    match = re.search(r".*-([0-9a-f]{12}/.*)", uri)
    return match[1] if match else uri.rsplit("/", 1)[-1]


def is_at(recorded: str, uri: str) -> bool:
    """Return whether a file whose `place` was recorded is the file at `uri`; its user may have renamed its folder."""
    *_, folder, name = f"/{uri}".rsplit("/", 2)
    return place(uri) == recorded or (not _named(folder) and recorded.rsplit("/", 1)[-1] == name)


class UnfinishedError(InputError):
    """A folder has no manifest."""


@dataclass(frozen=True)
class Manifest:
    """The content and the inputs of a result folder; a folder with a manifest is finished.

    Attributes:
        stage: The stage that wrote the folder.
        fingerprint: Computed from the stage and `decided`; the name of the folder ends with it.
        decided: Settings, identities of the inputs and version of the format.
        inputs: The URI of each input that the stage read. On disk, the URI is relative to the folder if both are under
            one root, so that a root can be moved or copied.
        counts: What the folder contains, in numbers.
        files: SHA-256 of each file that a later stage reads whole, by its path in the folder.
        info: Remarks.
        code_version: Version of previts that wrote the folder.
        made_by: What is known of the code's revision, the image and the pipeline run (`origin.made_by`).
        checksum: Fingerprint of all other fields, as they are on disk.
    """

    stage: str
    fingerprint: str
    decided: dict[str, Any]
    inputs: dict[str, str]
    counts: dict[str, int | float]
    files: dict[str, str]
    info: dict[str, Any]
    code_version: str
    made_by: dict[str, str] = field(default_factory=dict)
    checksum: str = field(default="", repr=False)

    @property
    def errors(self) -> dict[str, int]:
        """How many videos failed for each reason, if the stage recorded that in `info`."""
        found = self.info.get("errors")
        return {name: n for name, n in found.items() if type(n) is int} if isinstance(found, dict) else {}


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
    files: Iterable[str] = (),
) -> Manifest:
    """Write the manifest of a folder after all its files; from now on it counts as finished.

    Args:
        uri: The folder.
        decided: What its address was computed from.
        inputs: URIs of what the stage read, by name.
        counts: Numbers that describe the content.
        info: Remarks; JSON types only.
        files: Paths of the files in the folder that a later stage reads with `read_file`. Each is read once.

    Raises:
        LostError: If another process has taken over the work on the folder.
        ValueError: If the address of the folder was computed from something else, or a number is not finite.
    """
    fences.check(uri)
    stage, name = uri.rstrip("/").rsplit("/", 2)[-2:]
    manifest = Manifest(
        stage=stage,
        fingerprint=_fingerprint(stage, decided),
        decided=plain(decided),
        inputs={key: relative(value, uri) for key, value in (inputs or {}).items()},
        counts=plain(counts or {}),
        files=_digests_of(uri, sorted(files)),
        info=plain(info or {}),
        code_version=code_version(),
        made_by=origin.made_by(),
    )
    if _named(name) not in ("", manifest.fingerprint):
        raise ValueError(f"{uri} was not computed from these decisions, whose fingerprint is {manifest.fingerprint}")
    document = asdict(manifest)
    document["checksum"] = _checksum(document)
    write_json(join(uri, MANIFEST), document)
    _digests.pop(absolute(uri), None)
    return manifest


def list_again(uri: str, name: str, digest: str) -> None:
    """Change the digest of a file in the manifest of a finished folder, after a part of the file was erased."""
    read_manifest(uri)  # it is accepted as it is
    fences.check(uri)
    path = join(uri, MANIFEST)
    document = parse_json(read_bytes(path), path, _AGAIN)
    document["files"][name] = digest
    document["checksum"] = _checksum(document)
    write_json(path, document)
    _digests.pop(absolute(uri), None)


def _digests_of(uri: str, paths: list[str]) -> dict[str, str]:
    found = {}
    for start in range(0, len(paths), _AT_ONCE):
        some = paths[start : start + _AT_ONCE]
        for path, data in zip(some, read_whole([join(uri, path) for path in some]), strict=True):
            found[path] = hashlib.sha256(data).hexdigest()
    return found


def _checksum(document: Mapping[str, Any]) -> str:
    return fingerprint({key: value for key, value in document.items() if key != "checksum"})


def _named(name: str) -> str:
    """Return the fingerprint at the end of a folder's name, or "" if there is none: the user may have renamed it."""
    match = re.search(r"-([0-9a-f]{12})$", name)
    return match[1] if match else ""


def is_committed(uri: str) -> bool:
    """Return whether the folder at `uri` is finished; one with a damaged manifest is not, so its stage runs again.

    Raises:
        NotAFileError: If the manifest is a folder, which the stage could not replace, or a pipe.
    """
    try:
        read_manifest(uri)
    except NotAFileError:
        raise
    except InputError:
        return False
    return True


def damage(uri: str) -> str:
    """Return why the manifest of a folder is not accepted; "" if it is accepted, or there is none."""
    try:
        read_manifest(uri)
    except UnfinishedError:
        return ""
    except InputError as error:
        return str(error)
    return ""


def read_manifest(uri: str) -> Manifest:
    """Return the manifest of a finished folder, its inputs as absolute URIs.

    Raises:
        UnfinishedError: If the manifest is missing: the stage did not finish, or the URI is wrong.
        InputError: If it is damaged, was edited, or belongs to another folder.
    """
    path = join(uri, MANIFEST)
    try:
        check_regular(path, _AGAIN)
        document = parse_json(read_bytes(path), path, _AGAIN)
    except (FileNotFoundError, NotADirectoryError):
        raise UnfinishedError(
            f"{uri} has no {MANIFEST}: the stage that writes it has not finished, or the URI is not the output of a "
            "stage; run that stage (again), or give the URI that it printed"
        ) from None
    if isinstance(document, dict) and "decided" in document and "checksum" not in document:
        raise InputError(
            f"{path} was written by an earlier version of previts; run the stage that writes it again, which stores "
            "its result at a new address, or use that version"
        )
    manifest = from_json(Manifest, document, path, f"this is not a manifest of previts; {_AGAIN}")
    if _checksum(document) != manifest.checksum:
        raise InputError(f"{path} was changed after it was written (its checksum differs); {_AGAIN}")
    expected = _fingerprint(manifest.stage, manifest.decided)
    stage, name = absolute(uri).rsplit("/", 2)[-2:]
    named = _named(name)
    if manifest.fingerprint != expected or (named and (stage, named) != (manifest.stage, expected)):
        raise InputError(
            f"{path} belongs to another folder: its stage {manifest.stage!r} and its decisions give the fingerprint "
            f"{expected}, but it is in {stage}/{name}; {_AGAIN}"
        )
    _digests[absolute(uri)] = manifest.files
    inputs = {key: resolve(value, uri) for key, value in manifest.inputs.items()}
    return dataclasses.replace(manifest, inputs=inputs)


def read_file(uri: str, name: str) -> bytes:
    """Return a file of a result folder; in a finished folder it must be the file that the stage wrote.

    Args:
        uri: The folder. While it is not finished, the file is not checked.
        name: Path of the file in the folder.

    Raises:
        FileNotFoundError: If the file does not exist.
        InputError: If the folder is finished and the file is another one, or there is no file but a folder or a pipe.
    """
    path = join(uri, name)
    check_regular(path)
    data = read_bytes(path)
    check_file(uri, name, data)
    return data


def check_file(uri: str, name: str, data: bytes) -> None:
    """Raise an InputError if `data` is not the file that a finished folder lists under a name; see `read_file`."""
    digest, folder = hashlib.sha256(data).hexdigest(), absolute(uri)
    if _digests.get(folder, {}).get(name) == digest:
        return
    try:
        manifest = read_manifest(uri)  # (again): the folder may have been made again since
    except UnfinishedError:
        return
    if manifest.files.get(name) != digest:
        what = "was changed" if name in manifest.files else "was added"
        raise InputError(
            f"{join(uri, name)} {what} after {MANIFEST} was written; delete both "
            "and run the stage that writes them again"
        )


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


def relative(target: str, uri: str) -> str:
    """Return `target` relative to the folder `uri` (`root/stage/name`) if it is under the same root, else unchanged."""
    target, root = absolute(target), absolute(uri).rsplit("/", 2)[0]
    return f"../../{target.removeprefix(root + '/')}" if target.startswith(root + "/") else target


def resolve(target: str, uri: str) -> str:
    """Return the absolute URI of a target that `relative` returned."""
    if not target.startswith("../../"):
        return target
    return join(absolute(uri).rsplit("/", 2)[0], target.removeprefix("../../"))
