"""Shards: tar files of normalised videos, each with a table of the bytes that hold each frame.

The store below PreViTS section 4.1. A shard is the unit of work and of resume; its table is written last and makes it
done, so a killed shard is simply built again. Every item of the crawl is a row, usable or with the reason why not.
Nothing here knows masks or models.
"""

import contextlib
import hashlib
import os
import tarfile
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from previts import errors
from previts.config.experiment import VideoConfig
from previts.corpus.video_table import VideoRecord, is_done, read_shard, tar_name
from previts.errors import VideoError
from previts.ingest import fetch
from previts.ingest.crawls import CrawlItem
from previts.ingest.fetch import DEFAULT_LIMITS, Limits
from previts.ingest.sandbox import Normaliser
from previts.media.gop_layout import VideoInfo
from previts.processes.progress import progress
from previts.storage import files, tables
from previts.storage.tables import table_name


def num_shards(num_items: int, config: VideoConfig) -> int:
    """Return how many shards a crawl of `num_items` videos makes."""
    return -(-num_items // config.videos_per_shard)


def shard_items(items: Sequence[CrawlItem], shard: int, config: VideoConfig) -> list[CrawlItem]:
    """Return the videos of one shard, in the order of the crawl."""
    first = shard * config.videos_per_shard
    return list(items[first : first + config.videos_per_shard])


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
        files.upload(tar, files.join(videos_uri, tar_name(shard)))
    tables.write_records(files.join(videos_uri, table_name(shard)), VideoRecord, rows)
    return rows


def _settled(items: Sequence[CrawlItem], shard: int, videos_uri: str, folder: str) -> dict[int, VideoRecord]:
    """Return by number the rows of an earlier attempt that still hold, and put their videos into `folder`.

    It was an attempt at the same crawl with the same configuration: another one lies at another address.
    """
    if not is_done(videos_uri, shard):
        return {}
    earlier = {row.video_id: row for row in read_shard(videos_uri, shard)}
    tar = files.join(videos_uri, tar_name(shard))
    kept = {}
    for number, item in enumerate(items):
        row = earlier.get(item.video_id)
        if row is None or row.retryable:
            continue
        if row.status == "ok":
            try:
                data = files.read_bytes(tar, row.offset, row.offset + row.size)
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
        fs, path = files.open_fs(files.join(videos_uri, table_name(shard)))
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
        return _record(item, error=str(error), retryable=isinstance(error, errors.FetchError) and error.retryable)
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
