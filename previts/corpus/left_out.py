"""Which videos of a corpus an index leaves out for what they show, before any filter looks at their tubes.

Not in the paper, whose corpora were made once. A corpus that grows meets the same video again, under another name or
changed. It also meets videos that a benchmark tests with. This module reads tables; it reads no pixels.
"""

import itertools
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from previts.config.perception import FilterConfig
from previts.corpus import copies, members, video_table
from previts.corpus.quality import Key, LeftOut
from previts.corpus.withdrawals import Ledger
from previts.storage import files, tables
from previts.storage.tables import Count, Positive

LEAKS = "leaks.parquet"
_SOURCE = ("source_sha256", "start_seconds", "end_seconds")
_WORDS = {"same id": "same id as", "same bytes": "same file as", "near duplicate": "shows the same as"}


@dataclass(frozen=True)
class Leak:
    """A video that shows something of a held-out item.

    Attributes:
        crawl: Number of its crawl in the corpus.
        video_id: Its id.
        shows: Name of the item, such as ucf101/v_Basketball_g01_c01.
        distance: Of their frames, in bits of 128.
    """

    crawl: Count
    video_id: str
    shows: str
    distance: Positive


def find_left_out(
    videos_uri: str, config: FilterConfig, leaks: Sequence[Leak] = (), ledger: Ledger | None = None
) -> Mapping[Key, LeftOut]:
    """Return the videos that were withdrawn with their copies, those that are copies of older ones, and the leaks.

    Videos of an earlier crawl are older, and in a crawl those that it names first.

    Args:
        videos_uri: The videos of the corpus.
        config: The filter. With duplicates="keep", only videos with the id of an older one are left out: the ids of an
            index differ.
        leaks: What `find_leaks` returned for the videos.
        ledger: Withdrawals.

    Raises:
        InputError: If a table is missing or damaged.
    """
    left_out = _withdrawn(videos_uri, ledger) if ledger else {}
    left_out |= _copies(videos_uri, config.duplicates, left_out)
    of_video: dict[Key, list[Leak]] = {}
    for leak in leaks:
        of_video.setdefault((leak.crawl, leak.video_id), []).append(leak)
    for key, found in of_video.items():
        nearest = min(found, key=lambda leak: (leak.distance, leak.shows))
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        left_out.setdefault(key, LeftOut("leak", f"shows {nearest.shows}{more}"))
    return left_out


def find_leaks(videos_uri: str, config: FilterConfig, names: Sequence[str], hashes: Sequence[bytes]) -> list[Leak]:
    """Return which videos of a corpus show something of held-out items, sorted by video and item.

    Videos that the filter leaves out as copies are not compared.

    Args:
        videos_uri: The videos of the corpus.
        config: The filter.
        names: Names of the items.
        hashes: Hashes of the items (`media.frame_hashes`).

    Raises:
        InputError: If a table is missing or damaged.
    """
    keys: list[Key] = []
    videos = _read_videos(videos_uri, "near", keys, _copies(videos_uri, config.duplicates))
    found = copies.find_matches((video.hashes for video in videos), hashes)
    return [Leak(*keys[match.video], names[match.reference], match.distance) for match in found]


def identity(leaks: Sequence[Leak]) -> list[list[int | str]]:
    """Return the videos that are leaks, sorted: number of the crawl, and id."""
    return [[crawl, video_id] for crawl, video_id in sorted({(leak.crawl, leak.video_id) for leak in leaks})]


def write_leaks(uri: str, leaks: Sequence[Leak]) -> None:
    """Write leaks to the table in a folder."""
    tables.write_records(files.join(uri, LEAKS), Leak, leaks)


def read_leaks(uri: str) -> list[Leak]:
    """Return the leaks in the table of a finished folder.

    Raises:
        InputError: If the table is missing or damaged.
    """
    return tables.read_records(files.join(uri, LEAKS), Leak)


def _read(videos_uri: str, *columns: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the stored videos, the oldest first: the number of the crawl, and some columns."""
    crawls = members.read(videos_uri)

    def read(crawl: int, shard: int) -> list[dict[str, Any]]:
        return video_table.read_stored(crawls[crawl].uri, shard, columns)

    for number, rows in members.each_shard(crawls, read):
        for row in rows:
            yield number, row


def _read_videos(
    videos_uri: str, duplicates: str, keys: list[Key], without: Container[Key] = ()
) -> Iterator[copies.Video]:
    """Yield the stored videos, the oldest first, with what counts for copies; the keys of these go to `keys`."""
    columns = {"keep": (), "equal": _SOURCE, "near": (*_SOURCE, "hashes")}[duplicates]
    for number, row in _read(videos_uri, *columns):
        if (key := (number, row["video_id"])) not in without:
            keys.append(key)
            yield copies.Video(
                row["video_id"],
                row.get("source_sha256", ""),
                row.get("start_seconds"),
                row.get("end_seconds"),
                row.get("hashes", b""),
            )


def _copies(videos_uri: str, duplicates: str, without: Container[Key] = ()) -> dict[Key, LeftOut]:
    left_out, keys = {}, list[Key]()
    for copy in copies.find_copies(_read_videos(videos_uri, duplicates, keys, without)):
        number, video_id = keys[copy.original]
        detail = f"{_WORDS[copy.reason]} {video_id} of crawl {number + 1}"
        left_out[keys[copy.video]] = LeftOut("duplicate", detail)
    return left_out


def _withdrawn(videos_uri: str, ledger: Ledger) -> dict[Key, LeftOut]:
    """Return the withdrawn videos and their copies; a video that only has the id of one is no copy."""
    named, gone = find_named(videos_uri, ledger)
    left_out = {key: LeftOut("withdrawn", reason) for key, reason in named.items()}
    for key, original in find_copies_of(videos_uri, named, gone):
        left_out.setdefault(key, LeftOut("withdrawn", f"shows the same as {original}, which was withdrawn"))
    return left_out


def find_named(videos_uri: str, ledger: Ledger) -> tuple[dict[Key, str], list[copies.Video]]:
    """Return the stored videos that a ledger names, with the reasons, and the withdrawn ones that are no longer stored.

    Raises:
        InputError: If a table is missing or damaged.
    """
    crawls = members.read(videos_uri)

    def every(crawl: int, shard: int) -> list[tuple[str, str, str]]:
        rows = video_table.read_columns(crawls[crawl].uri, shard, ("url", "identity"))
        return [(row["video_id"], row["url"], row["identity"]) for row in rows]

    ledger = ledger.with_sources(row for _, rows in members.each_shard(crawls, every) for row in rows)
    named: dict[Key, str] = {}
    here = set()
    for number, row in _read(videos_uri, "url", "identity", *_SOURCE):
        if (reason := ledger.reason(row["video_id"], row["url"], row["identity"])) is not None:
            named[number, row["video_id"]] = reason
            here.add(tuple(row[name] for name in _SOURCE))
    gone = [
        copies.Video(item.video, of.source_sha256, of.start_seconds, of.end_seconds, of.frame_hashes())
        for item in ledger.withdrawals
        for of in item.contents
        if (of.source_sha256, of.start_seconds, of.end_seconds) not in here
    ]
    return named, gone


def find_copies_of(videos_uri: str, named: Collection[Key], gone: Sequence[copies.Video]) -> Iterator[tuple[Key, str]]:
    """Yield the other stored videos that are copies of some of them or of videos that are gone, and the name of these.

    Raises:
        InputError: If a table is missing or damaged.
    """
    if not named and not gone:
        return
    keys: list[Key] = []
    places = enumerate(_read(videos_uri), len(gone)) if named else ()
    chosen = [place for place, (number, row) in places if (number, row["video_id"]) in named]
    every = itertools.chain(gone, _read_videos(videos_uri, "near", keys))
    for copy, original in copies.find_copies_of(every, [*range(len(gone)), *chosen]).items():
        number, video_id = keys[original - len(gone)] if original >= len(gone) else (None, gone[original].video_id)
        yield keys[copy - len(gone)], video_id if number is None else f"{video_id} of crawl {number + 1}"
