"""The identity of a crawl and of each of its videos, computed without fetching anything.

PreViTS section 4.1 names its videos by addresses, and what is behind an address may change. Equal identities mean equal
videos, as far as this can be known without fetching them. This module reads local files and listings of stores.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace

from previts.errors import InputError, VideoError
from previts.ingest import crawls, sources
from previts.ingest.crawls import CrawlItem, Found
from previts.ingest.sources import LocalFile, StoredObject
from previts.storage import fingerprints, folders
from previts.storage.files import absolute, open_fs
from previts.storage.listings import Folders

HASH_SECONDS = 3600.0  # longest time for reading the local files of a crawl to identify them


def read_identified(uri: str, known: Folders | None = None, found: Found | None = None) -> list[CrawlItem]:
    """Return the videos of a crawl, each with the identity of its source and window; "" for a broken line.

    A video counts in one of three ways:

    - A file on this machine: by its content, or by its size if the files are more than `folders.HASHED_FILES` or larger
      than `folders.HASHED_BYTES` in total.
    - An object below the crawl's folder in the same store: by its name, and the size and checksum that the store lists.
    - Anything else: by its address.

    Args:
        uri: The crawl.
        known: Folders that were listed before.
        found: What `crawls.find` returned.

    Raises:
        InputError: As of `crawls.read_crawl`, or if reading the local files takes more than `HASH_SECONDS`.
    """
    known, found = known or Folders(), found or crawls.find(uri)
    return _identify(crawls.read_crawl(uri, known, found), uri, known, is_folder=found.is_folder)


def _identify(items: Sequence[CrawlItem], uri: str, known: Folders, *, is_folder: bool) -> list[CrawlItem]:
    _, path = open_fs(uri)
    root = path.rstrip("/") if is_folder else path.rsplit("/", 1)[0]
    local: dict[str, tuple[LocalFile, int]] = {}
    stored: dict[str, str] = {}
    store = sources.OBJECT_STORES.get(uri.split("://", 1)[0].lower(), "")
    for item in items:
        found = _source(item)
        if isinstance(found, LocalFile) and os.path.isfile(found.path):
            local[item.url] = found, os.stat(found.path).st_size
        elif isinstance(found, StoredObject) and found.uri.startswith(f"{store}://"):
            stored[item.url] = open_fs(found.uri)[1]
    total = sum(size for _, size in local.values())
    small = len(local) <= folders.HASHED_FILES and total <= folders.HASHED_BYTES
    listed: dict[str, list[object]] = {}
    if any(name.startswith(root + "/") for name in stored.values()):
        for name, info in known.files(uri if is_folder else absolute(uri).rsplit("/", 1)[0]).items():
            stamp = next((info[key] for key in ("md5Hash", "crc32c", "ETag", "etag") if info.get(key)), "")
            listed[name] = [int(info["size"]), str(stamp)]
    deadline = time.monotonic() + HASH_SECONDS
    digests = {url: _digest(*found, deadline) for url, found in local.items()} if small else {}
    identified = []
    for item in items:
        place = stored.get(item.url) or item.url.removeprefix("file://")
        address: object = place.removeprefix(root + "/")
        size: object = listed.get(place)
        if item.url in local:
            digest = digests.get(item.url)
            address, size = ("", digest) if digest else (address, local[item.url][1])
        source = json.dumps([address, item.start_seconds, item.end_seconds, size])
        identity = "" if item.fault else hashlib.sha256(source.encode()).hexdigest()[:32]
        identified.append(replace(item, identity=identity))
    return identified


def crawl_identity(items: Sequence[CrawlItem]) -> str:
    """Return the fingerprint of a crawl: of its lines and its identified videos, but not of where it is stored."""
    return fingerprints.fingerprint(
        [[item.video_id, item.identity, item.label, item.split, item.fault] for item in items]
    )


def _source(item: CrawlItem) -> object:
    if item.url.startswith(("http://", "https://")):  # most of a million videos; to parse an address takes long
        return None
    try:
        return None if item.fault else sources.source_of(item.url, item.reach)
    except VideoError:
        return None  # a failed entry, with this reason


def _digest(source: LocalFile, size: int, deadline: float) -> str:
    """Return the SHA-256 of the first `size` bytes of a file, or "" if it cannot be read.

    Raises:
        InputError: If the deadline is over.
    """
    digest, left = hashlib.sha256(), size
    try:
        with sources.open_file(source) as content:
            while left and (block := content.read(min(left, 1 << 20))):
                digest.update(block)
                left -= len(block)
                if time.monotonic() > deadline:
                    raise InputError(
                        f"reading the local files of the crawl took more than {HASH_SECONDS:g} s, at {source.path}; "
                        "copy them to a faster disk"
                    )
    except (VideoError, OSError):
        return ""
    return digest.hexdigest()
