"""The outputs of several crawls as one output: a folder that lists its members, the output of each single crawl.

A corpus may be many crawls, and grows. Each crawl is downloaded, and its objects are found and tracked, once; the
output of the corpus only lists these results. Its list is written before they exist, because the next stage may start
on some crawls while this one works on others. This module reads no videos.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from previts.errors import InputError
from previts.processes import prefetch
from previts.storage import files, folders
from previts.storage.documents import from_json, parse_json

MEMBERS = "members.json"
_AGAIN = f"delete it and {folders.MANIFEST} next to it, and run the stage that writes it again"

Value = TypeVar("Value")


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
    found = _listed(uri)
    if found is None:
        from previts.storage import tables

        return [Member(files.absolute(uri), tables.shard_count(uri))]
    return found


def _listed(uri: str) -> list[Member] | None:
    """Return the members in the list of an output; None if it has no list."""
    try:
        data = folders.read_file(uri, MEMBERS)
    except (FileNotFoundError, NotADirectoryError):
        return None
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
    found = _listed(uri)
    return [files.absolute(uri)] if found is None else [member.uri for member in found]


def starts(members: Sequence[Member]) -> list[int]:
    """Return for each member the number of shards of the members before it."""
    return list(itertools.accumulate((member.shards for member in members[:-1]), initial=0))


def are_finished(found: Sequence[str]) -> list[bool]:
    """Return which results are finished; an object store gets many requests at once."""
    return list(prefetch.requested(found, folders.is_committed))


def manifests(found: Sequence[str]) -> list[folders.Manifest]:
    """Return the manifests of finished results; an object store gets many requests at once.

    Raises:
        InputError: If a result is not finished.
    """
    return list(prefetch.requested(found, folders.read_manifest))


def each_shard(found: Sequence[Member], read: Callable[[int, int], Value]) -> Iterator[tuple[int, Value]]:
    """Yield the number of the member and what `read` returns, for each shard of each finished member, in order.

    An object store gets many requests at once. The memory is that of a few shards.

    Args:
        found: The members.
        read: Reads a shard, given the number of the member and the number of the shard.

    Raises:
        InputError: If a member is not finished, or as of `read`.
    """
    manifests([member.uri for member in found])  # so that the digests of the tables are known
    places = ((number, shard) for number, member in enumerate(found) for shard in range(member.shards))
    yield from prefetch.requested(places, lambda place: (place[0], read(*place)))


def combine(found: Sequence[str]) -> tuple[dict[str, int | float], list[folders.Manifest]]:
    """Return the counts of finished results, summed, with the number of `crawls`; and the manifests of the results."""
    combined = manifests(found)
    counts: dict[str, int | float] = {"crawls": len(combined)}
    for manifest in combined:
        for name, value in manifest.counts.items():
            counts[name] = round(counts.get(name, 0) + value, 4)
    return counts, combined
