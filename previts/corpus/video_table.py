"""The table of a shard's stored videos, and the reader of frames from its tar file.

They store the corpora of PreViTS section 4.1. The stage `download` writes these tables (`ingest.shards`), and every
later stage reads them. This module computes nothing from the frames.
"""

import bisect
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Annotated, Any, Literal, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from previts.corpus import withdrawals
from previts.errors import InputError, VideoError
from previts.media import frame_decoder
from previts.media.frame_decoder import Planes
from previts.media.geometry import Pixels
from previts.storage import files, folders, tables
from previts.storage.files import read_ranges
from previts.storage.tables import Count, Crc, Place, Positive, Rate, Side, Within, table_name

Decoded = TypeVar("Decoded")  # a frame as a decoder returns it


@dataclass(frozen=True)
class VideoRecord:
    """One video of a crawl: where it is stored in the tar of its shard, or why it is not.

    Attributes:
        identity: Of its source and window, as far as it is known before the video is fetched; "" for a broken line.
        status: "ok" if the video is stored, else "failed".
        error: Why it failed; "" if it is stored.
        retryable: Whether the failure may be temporary.
        offset: First byte of the stored file in the tar; -1 if it failed.
        size: Number of bytes of the stored file.
        sha256: Digest of the stored file.
        header: As `gop_offsets` and the other columns of the layout, see `gop_layout.VideoInfo`.
        gop_offsets: First byte of each GOP, relative to `offset`.
        gop_crcs: CRC-32 of the bytes of each GOP.
        skipped_frames: Number of frames of the source in the window that could not be used.
        missing_seconds: How much the container promises beyond its end, at least; above 0, the video is shortened.
        sandbox: How its decoder was confined: for each layer its state, as JSON; "" if nothing was decoded.
        hashes: Of its frames, as in `media.frame_hashes`; b"" if none has a hash.
        source_sha256: Digest of the fetched source file; "" if it was not fetched.
        start_seconds: Start of the window in the source; None for its start.
        end_seconds: End of the window; None for the end of the source.
    """

    video_id: str
    url: str
    identity: str
    label: str
    split: str
    status: Literal["ok", "failed"]
    error: str
    retryable: bool
    shard: Count
    offset: Annotated[int, Within(-1, 2**61)]
    size: Place
    sha256: str
    width: Side
    height: Side
    num_frames: Count
    fps: Rate
    header: bytes
    gop_frames: list[Count]
    gop_offsets: list[Place]
    gop_crcs: list[Crc]
    skipped_frames: Annotated[int, Within(0)]
    missing_seconds: Positive
    sandbox: str
    hashes: bytes
    source_sha256: str
    start_seconds: float | None
    end_seconds: float | None


class StoredVideo(Protocol):
    """The columns that are needed to read frames; `VideoRecord` and `IndexRecord` have them."""

    @property
    def video_id(self) -> str: ...  # noqa: D102
    @property
    def shard(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def height(self) -> int: ...  # noqa: D102
    @property
    def num_frames(self) -> int: ...  # noqa: D102
    @property
    def header(self) -> bytes: ...  # noqa: D102
    @property
    def gop_frames(self) -> list[int]: ...  # noqa: D102
    @property
    def gop_offsets(self) -> list[int]: ...  # noqa: D102
    @property
    def gop_crcs(self) -> list[int]: ...  # noqa: D102


class LaidOutVideo(StoredVideo, Protocol):
    """The columns that a row needs to be checked as a whole."""

    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def fps(self) -> float: ...  # noqa: D102


def tar_name(shard: int) -> str:
    """Return the file name of the tar of a shard."""
    return f"shard-{shard:05d}.tar"


def is_done(videos_uri: str, shard: int) -> bool:
    """Return whether a shard is complete; its table is written last."""
    return files.exists(files.join(videos_uri, table_name(shard)))


def read_shard(videos_uri: str, shard: int) -> list[VideoRecord]:
    """Return the rows of a finished shard, in the order of the crawl.

    Raises:
        InputError: If its table is missing or damaged.
    """
    uri = files.join(videos_uri, table_name(shard))
    rows = tables.read_records(uri, VideoRecord)
    _check_shard(uri, shard, ((row.shard, row.video_id) for row in rows))
    for row in rows:
        if row.status == "ok":
            check_layout(row, uri)
    return rows


def read_layouts(videos_uri: str, shard: int, columns: Sequence[str]) -> pa.Table:
    """Return columns of the stored videos of a finished shard, in the order of the crawl.

    Args:
        videos_uri: The folder of all shards.
        shard: Number of the shard.
        columns: Names, among them those of `LaidOutVideo`.

    Raises:
        InputError: If its table is missing or damaged.
    """
    uri = files.join(videos_uri, table_name(shard))
    table = tables.read_table(uri, VideoRecord, [*columns, "status"])
    of_others = table.filter(pc.not_equal(table.column("shard"), shard)).column("video_id").to_pylist()
    _check_shard(uri, shard, ((-1, video_id) for video_id in of_others))
    table = table.filter(pc.equal(table.column("status"), "ok")).select(columns)
    for number in _unusual_layouts(table):
        check_layout(tables.row(table, SimpleNamespace, number), uri)
    return table


def _unusual_layouts(table: pa.Table) -> list[int]:
    """Return the rows whose layout may be wrong, among them all that are: `check_layout` takes long."""
    width, height, fps, offset, size, frames = (
        table.column(name).to_numpy() for name in ("width", "height", "fps", "offset", "size", "num_frames")
    )
    wrong = (width < 1) | (height < 1) | (fps == 0) | (offset < 0)
    starts, gops = _lists(table.column("gop_frames"))
    stops, offsets = _lists(table.column("gop_offsets"))
    _, crcs = _lists(table.column("gop_crcs"))
    wrong |= (gops != crcs) | (offsets != gops + 1) | (gops == 0)
    for values, lengths, last, falls in ((starts, gops, frames, np.less_equal), (stops, offsets, size, np.less)):
        owners = np.repeat(np.arange(len(table)), lengths)
        within = owners[1:] == owners[:-1]
        wrong[owners[1:][within & falls(values[1:], values[:-1])]] = True
        ends = np.cumsum(lengths)[lengths > 0]
        wrong[lengths > 0] |= falls(last[lengths > 0], values[ends - 1]) | (values[ends - lengths[lengths > 0]] < 0)
    filled = np.flatnonzero(gops)
    wrong[filled] |= starts[(np.cumsum(gops) - gops)[filled]] != 0
    return np.flatnonzero(wrong).tolist()


def _lists(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of all lists of a column one after the other, and the length of each list."""
    lists = column.combine_chunks()
    return lists.flatten().to_numpy(zero_copy_only=False), pc.list_value_length(lists).to_numpy(zero_copy_only=False)


def read_stored(videos_uri: str, shard: int, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the stored videos of a finished shard, each as its `video_id` and some other columns by name.

    This takes a fraction of the time and memory of `read_shard`.

    Raises:
        InputError: If the table is missing or damaged.
    """
    return [row for row in read_columns(videos_uri, shard, columns) if row["status"] == "ok"]


def read_columns(videos_uri: str, shard: int, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return all videos of a finished shard, also those that failed, as `read_stored` does.

    Raises:
        InputError: If the table is missing or damaged.
    """
    uri = files.join(videos_uri, table_name(shard))
    table = tables.read_table(uri, VideoRecord, ["video_id", "shard", "status", *columns])
    rows: list[dict[str, Any]] = table.to_pylist()
    _check_shard(uri, shard, ((row["shard"], row["video_id"]) for row in rows))
    return rows


def _check_shard(uri: str, shard: int, rows: Iterable[tuple[int, str]]) -> None:
    if wrong := [video_id for found, video_id in rows if found != shard]:
        raise InputError(f"{uri} lists videos of another shard, such as {wrong[0]!r}; delete it, {tables.REMEDY}")


def is_withdrawn(row: VideoRecord, ledger: withdrawals.Ledger) -> bool:
    """Return whether a video is withdrawn."""
    return ledger.reason(row.video_id, row.url, row.identity) is not None


def _check_not_withdrawn(videos_uri: str, shard: int, video_id: str) -> None:
    """Raise a WithdrawnError if a video, whose bytes are not those that were stored, was withdrawn."""
    try:
        ledger = withdrawals.read(withdrawals.root_of(videos_uri))
        rows = read_shard(videos_uri, shard) if ledger else []
    except (InputError, OSError):  # then the caller says that the bytes are damaged
        return
    for row in rows:
        if row.video_id == video_id:
            ledger.check(videos_uri, row.video_id, row.url, row.identity)


def check_layout(row: LaidOutVideo, uri: str) -> None:
    """Raise an InputError if the columns of a row do not fit together; `uri` names its table."""
    starts, stops = [*row.gop_frames, row.num_frames], [0, *row.gop_offsets, row.size]
    wrong = ""
    if min(row.width, row.height) < 1 or not row.fps:
        wrong = f"its frames have {row.height} x {row.width} pixels and a rate of {row.fps:g}"
    elif row.offset < 0 or any(start > stop for start, stop in pairwise(stops)):
        wrong = f"its bytes start at {row.offset}, and its GOPs do not follow each other within {row.size} bytes"
    elif starts[0] or any(start >= stop for start, stop in pairwise(starts)):
        wrong = f"its GOPs do not follow each other within {row.num_frames} frames"
    elif (len(row.gop_offsets), len(row.gop_crcs)) != (len(row.gop_frames) + 1, len(row.gop_frames)):
        wrong = f"it has {len(row.gop_frames)} GOPs, {len(row.gop_offsets)} offsets and {len(row.gop_crcs)} checksums"
    if wrong:
        raise InputError(f"{uri}: the row of video {row.video_id!r} is wrong ({wrong}); delete it, {tables.REMEDY}")


def gop_crcs(data: bytes, gop_offsets: Sequence[int]) -> list[int]:
    """Return the CRC-32 of each GOP in the bytes of a stored file."""
    view = memoryview(data)
    return [zlib.crc32(view[start:stop]) for start, stop in pairwise(gop_offsets)]


def read_frames(videos_uri: str, record: StoredVideo, frames: Sequence[int]) -> Pixels:
    """Return frames of a stored video; only the bytes of their GOPs are read.

    Args:
        videos_uri: The folder of all shards.
        record: A row of a shard's table or of the index.
        frames: Numbers in [0, num_frames), in any order, repeats allowed.

    Returns:
        The frames (len(frames), height, width, 3), uint8 RGB.

    Raises:
        ValueError: If `frames` is empty or has a number that the video does not have.
        VideoError: If the bytes are damaged, or their frames have another size than the row.
        InputError: If the tar is missing, or the video was withdrawn and its bytes were deleted.
    """
    decoded: dict[int, Pixels] = dict(
        _read(videos_uri, record, frames, frame_decoder.decode_gops, lambda image: (image.shape[0], image.shape[1]))
    )
    return np.stack([decoded[frame] for frame in frames])


def read_planes(
    videos_uri: str, record: StoredVideo, frames: Sequence[int], read: files.Read = read_ranges
) -> Iterator[tuple[int, Planes]]:
    """Yield (number, planes) of frames of a stored video, ascending and without repeats, and not converted to RGB.

    Drop the planes of a frame before requesting the next one: see `frame_decoder.decode_planes`. `read` reads the
    `byte_ranges` of these frames.

    Raises:
        ValueError: As of `read_frames`.
        VideoError: As of `read_frames`; some frames may be yielded before it.
        InputError: As of `read_frames`.
    """
    return _read(
        videos_uri,
        record,
        frames,
        frame_decoder.decode_planes,
        lambda image: (image.y.shape[0], image.y.shape[1]),
        read,
    )


def byte_ranges(videos_uri: str, record: StoredVideo, frames: Sequence[int]) -> files.Ranges:
    """Return the ranges of bytes that contain frames of a stored video.

    Raises:
        ValueError: As of `read_frames`.
    """
    return _ranges(videos_uri, record, _runs(record, frames))


def unreadable(videos_uri: str, record: StoredVideo, error: VideoError) -> InputError:
    """Return the error for a stored video that can no longer be decoded; its message says what to do."""
    return InputError(
        f"video {record.video_id!r} of {tar_name(record.shard)} in {videos_uri} cannot be read: {error}; "
        f"delete {table_name(record.shard)} and {folders.MANIFEST} there and run `previts download` again"
    )


def _read(
    videos_uri: str,
    record: StoredVideo,
    frames: Sequence[int],
    decode: Callable[[bytes, bytes, Sequence[int]], Iterable[Decoded]],
    shape_of: Callable[[Decoded], tuple[int, int]],
    read: files.Read = read_ranges,
) -> Iterator[tuple[int, Decoded]]:
    """Yield (number, frame) as `decode` returns them, ascending; neighbouring GOPs are read and decoded as one run."""
    runs = _runs(record, frames)
    ranges = _ranges(videos_uri, record, runs)
    uri = ranges.uri
    try:
        for (start, stop), data in zip(runs, _read_bytes(ranges, record.shard, read), strict=True):
            _check(data, record, start, stop)
            first = record.gop_frames[start]
            last = record.gop_frames[stop] if stop < len(record.gop_frames) else record.num_frames
            here = sorted({frame for frame in frames if first <= frame < last})
            images = decode(data, record.header, [frame - first for frame in here])
            for frame, image in zip(here, images, strict=True):
                height, width = shape_of(image)
                if (height, width) != (record.height, record.width):
                    raise VideoError(
                        f"damaged: its frames are {height} x {width}, its row says {record.height} x {record.width}"
                    )
                yield frame, image
    except VideoError as error:
        _check_not_withdrawn(videos_uri, record.shard, record.video_id)
        raise VideoError(f"video {record.video_id!r} in {uri}: {error}") from error


def _check(data: bytes, record: StoredVideo, start: int, stop: int) -> None:
    """Raise a VideoError if the bytes of the GOPs [start, stop) are not those that were stored."""
    offsets, crcs, view = record.gop_offsets, record.gop_crcs, memoryview(data)
    first = offsets[start]
    found = (zlib.crc32(view[offsets[gop] - first : offsets[gop + 1] - first]) for gop in range(start, stop))
    if len(data) != offsets[stop] - first or any(crc != crcs[start + n] for n, crc in enumerate(found)):
        raise VideoError("damaged: the bytes differ from those that were stored")


def _runs(record: StoredVideo, frames: Sequence[int]) -> list[tuple[int, int]]:
    """Return the runs [start, stop) of neighbouring GOPs that contain frames."""
    if not frames or min(frames) < 0 or max(frames) >= record.num_frames:
        raise ValueError(f"frames must be in [0, {record.num_frames}), and at least one is needed, got {list(frames)}")
    gops = sorted({bisect.bisect_right(record.gop_frames, frame) - 1 for frame in frames})
    runs = [(gops[0], gops[0] + 1)]
    for gop in gops[1:]:
        if gop == runs[-1][1]:
            runs[-1] = (runs[-1][0], gop + 1)
        else:
            runs.append((gop, gop + 1))
    return runs


def _ranges(videos_uri: str, record: StoredVideo, runs: Sequence[tuple[int, int]]) -> files.Ranges:
    starts = [record.offset + record.gop_offsets[start] for start, _ in runs]
    stops = [record.offset + record.gop_offsets[stop] for _, stop in runs]
    return files.Ranges(files.join(videos_uri, tar_name(record.shard)), starts, stops)


def _read_bytes(ranges: files.Ranges, shard: int, read: files.Read) -> list[bytes]:
    try:
        return read(*ranges)
    except (FileNotFoundError, IsADirectoryError) as error:
        what = "a folder, expected a file" if isinstance(error, IsADirectoryError) else "missing"
        raise InputError(
            f"{ranges.uri} is {what}; delete {table_name(shard)} and {folders.MANIFEST} next to it "
            "and run `previts download` again"
        ) from None
