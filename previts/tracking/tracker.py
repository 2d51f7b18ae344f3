"""Tracker of a shard: builds the tube of the salient object of each video and writes the shard's table of tubes.

PreViTS section 3.2. `target.py` follows the object from one key frame to the next. This file fills the frames between
key frames. It reads saliency as masks (`corpus/region_table.py`) and computes none.

Shape suffixes: R regions, H W pixels.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np

from previts.config.perception import TrackConfig
from previts.corpus import region_table, video_table
from previts.corpus.tube_table import Tube, TubeRecord, blob_name
from previts.errors import InputError
from previts.media.masks import Mask, encode_rle
from previts.processes import workers
from previts.processes.progress import progress
from previts.storage import files, tables
from previts.tracking import target


def build_tube(
    masks: Iterable[Mask],
    key_frames: Sequence[int],
    num_frames: int,
    config: TrackConfig,
    *,
    first: Mask | None = None,
) -> Tube:
    """Return the tube of the object that `target.follow` finds.

    The mask of a key frame contains the pixels of the matched region. Between two successive key frames that are both
    matched, each frame has the mask of the nearer one (the earlier at a tie). If the last two key frames are both
    matched, the last mask is used to the end of the video. All other frames are empty.

    Args:
        masks: Salient pixels of each key frame: a mask (H, W), or regions (R, H, W) that may overlap.
        key_frames: Frame numbers of `masks`, increasing.
        num_frames: Number of frames of the video.
        config: Settings of the tracker.
        first: Mask (H, W) of the object in the first key frame, if it is known. The region that matches it becomes the
            target.

    Raises:
        ValueError: If there are no masks, or not one for each key frame, or if they differ in size.
    """
    if not key_frames or any(a >= b for a, b in pairwise([-1, *key_frames, num_frames])):
        raise ValueError(f"key frames must increase within [0, {num_frames}), got {list(key_frames)[:5]}...")
    shape: tuple[int, ...] = ()
    key_counts: list[list[int]] = []
    kept: list[int] = []
    place = -1
    for place, mask in enumerate(target.follow(masks, config, first)):
        shape = mask.shape
        if mask.any():
            kept.append(place)
            key_counts.append(encode_rle(mask))
    if place + 1 != len(key_frames):
        raise ValueError(f"expected one mask for each key frame, got {place + 1} for {len(key_frames)}")
    frame_keys = [-1] * num_frames
    for number, place in enumerate(kept):
        frame_keys[key_frames[place]] = number
    for number, (place, following) in enumerate(pairwise(kept)):
        if following == place + 1:
            start, stop = key_frames[place], key_frames[following]
            for frame in range(start + 1, stop):
                frame_keys[frame] = number if frame - start <= stop - frame else number + 1
    if len(key_frames) > 1 and kept[-2:] == [len(key_frames) - 2, len(key_frames) - 1]:
        start = key_frames[-1]
        frame_keys[start:] = [len(kept) - 1] * (num_frames - start)
    return Tube(shape[0], shape[1], key_counts, frame_keys)


def track_shard(
    videos_uri: str,
    saliency_uri: str,
    shard: int,
    config: TrackConfig,
    target_uri: str,
    run: workers.Run = workers.in_order,
) -> dict[str, int]:
    """Write the tube of each usable video of a shard: first the blobs, then the table, which marks the shard as done.

    Args:
        videos_uri: Folder of the stored videos.
        saliency_uri: Folder of the tables of salient regions.
        shard: Number of the shard.
        config: Settings of the tracker.
        target_uri: Folder to write to.
        run: Worker processes that share the videos.

    Returns:
        Counts: videos = tracked + empty; frames; tracked_frames.

    Raises:
        InputError: If the salient regions belong to other videos.
    """
    usable = [video for video in video_table.read_shard(videos_uri, shard) if video.status == "ok"]
    salient = region_table.read_shard(saliency_uri, shard)
    groups = [(video_id, list(rows)) for video_id, rows in groupby(salient, key=lambda row: row.video_id)]
    of_video = dict(groups)
    if len(of_video) != len(groups):
        raise InputError(
            f"shard {shard} of {saliency_uri} has a video in several places; run `previts saliency` on these videos"
        )
    tasks = [(video, of_video.pop(video.video_id, []), config, saliency_uri) for video in usable]
    if of_video:
        raise InputError(
            f"shard {shard} of {saliency_uri} has {len(of_video)} videos that are not in {videos_uri} "
            f"(first: {sorted(of_video)[:3]}); run `previts saliency` on these videos"
        )
    rows: list[TubeRecord] = []
    blobs: list[bytes] = []
    offset = 0
    for row, blob in progress(run(_video_tube, tasks), f"track, shard {shard}", unit="video", total=len(tasks)):
        rows.append(replace(row, offset=offset))
        blobs.append(blob)
        offset += len(blob)
    data = b"".join(blobs)
    tables.write_shard(
        target_uri, shard, blob_name(shard), lambda uri: files.write_bytes(uri, data, create=True), TubeRecord, rows
    )
    tracked = sum(row.status == "tracked" for row in rows)
    return {
        "videos": len(rows),
        "tracked": tracked,
        "empty": len(rows) - tracked,
        "frames": sum(video.num_frames for video in usable),
        "tracked_frames": sum(row.tracked_frames for row in rows),
    }


def _video_tube(
    task: tuple[video_table.VideoRecord, list[region_table.SaliencyRecord], TrackConfig, str],
) -> tuple[TubeRecord, bytes]:
    """Return the row of one video and its tube as bytes; the caller sets the offset of the bytes."""
    video, salient, config, saliency_uri = task
    sizes, frames = {(row.height, row.width) for row in salient}, [row.frame for row in salient]
    every = max(1, frames[1]) if len(frames) > 1 else video.num_frames
    if sizes != {(video.height, video.width)} or frames != list(range(0, video.num_frames, every)):
        raise InputError(
            f"{saliency_uri} has {len(salient)} masks of sizes {sorted(sizes)} for video {video.video_id!r}, "
            f"which is {video.height} x {video.width} with {video.num_frames} frames, and these masks are of frames "
            f"{str(frames)[:80]}, expected every k-th frame; run `previts saliency` on these videos"
        )
    regions = (row.masks() for row in salient)
    tube = build_tube(regions, frames, video.num_frames, config)
    blob = tube.to_bytes()
    agreements = [row.agreement for row in salient if row.agreement is not None]
    record = TubeRecord(
        video_id=video.video_id,
        status="tracked" if tube.key_counts else "empty",
        tracked_frames=tube.tracked_frames(),
        spans=tube.spans(),
        mean_area=tube.mean_area(),
        offset=0,
        size=len(blob),
        crc=zlib.crc32(blob),
        lost_frame=tube.lost_frame(),
        border_share=tube.border_share(),
        agreement=float(np.mean(agreements)) if agreements else None,
    )
    return record, blob
