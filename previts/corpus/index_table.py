"""The table of the sampling index: every usable video with its tube. Clips are sampled from this table.

PreViTS section 3.2: clips are sampled only where the tube is not empty. Pixels and masks stay in their shards, and a
row contains their byte ranges. Videos that the filter removes are not in the index. A second table in the same folder
has the quality of all videos, with the reason of each removal.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from previts.config import fields
from previts.config.experiment import FilterConfig
from previts.corpus import quality, tube_table, video_table
from previts.corpus.quality import Quality
from previts.errors import InputError
from previts.storage import files, folders, tables

TABLE, QUALITY = "index.parquet", "quality.parquet"


@dataclass(frozen=True)
class IndexRecord:
    """One video: where it and its tube are stored, and the half-open spans of frames in which the object is visible.

    The columns from `shard` to `gop_crcs` are those of `video_table.VideoRecord`, the others those of
    `tube_table.TubeRecord`. `tube_offset`, `tube_size` and `tube_crc` are its `offset`, `size` and `crc`.
    """

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
    gop_crcs: list[int]
    spans: list[list[int]]
    tracked_frames: int
    mean_area: float
    lost_frame: int | None
    border_share: float
    agreement: float | None
    tube_offset: int
    tube_size: int
    tube_crc: int


def join_shard(videos_uri: str, tubes_uri: str, shard: int) -> list[IndexRecord]:
    """Return the rows of one shard: its usable videos, each with its tube.

    Raises:
        InputError: If the two tables do not have the same usable videos.
    """
    videos = [video for video in video_table.read_shard(videos_uri, shard) if video.status == "ok"]
    tubes = {tube.video_id: tube for tube in tube_table.read_shard(tubes_uri, shard)}
    missing = [video.video_id for video in videos if video.video_id not in tubes]
    if missing or len(tubes) != len(videos):
        raise InputError(
            f"shard {shard} of {tubes_uri} does not belong to {videos_uri}: {len(missing)} of {len(videos)} videos "
            f"have no tube (first: {missing[:3]}); run `previts saliency` and `previts track` on these videos"
        )
    return [_join(video, tubes[video.video_id]) for video in videos]


def _join(video: video_table.VideoRecord, tube: tube_table.TubeRecord) -> IndexRecord:
    return IndexRecord(
        video_id=video.video_id,
        label=video.label,
        split=video.split,
        shard=video.shard,
        offset=video.offset,
        size=video.size,
        width=video.width,
        height=video.height,
        num_frames=video.num_frames,
        fps=video.fps,
        header=video.header,
        gop_frames=video.gop_frames,
        gop_offsets=video.gop_offsets,
        gop_crcs=video.gop_crcs,
        spans=tube.spans,
        tracked_frames=tube.tracked_frames,
        mean_area=tube.mean_area,
        lost_frame=tube.lost_frame,
        border_share=tube.border_share,
        agreement=tube.agreement,
        tube_offset=tube.offset,
        tube_size=tube.size,
        tube_crc=tube.crc,
    )


def quality_of(row: IndexRecord) -> Quality:
    """Return the quality of a video; no filter has judged it yet, so its reason is empty."""
    return Quality(
        video_id=row.video_id,
        label=row.label,
        split=row.split,
        shard=row.shard,
        reason="",
        seconds=row.num_frames / row.fps,
        tube_seconds=row.tracked_frames / row.fps,
        mean_area=row.mean_area,
        lost_seconds=None if row.lost_frame is None else row.lost_frame / row.fps,
        border_share=row.border_share,
        agreement=row.agreement,
    )


def summarise(rows: list[IndexRecord]) -> dict[str, int | float]:
    """Return the counts of a corpus: videos, tubes, how long objects are visible, and the summary of its quality."""
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
        **quality.summarise([quality_of(row) for row in rows]),
    }


@dataclass(frozen=True)
class Index:
    """An index in memory as one Arrow table; `index[i]` creates the row of video i at each call."""

    uri: str
    videos_uri: str
    tubes_uri: str
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, number: int) -> IndexRecord:
        return tables.row(self.table, IndexRecord, number)

    def __iter__(self) -> Iterator[IndexRecord]:
        return (self[number] for number in range(len(self)))


def write_index(uri: str, rows: list[IndexRecord], config: FilterConfig) -> dict[str, int | float]:
    """Write the table of the videos that the filter keeps, and the table of the quality of all videos.

    Both tables are sorted by video id, so that their order does not depend on the shards.

    Returns:
        Counts. `videos` and the others of `summarise` are of the videos that are kept. `videos_in` is
        `videos` + `filtered`, and `filtered` is the sum of the counts for each reason.

    Raises:
        InputError: If the filter keeps no video, or needs an agreement that is not known.
    """
    rows = sorted(rows, key=lambda row: row.video_id)
    judged = quality.judge([quality_of(row) for row in rows], config)
    kept = [row for row, video in zip(rows, judged, strict=True) if not video.reason]
    tables.write_records(files.join(uri, QUALITY), Quality, judged)
    tables.write_records(files.join(uri, TABLE), IndexRecord, kept)
    return {**summarise(kept), **quality.filtered(judged)}


def read_quality(uri: str) -> list[Quality]:
    """Return the quality of all videos of a finished index, kept or not, sorted by id.

    Raises:
        InputError: If the index is not committed, or is damaged.
    """
    _manifest(uri)
    return tables.read_records(files.join(uri, QUALITY), Quality)


def find_video(uri: str, video_id: str) -> IndexRecord:
    """Return the row of a video by its id, even if the filter removed the video.

    Raises:
        InputError: If the video is unknown, or its download failed.
    """
    manifest = _manifest(uri)
    known = {video.video_id: video.shard for video in read_quality(uri)}
    if video_id not in known:
        videos = manifest.inputs["videos"]
        total = tables.shard_count(videos)
        failed = {row.video_id: row.error for shard in range(total) for row in video_table.read_shard(videos, shard)}
        if video_id in failed:
            raise InputError(f"video {video_id!r} was not stored: {failed[video_id]}")
        hint = fields.did_you_mean(video_id, known, cutoff=0.6)
        raise InputError(
            f"{uri} has no video {video_id!r}{hint}; `previts quality {uri} --out videos.csv` lists its videos"
        )
    rows = join_shard(manifest.inputs["videos"], manifest.inputs["tubes"], known[video_id])
    return next(row for row in rows if row.video_id == video_id)


def read_index(uri: str) -> Index:
    """Return a finished index.

    Raises:
        InputError: If it is not committed, or is damaged.
    """
    manifest = _manifest(uri)
    table = tables.read_table(files.join(uri, TABLE), IndexRecord)
    return Index(files.absolute(uri), manifest.inputs["videos"], manifest.inputs["tubes"], table)


def _manifest(uri: str) -> folders.Manifest:
    manifest = folders.read_manifest(uri)
    if manifest.stage != "index":
        raise InputError(f"{uri} is an output of stage {manifest.stage!r}; expected an output of stage 'index'")
    return manifest
