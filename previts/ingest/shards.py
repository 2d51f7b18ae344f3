"""The builder of shards: tar files of normalised videos, each with a table of where every video is stored.

They hold the corpora of PreViTS section 4.1. A shard is the unit of work and of resuming. Its table is written last, so
a shard without a table is incomplete and is built again. Every item of the crawl is a row of the table: a stored video,
or the reason why it failed. `corpus.video_table` defines the table and reads the frames.
"""

import contextlib
import hashlib
import json
import os
import tarfile
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from previts import errors
from previts.config.perception import VideoConfig
from previts.corpus import withdrawals
from previts.corpus.video_table import VideoRecord, gop_crcs, is_done, read_shard, tar_name
from previts.errors import VideoError
from previts.ingest import fetch
from previts.ingest.crawls import CrawlItem
from previts.ingest.fetch import DEFAULT_LIMITS, Limits
from previts.ingest.sandbox import Lost, Normaliser
from previts.media.gop_layout import VideoInfo
from previts.processes.machine import memory_share
from previts.processes.progress import progress
from previts.processes.workers import available
from previts.storage import files, tables


@dataclass(frozen=True)
class Stored:
    """A row of an output, and the URI of the output."""

    videos_uri: str
    row: VideoRecord


def num_shards(num_items: int, config: VideoConfig) -> int:
    """Return the number of shards for a crawl of `num_items` videos."""
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
    lost: Lost | None = None,
    stored: Mapping[str, Stored] | None = None,
    ledger: withdrawals.Ledger | None = None,
) -> list[VideoRecord]:
    """Fetch and normalise the videos of a shard; write its tar, then its table.

    Args:
        items: The videos of this shard (`shard_items`).
        shard: Its number.
        videos_uri: The folder of all shards.
        config: How videos are stored.
        limits: Limits for each video.
        workers: Number of videos at a time; by default `workers.available()`. The bytes written do not depend on it.
            They share the memory of this machine.
        lost: The CPU time of videos that could not be stored is added to it.
        stored: Videos of other outputs with the same configuration, by identity; these are copied, not fetched.
        ledger: Withdrawn videos, which are neither fetched nor copied.

    Returns:
        One row for each item, in the order of `items`. If the shard was built before, its stored videos and its final
        failures are kept, and only its retryable failures are tried again.
    """
    workers = workers or min(len(items), available()) or 1
    limits = replace(limits, memory_bytes=min(limits.memory_bytes, memory_share(workers)))
    with (
        tempfile.TemporaryDirectory(prefix="previts-") as folder,
        _Normalisers(config, limits, lost or Lost()) as normalisers,
    ):
        with ThreadPoolExecutor(workers) as pool:
            withdrawn = _withdrawn_rows(items, ledger or withdrawals.Ledger())
            kept = _kept_rows(items, shard, videos_uri, stored or {}, folder, without=withdrawn) | withdrawn
            made = pool.map(
                lambda n: kept.get(n) or _store_video(items[n], n, folder, normalisers.of_thread(), limits),
                range(len(items)),
            )
            rows = list(progress(made, f"download shard {shard}", unit="video", total=len(items)))
        tar = os.path.join(folder, tar_name(shard))
        rows = _pack(rows, shard, folder, tar)
        tables.write_shard(
            videos_uri, shard, tar_name(shard), lambda uri: files.upload(tar, uri, create=True), VideoRecord, rows
        )
    return rows


def stored_videos(videos_uri: str) -> dict[str, Stored]:
    """Return what a finished output decided for good, by identity: stored videos and final failures."""
    rows = (row for shard in range(tables.shard_count(videos_uri)) for row in read_shard(videos_uri, shard))
    return {row.identity: Stored(videos_uri, row) for row in rows if row.identity and not row.retryable}


def _withdrawn_rows(items: Sequence[CrawlItem], ledger: withdrawals.Ledger) -> dict[int, VideoRecord]:
    """Return by number the rows of withdrawn videos: final failures with the reason."""
    rows = {}
    for number, item in enumerate(items):
        reason = None if item.fault else ledger.reason(item.video_id, item.url, item.identity)
        if reason is not None:
            rows[number] = _record(item, sandbox="", digest="", error=withdrawals.PREFIX + reason)
    return rows


def _kept_rows(
    items: Sequence[CrawlItem],
    shard: int,
    videos_uri: str,
    stored: Mapping[str, Stored],
    folder: str,
    *,
    without: Mapping[int, VideoRecord],
) -> dict[int, VideoRecord]:
    """Return by number the rows that are known already, and copy their videos into `folder`.

    They come from an earlier attempt at this shard, or from other outputs. All have the same configuration.
    """
    earlier: dict[str, Stored] = {}
    if is_done(videos_uri, shard):
        earlier = {row.video_id: Stored(videos_uri, row) for row in read_shard(videos_uri, shard) if not row.retryable}
    kept = {}
    for number, item in enumerate(items):
        found = earlier.get(item.video_id) or stored.get(item.identity)
        if found is None or number in without:
            continue
        row = found.row
        if row.status == "ok":
            try:
                tar = files.join(found.videos_uri, tar_name(row.shard))
                data = files.read_bytes(tar, row.offset, row.offset + row.size)
            except FileNotFoundError:
                continue
            if hashlib.sha256(data).hexdigest() != row.sha256:
                continue
            with open(_video_path(folder, number), "wb") as file:
                file.write(data)
        kept[number] = replace(row, video_id=item.video_id, url=item.url, label=item.label, split=item.split)
    return kept


class _Normalisers:
    """One `Normaliser` for each thread; all end together."""

    def __init__(self, config: VideoConfig, limits: Limits, lost: Lost) -> None:
        self._config, self._limits, self._lost = config, limits, lost
        self._thread = threading.local()
        self._open = contextlib.ExitStack()
        self._lock = threading.Lock()

    def __enter__(self) -> "_Normalisers":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def of_thread(self) -> Normaliser:
        """Return the normaliser of the calling thread, made at the first call."""
        if not hasattr(self._thread, "normaliser"):
            with self._lock:
                self._thread.normaliser = self._open.enter_context(
                    Normaliser(self._config, self._limits, lost=self._lost)
                )
        normaliser: Normaliser = self._thread.normaliser
        return normaliser


def _video_path(folder: str, number: int) -> str:
    return os.path.join(folder, f"{number}.mp4")


def _store_video(item: CrawlItem, number: int, folder: str, normaliser: Normaliser, limits: Limits) -> VideoRecord:
    """Fetch and normalise one video into `folder`; return its row, which has the reason if that fails."""
    source, target = os.path.join(folder, f"{number}.source"), _video_path(folder, number)
    sandbox = digest = ""
    try:
        if item.fault:
            raise VideoError(item.fault)
        fetch.fetch(item.url, source, limits, item.reach)
        with open(source, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            info = normaliser.normalise(source, target, item.start_seconds, item.end_seconds)
        finally:
            sandbox = json.dumps(normaliser.layers)
    except VideoError as error:
        with contextlib.suppress(FileNotFoundError):
            os.remove(target)
        retryable = isinstance(error, errors.FetchError) and error.retryable
        return _record(item, sandbox=sandbox, digest=digest, error=str(error), retryable=retryable)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(source)
    with open(target, "rb") as file:
        data = file.read()
    return _record(item, sandbox=sandbox, digest=digest, info=info, data=data)


def _record(
    item: CrawlItem,
    *,
    sandbox: str,
    digest: str,
    info: VideoInfo | None = None,
    error: str = "",
    retryable: bool = False,
    data: bytes = b"",
) -> VideoRecord:
    shape = info or VideoInfo(0, 0, 0, 0.0, b"", [], [])
    return VideoRecord(
        video_id=item.video_id,
        url=item.url,
        identity=item.identity,
        label=item.label,
        split=item.split,
        status="ok" if info else "failed",
        error=error,
        retryable=retryable,
        shard=-1,
        offset=-1,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest() if info else "",
        width=shape.width,
        height=shape.height,
        num_frames=shape.num_frames,
        fps=shape.fps,
        header=shape.header,
        gop_frames=shape.gop_frames,
        gop_offsets=shape.gop_offsets,
        gop_crcs=gop_crcs(data, shape.gop_offsets),
        skipped_frames=shape.skipped_frames,
        missing_seconds=round(shape.missing_seconds, 3),
        sandbox=sandbox,
        hashes=shape.hashes,
        source_sha256=digest,
        start_seconds=item.start_seconds,
        end_seconds=item.end_seconds,
    )


def _pack(rows: Sequence[VideoRecord], shard: int, folder: str, tar: str) -> list[VideoRecord]:
    """Write the videos of the usable rows to a tar; return all rows with their offsets in it."""
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        for number, row in enumerate(rows):
            if row.status == "ok":
                # The same crawl gives the same bytes: the member has no date, owner or mode of this machine.
                member = tarfile.TarInfo(f"{row.video_id}.mp4")
                member.size = row.size
                with open(_video_path(folder, number), "rb") as file:
                    archive.addfile(member, file)
    with tarfile.open(tar) as archive:
        offsets = {member.name: member.offset_data for member in archive.getmembers()}
    return [replace(row, shard=shard, offset=offsets.get(f"{row.video_id}.mp4", -1)) for row in rows]
