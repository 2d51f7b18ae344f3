"""Salient pixels of every k-th frame of every usable video, as run lengths in a table per shard.

PreViTS section 3.2: a saliency map chooses the object; SORT needs one on every key frame to follow it (`tubes.py`).
Knows which maps there are and where they are written, never how a map is computed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from previts import records, shards, storage
from previts.errors import InputError
from previts.experiment import SaliencyConfig
from previts.masks import encode_rle
from previts.progress import progress
from previts.saliency.priors import rbd
from previts.video import VideoError

FRAMES_AT_ONCE = 240  # decoded frames held in memory: a multiple of the GOP, so that no GOP is decoded twice


@dataclass(frozen=True)
class SaliencyRecord:
    """The salient pixels of one key frame at the resolution of the clip; counts as `masks.encode_rle` writes them."""

    video_id: str
    frame: int
    height: int
    width: int
    counts: list[int]


def saliency_map(image_HWC: npt.NDArray[np.uint8], config: SaliencyConfig) -> npt.NDArray[np.float32]:
    """Return the saliency (height, width) of an RGB image, in [0, 1]."""
    match config.method:
        case "rbd":
            return rbd(image_HWC)
        case _:
            assert_never(config.method)


def is_done(saliency_uri: str, shard: int) -> bool:
    """Return whether a shard's masks are written."""
    return storage.exists(storage.join(saliency_uri, shards.table_name(shard)))


def read_shard(saliency_uri: str, shard: int) -> list[SaliencyRecord]:
    """Return the rows of a shard: all key frames of a video one after the other, videos in the order of the shard."""
    return records.read_records(storage.join(saliency_uri, shards.table_name(shard)), SaliencyRecord)


def predict_shard(videos_uri: str, shard: int, config: SaliencyConfig, target_uri: str) -> dict[str, int]:
    """Write the salient pixels of every k-th frame of every usable video of a shard.

    Returns:
        Counts: videos, key_frames, and salient_frames, the key frames with any salient pixel.

    Raises:
        InputError: If a video cannot be decoded any more.
    """
    usable = [video for video in shards.read_shard(videos_uri, shard) if video.status == "ok"]
    rows: list[SaliencyRecord] = []
    # Workers share a machine by shards. On 200 x 200 matrices threads of BLAS only wait for each other: on a busy
    # machine they made a map four times as dear.
    with threadpool_limits(limits=1, user_api="blas"):
        for video in progress(usable, f"saliency, shard {shard}", unit="video"):
            rows.extend(_video_rows(videos_uri, video, config))
    records.write_records(storage.join(target_uri, shards.table_name(shard)), SaliencyRecord, rows)
    return {"videos": len(usable), "key_frames": len(rows), "salient_frames": sum(len(row.counts) > 1 for row in rows)}


def _video_rows(videos_uri: str, video: shards.VideoRecord, config: SaliencyConfig) -> Iterator[SaliencyRecord]:
    for start in range(0, video.num_frames, FRAMES_AT_ONCE):
        key_frames = [
            frame for frame in range(start, min(start + FRAMES_AT_ONCE, video.num_frames)) if frame % config.every == 0
        ]
        if not key_frames:
            continue
        try:
            image_THWC = shards.read_frames(videos_uri, video, key_frames)
        except VideoError as error:
            raise InputError(
                f"video {video.video_id!r} of {shards.tar_name(video.shard)} in {videos_uri} cannot be read: {error}; "
                f"delete {shards.table_name(video.shard)} and {storage.MANIFEST} there and run `previts download` again"
            ) from error
        for frame, image in zip(key_frames, image_THWC, strict=True):
            mask = saliency_map(image, config) > config.threshold
            yield SaliencyRecord(video.video_id, frame, video.height, video.width, encode_rle(mask))
