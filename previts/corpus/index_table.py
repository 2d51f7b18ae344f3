"""The table of the sampling index: every usable video with its tube. Clips are sampled from this table.

PreViTS section 3.2: clips are sampled only where the tube is not empty. Pixels and masks stay in their shards, and a
row contains their byte ranges and the number of its crawl, which leads to the folders of the shards. Videos that the
filter removes are not in the index. A second table in the same folder has the quality of all videos, with the reason of
each removal.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from previts.config import fields
from previts.config.perception import FilterConfig
from previts.corpus import members, quality, tube_table, video_table
from previts.corpus.quality import Key, LeftOut, Quality
from previts.errors import InputError
from previts.storage import files, folders, tables
from previts.storage.tables import Count, Crc, Place, Rate, Share, Side

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
    crawl: Count
    shard: Count
    offset: Place
    size: Place
    width: Side
    height: Side
    num_frames: Count
    fps: Rate
    header: bytes
    gop_frames: list[Count]
    gop_offsets: list[Place]
    gop_crcs: list[Crc]
    spans: list[list[Count]]
    tracked_frames: Count
    mean_area: Share
    lost_frame: Count | None
    border_share: Share
    agreement: Share | None
    tube_offset: Place
    tube_size: Place
    tube_crc: Crc


_COLUMNS = tables.schema(IndexRecord).names
_OF_VIDEO = [name for name in _COLUMNS if name in tables.schema(video_table.VideoRecord).names]
_OF_TUBE = [name for name in _COLUMNS if name not in (*_OF_VIDEO, "crawl")]


def join_shard(videos_uri: str, tubes_uri: str, shard: int, crawl: int = 0) -> pa.Table:
    """Return the table of `IndexRecord` of one shard of the outputs of a crawl: its usable videos, each with its tube.

    Raises:
        InputError: If a table is missing or damaged, or the two do not have the same usable videos.
    """
    videos = video_table.read_layouts(videos_uri, shard, _OF_VIDEO)
    uri = files.join(tubes_uri, tables.table_name(shard))
    tubes = tables.read_table(uri, tube_table.TubeRecord)
    places = pc.index_in(videos.column("video_id"), value_set=tubes.column("video_id"))
    if places.null_count or len(tubes) != len(videos):
        missing = videos.filter(pc.is_null(places)).column("video_id").to_pylist()
        raise InputError(
            f"shard {shard} of {tubes_uri} does not belong to {videos_uri}: {len(missing)} of {len(videos)} videos "
            f"have no tube (first: {missing[:3]}), and it has {len(tubes)} tubes; run `previts saliency` and "
            "`previts track` on these videos"
        )
    tubes = tubes.take(places)
    columns = {name: videos.column(name) for name in videos.column_names}
    columns |= {name: tubes.column(name.removeprefix("tube_")) for name in _OF_TUBE}
    columns["crawl"] = pa.array(np.full(len(videos), crawl))
    table = pa.table({name: columns[name] for name in _COLUMNS}, schema=tables.schema(IndexRecord))
    for number in _unusual_spans(table):
        _check_spans(tables.row(table, IndexRecord, number), uri)
    return table


def _unusual_spans(table: pa.Table) -> list[int]:
    """Return the rows whose spans may be wrong, among them all that are: `_check_spans` takes long."""
    spans = table.column("spans").combine_chunks()
    inner, frames = spans.flatten(), table.column("num_frames").to_numpy()
    if pc.any(pc.not_equal(pc.list_value_length(inner), 2)).as_py():
        return list(range(len(table)))
    start, stop = inner.flatten().to_numpy(zero_copy_only=False).reshape(-1, 2).T
    owners = np.repeat(np.arange(len(table)), pc.list_value_length(spans).to_numpy(zero_copy_only=False))
    wrong = np.bincount(owners, (start >= stop) | (stop > frames[owners]), len(table)) > 0
    wrong[owners[1:][(owners[1:] == owners[:-1]) & (stop[:-1] >= start[1:])]] = True
    tracked = np.bincount(owners, stop - start, len(table))
    lost = table.column("lost_frame").fill_null(-1).to_numpy()
    wrong |= (tracked != table.column("tracked_frames").to_numpy()) | (lost >= frames)
    return np.flatnonzero(wrong).tolist()


def _check_spans(row: IndexRecord, uri: str) -> None:
    """Raise an InputError if the spans of a row are not those of a tube of its video; `uri` names its table."""
    places = [place for span in row.spans for place in span]
    apart = all(start < stop for start, stop in itertools.pairwise([-1, *places, row.num_frames + 1]))
    tracked = sum(places[1::2]) - sum(places[::2])
    lost = row.lost_frame is None or row.lost_frame < row.num_frames
    if not lost or not apart or any(len(span) != 2 for span in row.spans) or tracked != row.tracked_frames:
        raise InputError(
            f"{uri}: the row of video {row.video_id!r} is wrong (it has {row.tracked_frames} tracked frames of "
            f"{row.num_frames}, in the spans {str(row.spans)[:80]}); delete it, {tables.REMEDY}"
        )


def quality_of(row: IndexRecord) -> Quality:
    """Return the quality of a video; no filter has judged it yet, so its reason is empty."""
    return tables.row(_qualities(tables.to_table(IndexRecord, [row])), Quality, 0)


def _qualities(videos: pa.Table) -> pa.Table:
    """Return the table of the quality of videos, as `quality_of` returns that of one."""
    fps = videos.column("fps")
    columns = {name: videos.column(name) for name in tables.schema(Quality).names if name in videos.column_names}
    columns |= {name: pa.array([""] * len(videos)) for name in ("reason", "detail")}
    for name, frames in (("seconds", "num_frames"), ("tube_seconds", "tracked_frames"), ("lost_seconds", "lost_frame")):
        columns[name] = pc.divide(videos.column(frames).cast(pa.float64()), fps)
    schema = tables.schema(Quality)
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _summarise(table: pa.Table) -> dict[str, int | float]:
    """Return the counts of a corpus: videos, tubes, and how long objects are visible."""
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
    }


@dataclass(frozen=True)
class Crawl:
    """Where the videos and the tubes of one crawl are stored."""

    videos: str
    tubes: str


@dataclass(frozen=True)
class Index:
    """An index in memory as one Arrow table; `index[i]` creates the row of video i at each call, and checks it."""

    uri: str
    crawls: tuple[Crawl, ...]
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, number: int) -> IndexRecord:
        row, uri = tables.row(self.table, IndexRecord, number), files.join(self.uri, TABLE)
        video_table.check_layout(row, uri)
        _check_spans(row, uri)
        return row

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


def join_corpus(videos_uri: str, tubes_uri: str) -> Iterator[pa.Table]:
    """Yield the table of `IndexRecord` of each shard of a corpus.

    Raises:
        InputError: If the tubes are not of these videos, or a table is missing or damaged.
    """
    crawls = read_crawls(videos_uri, tubes_uri)
    stored = members.manifests([crawl.videos for crawl, _ in crawls])
    members.manifests([crawl.tubes for crawl, _ in crawls])  # so that the digests of their tables are known

    def read(number: int, shard: int) -> pa.Table:
        crawl, _ = crawls[number]
        return join_shard(crawl.videos, crawl.tubes, shard, number)

    shards = members.each_shard([members.Member(crawl.videos, shards) for crawl, shards in crawls], read)
    for number, of_crawl in itertools.groupby(shards, key=lambda shard: shard[0]):
        found = 0
        for _, table in of_crawl:
            found += len(table)
            yield table
        if found != (wanted := stored[number].counts.get("ok", found)):
            raise InputError(
                f"the tables of {crawls[number][0].videos} have {found} usable videos, its {folders.MANIFEST} says "
                f"{wanted}; delete both and run `previts download` again"
            )


def write_index(
    uri: str,
    shards: Iterable[pa.Table],
    config: FilterConfig,
    known: Mapping[Key, LeftOut] = MappingProxyType({}),
) -> dict[str, int | float]:
    """Write the table of the videos that the filter keeps, and the table of the quality of all videos.

    Both tables are sorted by video id, so that their order does not depend on the shards.

    Args:
        uri: The folder.
        shards: Tables of `IndexRecord` with the rows of the corpus, in any order.
        config: The filter.
        known: Videos that are left out already, with the reason.

    Returns:
        Counts. `videos` and the others of `_summarise` are of the videos that are kept. `videos_in` is
        `videos` + `filtered`, and `filtered` is the sum of the counts for each reason.

    Raises:
        InputError: If the filter keeps no video, or needs an agreement that is not known.
    """
    kept, judged = [tables.to_table(IndexRecord, [])], [tables.to_table(Quality, [])]
    for table in shards:
        videos = quality.judged(_known(_qualities(table), known), config)
        judged.append(videos)
        kept.append(table.filter(pc.equal(videos.column("reason"), "")))
    all_videos = _sorted(judged)
    if all_videos.num_rows:
        quality.check_judged(all_videos, config)
    tables.write_table(files.join(uri, QUALITY), all_videos)
    counts = {
        **quality.summarise(all_videos.filter(pc.equal(all_videos.column("reason"), ""))),
        **quality.filtered(all_videos.column("reason").to_pylist()),
    }
    del judged, all_videos
    table = _sorted(kept)
    tables.write_table(files.join(uri, TABLE), table)
    return {**_summarise(table), **counts}


def _sorted(parts: list[pa.Table]) -> pa.Table:
    """Return the rows of tables of videos, sorted by video id; empties `parts`, which need as much memory."""
    table = pa.concat_tables(parts)
    parts.clear()
    return table.take(pc.sort_indices(table, [("video_id", "ascending"), ("crawl", "ascending")]))


def _known(videos: pa.Table, known: Mapping[Key, LeftOut]) -> pa.Table:
    if not known:
        return videos
    keys = zip(videos.column("crawl").to_pylist(), videos.column("video_id").to_pylist(), strict=True)
    found = [known.get(key) for key in keys]
    for name in ("reason", "detail"):
        values = pa.array([getattr(item, name) if item else "" for item in found], pa.string())
        videos = videos.set_column(videos.schema.get_field_index(name), videos.schema.field(name), values)
    return videos


def read_quality(uri: str) -> list[Quality]:
    """Return the quality of all videos of a finished index, kept or not, sorted by id.

    Raises:
        InputError: If the index is not committed, or is damaged.
    """
    counts = _manifest(uri).counts
    videos = tables.read_records(files.join(uri, QUALITY), Quality)
    ids = [(video.video_id, video.crawl) for video in videos]  # crawls may have videos of one id
    _check_ids(ids, counts.get("videos_in"), files.join(uri, QUALITY))
    if wrong := [video.video_id for video in videos if not video.seconds or video.tube_seconds > video.seconds]:
        raise InputError(
            f"{files.join(uri, QUALITY)}: the row of video {wrong[0]!r} is wrong (it has no length, or its tube is "
            f"longer); delete it, {tables.REMEDY}"
        )
    return videos


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
    table = join_shard(crawl.videos, crawl.tubes, found.shard, found.crawl)
    return tables.row(table, IndexRecord, table.column("video_id").to_pylist().index(video_id))


def read_index(uri: str) -> Index:
    """Return a finished index.

    Raises:
        InputError: If it is not committed, or is damaged.
    """
    manifest = _manifest(uri)
    table = tables.read_table(files.join(uri, TABLE), IndexRecord)
    _check_ids(table.column("video_id").to_pylist(), manifest.counts.get("videos"), files.join(uri, TABLE))
    return Index(files.absolute(uri), _crawls(manifest), table)


def _crawls(manifest: folders.Manifest) -> tuple[Crawl, ...]:
    videos, tubes = (members.uris(manifest.inputs[name]) for name in ("videos", "tubes"))
    return tuple(itertools.starmap(Crawl, zip(videos, tubes, strict=True)))


def _check_ids(ids: Sequence[object], count: float | None, uri: str) -> None:
    """Raise an InputError if a table has a video twice, or another number of videos than its manifest says."""
    if len(set(ids)) != len(ids) or count not in (None, len(ids)):
        raise InputError(
            f"{uri} has {len(ids)} rows of {len(set(ids))} videos, its manifest says {count}; "
            f"delete it, {tables.REMEDY}"
        )


def _manifest(uri: str) -> folders.Manifest:
    manifest = folders.read_manifest(uri)
    if manifest.stage != "index":
        raise InputError(f"{uri} is an output of stage {manifest.stage!r}; expected an output of stage 'index'")
    for name in ("videos", "tubes"):
        if not _is_input(manifest, name):
            raise InputError(
                f"{files.join(uri, folders.MANIFEST)} does not name the {name} that the index was made of, but "
                f"{manifest.inputs.get(name)}; delete it and run `previts index` again"
            )
    return manifest


def _is_input(manifest: folders.Manifest, name: str) -> bool:
    """Return whether an input is the one that was decided; an unfinished one counts, its files are checked later."""
    try:
        found = folders.read_manifest(manifest.inputs[name]).fingerprint
        return bool(found == manifest.decided.get(name, found))
    except KeyError:
        return False
    except InputError:
        return True
