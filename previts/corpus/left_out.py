"""Which videos of a corpus an index leaves out for what they show, before any filter looks at their tubes.

Not in the paper, whose corpora were made once. A corpus that grows meets the same video again, under another name or
changed. This module reads the tables of videos; it reads no pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from previts.config.perception import FilterConfig
from previts.corpus import copies, members, video_table
from previts.corpus.quality import Key, LeftOut
from previts.corpus.withdrawals import Ledger

_WORDS = {"same id": "same id as", "same bytes": "same file as", "near duplicate": "shows the same as"}


def find_left_out(videos_uri: str, config: FilterConfig, ledger: Ledger | None = None) -> Mapping[Key, LeftOut]:
    """Return the videos that were withdrawn, with the copies of these, and the videos that are copies of older ones.

    Videos of an earlier crawl are older, and in a crawl those that it names first.

    Args:
        videos_uri: The videos of the corpus.
        config: The filter. With duplicates="keep", only videos with the id of an older one are left out: the ids of an
            index differ.
        ledger: Withdrawals.

    Raises:
        InputError: If a table is missing or damaged.
    """
    found: list[copies.Video] = []
    keys: list[Key] = []
    places: list[tuple[str, str]] = []
    for number, crawl in enumerate(members.read(videos_uri)):
        for shard in range(crawl.shards):
            for row in video_table.read_shard(crawl.uri, shard):
                if row.status == "ok":
                    keys.append((number, row.video_id))
                    places.append((row.url, row.identity))
                    found.append(
                        copies.Video(
                            row.video_id,
                            row.source_sha256 if config.duplicates != "keep" else "",
                            row.start_seconds,
                            row.end_seconds,
                            row.hashes if config.duplicates == "near" else b"",
                        )
                    )
    left_out = _withdrawn(found, keys, places, ledger) if ledger else {}
    left = [number for number, key in enumerate(keys) if key not in left_out]
    for copy in copies.find_copies([found[number] for number in left]):
        number, video_id = keys[left[copy.original]]
        detail = f"{_WORDS[copy.reason]} {video_id} of crawl {number + 1}"
        left_out[keys[left[copy.video]]] = LeftOut("duplicate", detail)
    return left_out


def _withdrawn(
    videos: Sequence[copies.Video], keys: Sequence[Key], places: Sequence[tuple[str, str]], ledger: Ledger
) -> dict[Key, LeftOut]:
    """Return the withdrawn videos and their copies; a video that only has the id of one is no copy.

    Args:
        videos: The videos.
        keys: The key of each.
        places: The URL and the identity of each.
        ledger: Withdrawals.
    """
    left_out = {}
    for (number, video_id), place in zip(keys, places, strict=True):
        if (reason := ledger.reason(video_id, *place)) is not None:
            left_out[number, video_id] = LeftOut("withdrawn", reason)
    if not left_out:
        return {}
    of_content = copies.find_copies([replace(video, video_id=str(n)) for n, video in enumerate(videos)])
    leads_to = {copy.video: copy.original for copy in of_content}
    first: dict[int, Key] = {}  # the first withdrawn video of each group of copies
    for video, key in enumerate(keys):
        if key in left_out:
            first.setdefault(leads_to.get(video, video), key)
    for video, key in enumerate(keys):
        if key not in left_out and (original := first.get(leads_to.get(video, video))):
            detail = f"shows the same as {original[1]} of crawl {original[0] + 1}, which was withdrawn"
            left_out[key] = LeftOut("withdrawn", detail)
    return left_out
