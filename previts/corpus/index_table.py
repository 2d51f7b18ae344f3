"""The table of the sampling index: every usable video with its tube. Clips are sampled from this table.

PreViTS section 3.2: clips are sampled only where the tube is not empty. Pixels and masks stay in their shards, and a
row contains their byte ranges and the number of its crawl, which leads to the folders of the shards. Videos that the
filter removes are not in the index. A second table in the same folder has the quality of all videos, with the reason of
each removal.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from previts.config import fields
from previts.config.perception import FilterConfig
from previts.corpus import members, quality, tube_table, video_table, withdrawals
from previts.corpus.quality import Quality
from previts.errors import InputError
from previts.storage import files, folders, tables

TABLE, QUALITY = "index.parquet", "quality.parquet"


@dataclass(frozen=True)
class IndexRecord:
    """One video: where it and its tube are stored, and the half-open spans of frames in which the object is visible.

    `crawl` is the number of its crawl in the corpus. The columns from `shard` to `gop_crcs` are those of
    `video_table.VideoRecord`, the others those of `tube_table.TubeRecord`. `tube_offset`, `tube_size` and `tube_crc`
    are its `offset`, `size` and `crc`.
    """

    video_id: str
    label: str
    split: str
    crawl: int
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


def join_shard(videos_uri: str, tubes_uri: str, shard: int, crawl: int = 0) -> list[IndexRecord]:
    """Return the rows of one shard of the outputs of a crawl: its usable videos, each with its tube.

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
    return [_join(video, tubes[video.video_id], crawl) for video in videos]


def _join(video: video_table.VideoRecord, tube: tube_table.TubeRecord, crawl: int) -> IndexRecord:
    return IndexRecord(
        video_id=video.video_id,
        label=video.label,
        split=video.split,
        crawl=crawl,
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
        crawl=row.crawl,
        shard=row.shard,
        reason="",
        seconds=row.num_frames / row.fps,
        tube_seconds=row.tracked_frames / row.fps,
        mean_area=row.mean_area,
        lost_seconds=None if row.lost_frame is None else row.lost_frame / row.fps,
        border_share=row.border_share,
        agreement=row.agreement,
    )


def _summarise(table: pa.Table, judged: Sequence[Quality]) -> dict[str, int | float]:
    """Return the counts of a corpus: videos, tubes, how long objects are visible, and the summary of its quality."""
    frames, fps, tracked = (table.column(name).to_numpy() for name in ("num_frames", "fps", "tracked_frames"))
    with_tube = int((tracked > 0).sum())
    return {
        "videos": len(frames),
        "videos_with_tube": with_tube,
        "frames": int(frames.sum()),
        "tracked_frames": int(tracked.sum()),
        "spans": int(pc.sum(pc.list_value_length(table.column("spans"))).as_py() or 0),
        "mean_tube_seconds": round(float((tracked / fps).sum()) / max(1, with_tube), 3),
        "hours": round(float((frames / fps).sum()) / 3600, 4),
        **quality.summarise(judged),
    }


@dataclass(frozen=True)
class Crawl:
    """Where the videos and the tubes of one crawl are stored."""

    videos: str
    tubes: str


@dataclass(frozen=True)
class Index:
    """An index in memory as one Arrow table; `index[i]` creates the row of video i at each call."""

    uri: str
    crawls: tuple[Crawl, ...]
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, number: int) -> IndexRecord:
        return tables.row(self.table, IndexRecord, number)

    def __iter__(self) -> Iterator[IndexRecord]:
        return (self[number] for number in range(len(self)))

    def crawl_of(self, row: IndexRecord) -> Crawl:
        """Return where the video and the tube of a row are stored."""
        return self.crawls[row.crawl]


def read_crawls(videos_uri: str, tubes_uri: str) -> list[tuple[Crawl, int]]:
    """Return the crawls of a corpus, each with the number of its shards.

    Raises:
        InputError: If the tubes are not of these videos.
    """
    videos, tubes = members.read(videos_uri), members.read(tubes_uri)
    if [member.shards for member in videos] != [member.shards for member in tubes]:
        raise InputError(
            f"{tubes_uri} has {sum(member.shards for member in tubes)} shards of {len(tubes)} crawls, but {videos_uri} "
            f"has {sum(member.shards for member in videos)} of {len(videos)}; run `previts saliency` and "
            "`previts track` on these videos"
        )
    return [(Crawl(one.uri, other.uri), one.shards) for one, other in zip(videos, tubes, strict=True)]


def join_corpus(videos_uri: str, tubes_uri: str) -> Iterator[list[IndexRecord]]:
    """Yield the rows of each shard of a corpus.

    Raises:
        InputError: If the tubes are not of these videos, or a table is missing or damaged.
    """
    for number, (crawl, shards) in enumerate(read_crawls(videos_uri, tubes_uri)):
        for shard in range(shards):
            yield join_shard(crawl.videos, crawl.tubes, shard, number)


def write_index(
    uri: str,
    shards: Iterable[Sequence[IndexRecord]],
    config: FilterConfig,
    withdrawn: Collection[tuple[int, str]] = (),
) -> dict[str, int | float]:
    """Write the table of the videos that the filter keeps, and the table of the quality of all videos.

    Both tables are sorted by video id, so that their order does not depend on the shards. If crawls have videos of the
    same id, the one of the first crawl is kept.

    Args:
        uri: The folder.
        shards: Rows of the corpus in any order, some at a time.
        config: The filter.
        withdrawn: Number of the crawl and id of each withdrawn video, which is left out.

    Returns:
        Counts. `videos` and the others of `_summarise` are of the videos that are kept. `videos_in` is
        `videos` + `filtered`, and `filtered` is the sum of the counts for each reason.

    Raises:
        InputError: If the filter keeps no video, or needs an agreement that is not known.
    """
    parts, videos = [], []
    for rows in shards:
        parts.append(tables.to_table(IndexRecord, rows))  # rows take ten times as much memory
        reasons = ["withdrawn" if (row.crawl, row.video_id) in withdrawn else "" for row in rows]
        videos += [replace(quality_of(row), reason=reason) for row, reason in zip(rows, reasons, strict=True)]
    order = sorted(range(len(videos)), key=lambda number: (videos[number].video_id, videos[number].crawl))
    judged = quality.judge(quality.without_repeated_ids([videos[number] for number in order]), config)
    kept = [number for number, video in zip(order, judged, strict=True) if not video.reason]
    table = pa.concat_tables([tables.to_table(IndexRecord, []), *parts]).take(pa.array(kept, pa.int64()))
    tables.write_records(files.join(uri, QUALITY), Quality, judged)
    tables.write_table(files.join(uri, TABLE), table)
    return {**_summarise(table, [video for video in judged if not video.reason]), **quality.filtered(judged)}


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
    # Of several videos with one id, the first one that was not withdrawn is kept.
    judged = sorted(read_quality(uri), key=lambda video: video.reason == "withdrawn")
    known = {video.video_id: video for video in reversed(judged)}
    if video_id not in known:
        failed = {
            row.video_id: row.error
            for crawl in members.read(manifest.inputs["videos"])
            for shard in range(crawl.shards)
            for row in video_table.read_shard(crawl.uri, shard)
        }
        if video_id in failed:
            raise InputError(f"video {video_id!r} was not stored: {failed[video_id]}")
        hint = fields.did_you_mean(video_id, known, cutoff=0.6)
        raise InputError(
            f"{uri} has no video {video_id!r}{hint}; `previts quality {uri} --out videos.csv` lists its videos"
        )
    found = known[video_id]
    if found.reason == "withdrawn":
        raise InputError(f"video {video_id!r} was withdrawn, so {uri} does not contain it")
    crawl = _crawls(manifest)[found.crawl]
    rows = join_shard(crawl.videos, crawl.tubes, found.shard, found.crawl)
    return next(row for row in rows if row.video_id == video_id)


def withdrawn(videos_uri: str, ledger: withdrawals.Ledger) -> Iterator[tuple[int, video_table.VideoRecord]]:
    """Yield the stored videos of a corpus that are withdrawn, each with the number of its crawl.

    Raises:
        InputError: If a table is missing or damaged.
    """
    for number, member in enumerate(members.read(videos_uri)) if ledger else ():
        for shard in range(member.shards):
            for row in video_table.read_shard(member.uri, shard):
                if row.status == "ok" and video_table.is_withdrawn(row, ledger):
                    yield number, row


def withdrawn_ids(videos_uri: str, ledger: withdrawals.Ledger) -> list[tuple[int, str]]:
    """Return the withdrawn videos of a corpus as decisions of its index: number of the crawl and id of each, sorted."""
    return sorted({(crawl, row.video_id) for crawl, row in withdrawn(videos_uri, ledger)})


def withdrawn_in(uri: str, ledger: withdrawals.Ledger) -> list[str]:
    """Return the ids of the videos of an index that were withdrawn after it was made, sorted.

    Raises:
        InputError: If the index is damaged, or its videos were deleted: then it is not known.
    """
    if not ledger:
        return []
    manifest = _manifest(uri)
    out = set(withdrawn_ids(manifest.inputs["videos"], ledger))
    table = tables.read_table(files.join(uri, TABLE), IndexRecord)
    inside = zip(table.column("crawl").to_pylist(), table.column("video_id").to_pylist(), strict=True)
    return sorted({video_id for crawl, video_id in inside if (crawl, video_id) in out}) if out else []


def read_index(uri: str) -> Index:
    """Return a finished index.

    Raises:
        InputError: If it is not committed, or is damaged.
    """
    manifest = _manifest(uri)
    table = tables.read_table(files.join(uri, TABLE), IndexRecord)
    return Index(files.absolute(uri), _crawls(manifest), table)


def _crawls(manifest: folders.Manifest) -> tuple[Crawl, ...]:
    videos, tubes = (members.uris(manifest.inputs[name]) for name in ("videos", "tubes"))
    return tuple(itertools.starmap(Crawl, zip(videos, tubes, strict=True)))


def _manifest(uri: str) -> folders.Manifest:
    manifest = folders.read_manifest(uri)
    if manifest.stage != "index":
        raise InputError(f"{uri} is an output of stage {manifest.stage!r}; expected an output of stage 'index'")
    return manifest
