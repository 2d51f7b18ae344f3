"""The outputs of several crawls as one output: a folder that lists its members, the output of each single crawl.

A corpus may be many crawls, and grows. Each crawl is downloaded, and its objects are found and tracked, once; the
output of the corpus only lists these results. Its list is written before they exist, because the next stage may start
on some crawls while this one works on others. This module reads no videos.
"""

import itertools
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from previts.errors import InputError
from previts.storage import files, folders
from previts.storage.documents import from_json, parse_json

MEMBERS = "members.json"
_AGAIN = f"delete it and {folders.MANIFEST} next to it, and run the stage that writes it again"
_AT_ONCE = 32  # manifests that are read at once


@dataclass(frozen=True)
class Member:
    """The output of one crawl: its URI and the number of its shards."""

    uri: str
    shards: int


@dataclass(frozen=True)
class _Document:
    members: list[Member]


def write(uri: str, members: Sequence[Member]) -> None:
    """Write the list of members of an output; every process of the same stage writes the same list."""
    listed = [{"uri": folders.relative(member.uri, uri), "shards": member.shards} for member in members]
    path, document = files.join(uri, MEMBERS), {"members": listed}
    if not files.exists(path) or files.read_bytes(path) != _encoded(document):
        files.write_bytes(path, _encoded(document))


def _encoded(document: object) -> bytes:
    return json.dumps(document, indent=1).encode() + b"\n"


def read(uri: str) -> list[Member]:
    """Return the members of an output, in the order of the crawls; an output of a single crawl is its only member.

    Raises:
        InputError: If the list is damaged, or the output of a single crawl is not finished.
    """
    try:
        data = folders.read_file(uri, MEMBERS)
    except (FileNotFoundError, NotADirectoryError):
        from previts.storage import tables

        return [Member(files.absolute(uri), tables.shard_count(uri))]
    path = files.join(uri, MEMBERS)
    found = from_json(_Document, parse_json(data, path, _AGAIN), path, _AGAIN).members
    if not found or min(member.shards for member in found) < 1:
        raise InputError(f"{path}: expected at least one member with at least one shard; {_AGAIN}")
    return [Member(folders.resolve(member.uri, uri), member.shards) for member in found]


def uris(uri: str) -> list[str]:
    """Return the URIs of the members of an output, which may be unfinished.

    Raises:
        InputError: If the list is damaged.
    """
    try:
        folders.read_file(uri, MEMBERS)
    except (FileNotFoundError, NotADirectoryError):
        return [files.absolute(uri)]
    return [member.uri for member in read(uri)]


def starts(members: Sequence[Member]) -> list[int]:
    """Return for each member the number of shards of the members before it."""
    return list(itertools.accumulate((member.shards for member in members[:-1]), initial=0))


def are_finished(found: Sequence[str]) -> list[bool]:
    """Return which results are finished; an object store gets many requests at once."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(folders.is_committed, found))


def combine(found: Sequence[str]) -> tuple[dict[str, int | float], list[folders.Manifest]]:
    """Return the counts of finished results, summed, with the number of `crawls`; and the manifests of the results."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        manifests = list(pool.map(folders.read_manifest, found))
    counts: dict[str, int | float] = {"crawls": len(manifests)}
    for manifest in manifests:
        for name, value in manifest.counts.items():
            counts[name] = round(counts.get(name, 0) + value, 4)
    return counts, manifests
