"""The sampling index: every usable video joined with its tube, so that one table answers what may be sampled where.

PreViTS section 3.2: clips are drawn only where the tube is not empty. Pixels and masks stay in their shards; a row says
which bytes hold them.
"""

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from previts import records, shards, storage, tubes
from previts.errors import InputError
from previts.experiment import FilterConfig

TABLE = "index.parquet"


@dataclass(frozen=True)
class IndexRecord:
    """One video: where its clip and its tube lie, and the half-open spans of frames in which the object is visible."""

    video_id: str
    label: str
    split: str
    shard: int
    offset: int
    size: int
    width: int
    height: int
    num_frames: int
    fps: float
    header: bytes
    gop_frames: list[int]
    gop_offsets: list[int]
    spans: list[list[int]]
    tracked_frames: int
    tube_offset: int
    tube_size: int


def join_shard(videos_uri: str, tubes_uri: str, shard: int) -> list[IndexRecord]:
    """Return the rows of one shard: its usable videos, each with its tube.

    Raises:
        InputError: If the two tables do not hold the same usable videos.
    """
    videos = [video for video in shards.read_shard(videos_uri, shard) if video.status == "ok"]
    followed = {tube.video_id: tube for tube in tubes.read_shard(tubes_uri, shard)}
    missing = [video.video_id for video in videos if video.video_id not in followed]
    if missing or len(followed) != len(videos):
        raise InputError(
            f"shard {shard} of {tubes_uri} does not belong to {videos_uri}: {len(missing)} of {len(videos)} videos "
            f"have no tube (first: {missing[:3]}); run `previts saliency` and `previts track` on these videos"
        )
    return [
        IndexRecord(
            video_id=video.video_id,
            label=video.label,
            split=video.split,
            shard=shard,
            offset=video.offset,
            size=video.size,
            width=video.width,
            height=video.height,
            num_frames=video.num_frames,
            fps=video.fps,
            header=video.header,
            gop_frames=video.gop_frames,
            gop_offsets=video.gop_offsets,
            spans=followed[video.video_id].spans,
            tracked_frames=followed[video.video_id].tracked_frames,
            tube_offset=followed[video.video_id].offset,
            tube_size=followed[video.video_id].size,
        )
        for video in videos
    ]


def summarise(rows: list[IndexRecord]) -> dict[str, int | float]:
    """Return what a person wants to know of a corpus: videos, tubes, and how long the object is visible."""
    tracked = [row for row in rows if row.tracked_frames]
    frames = sum(row.num_frames for row in rows)
    return {
        "videos": len(rows),
        "videos_with_tube": len(tracked),
        "frames": frames,
        "tracked_frames": sum(row.tracked_frames for row in rows),
        "spans": sum(len(row.spans) for row in rows),
        "mean_tube_seconds": round(sum(row.tracked_frames / row.fps for row in tracked) / max(1, len(tracked)), 3),
        "hours": round(sum(row.num_frames / row.fps for row in rows) / 3600, 4),
    }


@dataclass(frozen=True)
class Index:
    """An index in memory as one Arrow table; `index[i]` makes the row of video i when asked."""

    uri: str
    videos_uri: str
    tubes_uri: str
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, number: int) -> IndexRecord:
        return records.row(self.table, IndexRecord, number)

    def __iter__(self) -> Iterator[IndexRecord]:
        return (self[number] for number in range(len(self)))

    def find(self, video_id: str) -> IndexRecord:
        """Return the row of a video by its id; rows are sorted by it."""
        number = bisect.bisect_left(_Column(self.table.column("video_id")), video_id)
        if number == len(self) or self.table.column("video_id")[number].as_py() != video_id:
            raise InputError(f"{self.uri} has no video {video_id!r}")
        return self[number]


@dataclass(frozen=True)
class _Column:
    """An Arrow column as a sequence, for bisect."""

    column: Any

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, number: int) -> str:
        return str(self.column[number].as_py())


def write_index(uri: str, rows: list[IndexRecord], config: FilterConfig) -> dict[str, int | float]:
    """Write the table of an index, sorted by video id so that its order does not depend on the sharding."""
    records.write_records(storage.join(uri, TABLE), IndexRecord, sorted(rows, key=lambda row: row.video_id))
    return summarise(rows)


def read_index(uri: str) -> Index:
    """Return a finished index.

    Raises:
        InputError: If it has not been committed, or is damaged.
    """
    manifest = storage.read_manifest(uri)
    if manifest.stage != "index":
        raise InputError(f"{uri} is the output of `previts {manifest.stage}`, expected that of `previts index`")
    table = records.read_table(storage.join(uri, TABLE), IndexRecord)
    return Index(storage.absolute(uri), manifest.inputs["videos"], manifest.inputs["tubes"], table)
