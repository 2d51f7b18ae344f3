"""Stored videos: the table of a shard, and the frames of its tar file.

The store below PreViTS section 4.1. `download` writes these tables (`ingest.shards`); every later stage reads them.
This file computes nothing and knows neither masks nor models.
"""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np

from previts.errors import InputError, VideoError
from previts.media import frame_decoder
from previts.media.frame_decoder import Planes
from previts.media.geometry import Pixels
from previts.storage import files, folders, tables
from previts.storage.files import read_ranges
from previts.storage.tables import table_name

Picture = TypeVar("Picture")


@dataclass(frozen=True)
class VideoRecord:
    """One video of a crawl: its place in the tar of its shard, or why it has none.

    `offset` and `size` are of the stored file in the tar, `gop_offsets` are relative to `offset`; see `gops.VideoInfo`.
    A failed video has `error`; with `retryable` the failure may be temporary.
    """

    video_id: str
    url: str
    label: str
    split: str
    status: Literal["ok", "failed"]
    error: str
    retryable: bool
    shard: int
    offset: int
    size: int
    sha256: str
    width: int
    height: int
    num_frames: int
    fps: float
    header: bytes
    gop_frames: list[int]
    gop_offsets: list[int]


class StoredVideo(Protocol):
    """Where the frames of one stored video are: `VideoRecord` and `IndexRecord` have these fields."""

    @property
    def video_id(self) -> str: ...  # noqa: D102
    @property
    def shard(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def num_frames(self) -> int: ...  # noqa: D102
    @property
    def header(self) -> bytes: ...  # noqa: D102
    @property
    def gop_frames(self) -> list[int]: ...  # noqa: D102
    @property
    def gop_offsets(self) -> list[int]: ...  # noqa: D102


def tar_name(shard: int) -> str:
    """Return the file name of a shard's videos."""
    return f"shard-{shard:05d}.tar"


def is_done(videos_uri: str, shard: int) -> bool:
    """Return whether a shard is complete."""
    return files.exists(files.join(videos_uri, table_name(shard)))


def read_shard(videos_uri: str, shard: int) -> list[VideoRecord]:
    """Return the rows of a finished shard, in the order of the crawl.

    Raises:
        InputError: If its table is missing or damaged.
    """
    return tables.read_records(files.join(videos_uri, table_name(shard)), VideoRecord)


def read_frames(videos_uri: str, record: StoredVideo, frames: Sequence[int]) -> Pixels:
    """Return frames of a stored video, fetching only the GOPs that hold them.

    Args:
        videos_uri: The folder of all shards.
        record: A row of a shard's table, or anything with the same place fields.
        frames: Numbers in [0, num_frames), in any order, repeats allowed.

    Returns:
        [len(frames), height, width, 3] uint8 RGB.

    Raises:
        ValueError: If no frame is wanted, or one that the video does not have.
        VideoError: If the bytes are damaged.
        InputError: If the tar is missing.
    """
    pictures: list[Pixels] = _read(videos_uri, record, frames, frame_decoder.decode_gops)
    return np.stack(pictures)


def read_planes(videos_uri: str, record: StoredVideo, frames: Sequence[int]) -> list[Planes]:
    """Return frames of a stored video as `read_frames` does, one by one and in the colours that they are stored in."""
    return _read(videos_uri, record, frames, frame_decoder.decode_planes)


def _read(
    videos_uri: str,
    record: StoredVideo,
    frames: Sequence[int],
    decode: Callable[[bytes, bytes, Sequence[int]], list[Picture]],
) -> list[Picture]:
    if not frames or min(frames) < 0 or max(frames) >= record.num_frames:
        raise ValueError(f"frames must be in [0, {record.num_frames}) and at least one, got {list(frames)}")
    gops = sorted({bisect.bisect_right(record.gop_frames, frame) - 1 for frame in frames})
    runs = [[gops[0], gops[0] + 1]]
    for gop in gops[1:]:
        if gop == runs[-1][1]:
            runs[-1][1] = gop + 1
        else:
            runs.append([gop, gop + 1])
    uri = files.join(videos_uri, tar_name(record.shard))
    decoded: dict[int, Picture] = {}
    try:
        for (start, stop), data in zip(runs, _read_runs(uri, record, runs), strict=True):
            first = record.gop_frames[start]
            last = record.gop_frames[stop] if stop < len(record.gop_frames) else record.num_frames
            here = sorted({frame for frame in frames if first <= frame < last})
            pictures = decode(data, record.header, [frame - first for frame in here])
            decoded.update(zip(here, pictures, strict=True))
    except VideoError as error:
        raise VideoError(f"video {record.video_id!r} in {uri}: {error}") from error
    return [decoded[frame] for frame in frames]


def unreadable(videos_uri: str, record: StoredVideo, error: VideoError) -> InputError:
    """Return the error for a stored video that cannot be decoded any more, with what to do."""
    return InputError(
        f"video {record.video_id!r} of {tar_name(record.shard)} in {videos_uri} cannot be read: {error}; "
        f"delete {table_name(record.shard)} and {folders.MANIFEST} there and run `previts download` again"
    )


def _read_runs(uri: str, record: StoredVideo, runs: Sequence[Sequence[int]]) -> list[bytes]:
    """Return the bytes of each run of GOPs."""
    starts = [record.offset + record.gop_offsets[start] for start, _ in runs]
    stops = [record.offset + record.gop_offsets[stop] for _, stop in runs]
    try:
        return read_ranges(uri, starts, stops)
    except FileNotFoundError:
        raise InputError(
            f"{uri} is missing; delete {table_name(record.shard)} and {folders.MANIFEST} beside it "
            "and run `previts download` again"
        ) from None
