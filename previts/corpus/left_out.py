"""Which videos of a corpus an index leaves out for what they show, before any filter looks at their tubes.

Not in the paper, whose corpora were made once. A corpus that grows meets the same video again, under another name or
changed. It also meets videos that a benchmark tests with. This module reads tables; it reads no pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from previts.config.perception import FilterConfig
from previts.corpus import copies, members, video_table
from previts.corpus.quality import Key, LeftOut
from previts.corpus.withdrawals import Ledger
from previts.storage import files, tables
from previts.storage.tables import Count, Positive

LEAKS = "leaks.parquet"
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
    videos = _read(videos_uri)
    left_out = _withdrawn(videos, ledger) if ledger else {}
    left_out |= _copies({key: video for key, video in videos.items() if key not in left_out}, config)
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
    videos = _read(videos_uri)
    left_out = _copies(videos, config)
    rest = {key: video.hashes for key, video in videos.items() if key not in left_out}
    keys = list(rest)
    return [
        Leak(*keys[match.video], names[match.reference], match.distance)
        for match in copies.find_matches(list(rest.values()), hashes)
    ]


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


@dataclass(frozen=True)
class _Stored(copies.Video):
    """A stored video, with its URL and its identity."""

    url: str
    identity: str


def _read(videos_uri: str) -> dict[Key, _Stored]:
    """Return the stored videos, the oldest first."""
    return {
        (number, row.video_id): _Stored(
            row.video_id,
            row.source_sha256,
            row.start_seconds,
            row.end_seconds,
            row.hashes,
            row.url,
            row.identity,
        )
        for number, crawl in enumerate(members.read(videos_uri))
        for shard in range(crawl.shards)
        for row in video_table.read_shard(crawl.uri, shard)
        if row.status == "ok"
    }


def _copies(videos: Mapping[Key, copies.Video], config: FilterConfig) -> dict[Key, LeftOut]:
    keys = list(videos)
    known = [
        replace(
            video,
            source_sha256=video.source_sha256 if config.duplicates != "keep" else "",
            hashes=video.hashes if config.duplicates == "near" else b"",
        )
        for video in videos.values()
    ]
    left_out = {}
    for copy in copies.find_copies(known):
        number, video_id = keys[copy.original]
        detail = f"{_WORDS[copy.reason]} {video_id} of crawl {number + 1}"
        left_out[keys[copy.video]] = LeftOut("duplicate", detail)
    return left_out


def _withdrawn(videos: Mapping[Key, _Stored], ledger: Ledger) -> dict[Key, LeftOut]:
    """Return the withdrawn videos and their copies; a video that only has the id of one is no copy."""
    left_out = {}
    for key, video in videos.items():
        if (reason := ledger.reason(video.video_id, video.url, video.identity)) is not None:
            left_out[key] = LeftOut("withdrawn", reason)
    if not left_out:
        return {}
    keys = list(videos)
    of_content = copies.find_copies([replace(video, video_id=str(n)) for n, video in enumerate(videos.values())])
    leads_to = {copy.video: copy.original for copy in of_content}
    first: dict[int, Key] = {}  # the first withdrawn video of each group of copies
    for number, key in enumerate(keys):
        if key in left_out:
            first.setdefault(leads_to.get(number, number), key)
    for number, key in enumerate(keys):
        if key not in left_out and (original := first.get(leads_to.get(number, number))):
            detail = f"shows the same as {original[1]} of crawl {original[0] + 1}, which was withdrawn"
            left_out[key] = LeftOut("withdrawn", detail)
    return left_out
