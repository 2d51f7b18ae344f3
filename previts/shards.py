"""Shards: tar files of normalised videos, each with a table of the bytes that hold each frame.

The store below PreViTS section 4.1. A shard is the unit of work and of resume; its table is written last and makes it
done, so a killed shard is simply built again. Every item of the crawl is a row, usable or with the reason why not.
Nothing here knows masks or models.
"""

import bisect
import contextlib
import functools
import hashlib
import os
import tarfile
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeVar

import numpy as np

from previts import decoder, fetch, records, storage
from previts.crawls import CrawlItem
from previts.decoder import Planes
from previts.errors import InputError
from previts.fetch import DEFAULT_LIMITS, Limits
from previts.progress import progress
from previts.sandbox import Normaliser
from previts.video import Pixels, VideoConfig, VideoError, VideoInfo

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


def table_name(shard: int) -> str:
    """Return the file name of a shard's table."""
    return f"shard-{shard:05d}.parquet"


def num_shards(num_items: int, config: VideoConfig) -> int:
    """Return how many shards a crawl of `num_items` videos makes."""
    return -(-num_items // config.videos_per_shard)


def shard_items(items: Sequence[CrawlItem], shard: int, config: VideoConfig) -> list[CrawlItem]:
    """Return the videos of one shard, in the order of the crawl."""
    first = shard * config.videos_per_shard
    return list(items[first : first + config.videos_per_shard])


def is_done(videos_uri: str, shard: int) -> bool:
    """Return whether a shard is complete."""
    return storage.exists(storage.join(videos_uri, table_name(shard)))


def read_shard(videos_uri: str, shard: int) -> list[VideoRecord]:
    """Return the rows of a finished shard, in the order of the crawl.

    Raises:
        InputError: If its table is missing or damaged.
    """
    return records.read_records(storage.join(videos_uri, table_name(shard)), VideoRecord)


def build_shard(
    items: Sequence[CrawlItem],
    shard: int,
    videos_uri: str,
    config: VideoConfig,
    *,
    limits: Limits = DEFAULT_LIMITS,
    workers: int | None = None,
) -> list[VideoRecord]:
    """Fetch and normalise the videos of a shard; write its tar, then its table.

    Args:
        items: The videos of this shard (`shard_items`).
        shard: Its number.
        videos_uri: The folder of all shards.
        config: How videos are stored.
        limits: What one video may cost.
        workers: How many videos are worked on at once; one per CPU by default. The bytes written do not depend on it.

    Returns:
        One row per item, in the order of `items`. If the shard was built before, only its retryable failures are tried
        again.
    """
    workers = workers or min(len(items), len(os.sched_getaffinity(0))) or 1
    with tempfile.TemporaryDirectory(prefix="previts-") as folder, _Workers(config, limits) as normalisers:
        with ThreadPoolExecutor(workers) as pool:
            settled = _settled(items, shard, videos_uri, folder)
            made = pool.map(
                lambda n: settled.get(n) or _store_video(items[n], n, folder, normalisers.mine(), limits),
                range(len(items)),
            )
            rows = list(progress(made, f"download shard {shard}", unit="video", total=len(items)))
        tar = os.path.join(folder, tar_name(shard))
        rows = _pack(rows, shard, folder, tar)
        # A table that speaks of another tar must not outlive this line.
        _forget(videos_uri, shard)
        storage.upload(tar, storage.join(videos_uri, tar_name(shard)))
    records.write_records(storage.join(videos_uri, table_name(shard)), VideoRecord, rows)
    return rows


def _settled(items: Sequence[CrawlItem], shard: int, videos_uri: str, folder: str) -> dict[int, VideoRecord]:
    """Return by number the rows of an earlier attempt that still hold, and put their videos into `folder`.

    It was an attempt at the same crawl with the same configuration: another one lies at another address.
    """
    if not is_done(videos_uri, shard):
        return {}
    earlier = {row.video_id: row for row in read_shard(videos_uri, shard)}
    tar = storage.join(videos_uri, tar_name(shard))
    kept = {}
    for number, item in enumerate(items):
        row = earlier.get(item.video_id)
        if row is None or row.retryable:
            continue
        if row.status == "ok":
            try:
                data = storage.read_bytes(tar, row.offset, row.offset + row.size)
            except FileNotFoundError:
                continue
            if hashlib.sha256(data).hexdigest() != row.sha256:
                continue
            with open(_video_path(folder, number), "wb") as file:
                file.write(data)
        kept[number] = replace(row, url=item.url)
    return kept


def _forget(videos_uri: str, shard: int) -> None:
    if is_done(videos_uri, shard):
        fs, path = storage.open_fs(storage.join(videos_uri, table_name(shard)))
        fs.rm_file(path)


class _Workers:
    """One `Normaliser` for each thread that asks."""

    def __init__(self, config: VideoConfig, limits: Limits) -> None:
        self._config, self._limits = config, limits
        self._thread = threading.local()
        self._all = contextlib.ExitStack()
        self._lock = threading.Lock()

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *error: object) -> None:
        self._all.close()

    def mine(self) -> Normaliser:
        if not hasattr(self._thread, "normaliser"):
            with self._lock:
                self._thread.normaliser = self._all.enter_context(Normaliser(self._config, self._limits))
        normaliser: Normaliser = self._thread.normaliser
        return normaliser


def _video_path(folder: str, number: int) -> str:
    return os.path.join(folder, f"{number}.mp4")


def _store_video(item: CrawlItem, number: int, folder: str, normaliser: Normaliser, limits: Limits) -> VideoRecord:
    """Return the row of one video; if it is usable, its stored form is put into `folder`."""
    source, target = os.path.join(folder, f"{number}.source"), _video_path(folder, number)
    try:
        fetch.fetch(item.url, source, limits)
        info = normaliser.normalise(source, target, item.start_seconds, item.end_seconds)
    except VideoError as error:
        with contextlib.suppress(FileNotFoundError):
            os.remove(target)
        return _record(item, error=str(error), retryable=isinstance(error, fetch.FetchError) and error.retryable)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(source)
    with open(target, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return _record(item, info=info, size=os.path.getsize(target), sha256=digest)


def _record(
    item: CrawlItem,
    *,
    info: VideoInfo | None = None,
    error: str = "",
    retryable: bool = False,
    size: int = 0,
    sha256: str = "",
) -> VideoRecord:
    shape = info or VideoInfo(0, 0, 0, 0.0, b"", [], [])
    return VideoRecord(
        video_id=item.video_id,
        url=item.url,
        label=item.label,
        split=item.split,
        status="ok" if info else "failed",
        error=error,
        retryable=retryable,
        shard=-1,
        offset=-1,
        size=size,
        sha256=sha256,
        width=shape.width,
        height=shape.height,
        num_frames=shape.num_frames,
        fps=shape.fps,
        header=shape.header,
        gop_frames=shape.gop_frames,
        gop_offsets=shape.gop_offsets,
    )


def _pack(rows: Sequence[VideoRecord], shard: int, folder: str, tar: str) -> list[VideoRecord]:
    """Write the videos of the usable rows to a tar; return all rows with their place in it."""
    placed = []
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        for number, row in enumerate(rows):
            if row.status == "ok":
                # The same crawl gives the same bytes: no dates, owners or modes of this machine.
                member = tarfile.TarInfo(f"{row.video_id}.mp4")
                member.size = row.size
                with open(_video_path(folder, number), "rb") as file:
                    archive.addfile(member, file)
    with tarfile.open(tar) as archive:
        offsets = {member.name: member.offset_data for member in archive.getmembers()}
    for row in rows:
        placed.append(replace(row, shard=shard, offset=offsets.get(f"{row.video_id}.mp4", -1)))
    return placed


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
    pictures: list[Pixels] = _read(videos_uri, record, frames, decoder.decode_gops)
    return np.stack(pictures)


def read_planes(videos_uri: str, record: StoredVideo, frames: Sequence[int]) -> list[Planes]:
    """Return frames of a stored video as `read_frames` does, one by one and in the colours that they are stored in."""
    return _read(videos_uri, record, frames, decoder.decode_planes)


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
    uri = storage.join(videos_uri, tar_name(record.shard))
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
        f"delete {table_name(record.shard)} and {storage.MANIFEST} there and run `previts download` again"
    )


def _read_runs(uri: str, record: StoredVideo, runs: Sequence[Sequence[int]]) -> list[bytes]:
    """Return the bytes of each run of GOPs."""
    starts = [record.offset + record.gop_offsets[start] for start, _ in runs]
    stops = [record.offset + record.gop_offsets[stop] for _, stop in runs]
    try:
        return read_ranges(uri, starts, stops)
    except FileNotFoundError:
        raise InputError(
            f"{uri} is missing; delete {table_name(record.shard)} and {storage.MANIFEST} beside it "
            "and run `previts download` again"
        ) from None


def read_ranges(uri: str, starts: Sequence[int], stops: Sequence[int]) -> list[bytes]:
    """Return ranges of bytes of one file; a remote store is asked for all at once.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    fs, path = _opened(uri)
    if not storage.is_local(fs):
        return [bytes(block) for block in fs.cat_ranges([path] * len(starts), starts, stops, on_error="raise")]
    file = os.open(path, os.O_RDONLY)
    try:
        return [os.pread(file, stop - start, start) for start, stop in zip(starts, stops, strict=True)]
    finally:
        os.close(file)


# A loader asks for the same few thousand files again and again.
_opened = functools.lru_cache(maxsize=4096)(storage.open_fs)
