"""Which videos of a corpus an index leaves out for what they show, before any filter looks at their tubes.

Not in the paper, whose corpora were made once. A corpus that grows meets the same video again, under another name or
changed. This module reads the tables of videos; it reads no pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from previts.config.perception import FilterConfig
from previts.corpus import copies, members, video_table

_WORDS = {"same id": "same id as", "same bytes": "same file as", "near duplicate": "shows the same as"}

Key = tuple[int, str]
"""A video of a corpus: the number of its crawl, and its id."""


@dataclass(frozen=True)
class LeftOut:
    """Why a video is left out; `detail` says more in words, such as whose copy it is."""

    reason: Literal["duplicate"]
    detail: str


def find_left_out(videos_uri: str, config: FilterConfig) -> Mapping[Key, LeftOut]:
    """Return the videos that are copies of older ones.

    Videos of an earlier crawl are older, and in a crawl those that it names first.

    Args:
        videos_uri: The videos of the corpus.
        config: The filter. With duplicates="keep", only videos with the id of an older one are left out: the ids of an
            index differ.

    Raises:
        InputError: If a table is missing or damaged.
    """
    found: list[copies.Video] = []
    keys: list[Key] = []
    for number, crawl in enumerate(members.read(videos_uri)):
        for shard in range(crawl.shards):
            for row in video_table.read_shard(crawl.uri, shard):
                if row.status == "ok":
                    keys.append((number, row.video_id))
                    found.append(
                        copies.Video(
                            row.video_id,
                            row.source_sha256 if config.duplicates != "keep" else "",
                            row.start_seconds,
                            row.end_seconds,
                            row.hashes if config.duplicates == "near" else b"",
                        )
                    )
    left_out = {}
    for copy in copies.find_copies(found):
        number, video_id = keys[copy.original]
        detail = f"{_WORDS[copy.reason]} {video_id} of crawl {number + 1}"
        left_out[keys[copy.video]] = LeftOut("duplicate", detail)
    return left_out
