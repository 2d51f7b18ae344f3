"""Tubes: the mask of one object through a video, found by following the largest salient region with SORT.

PreViTS section 3.2: M in {0, 1}^(h x w x t). The object is chosen once; a tube is empty where it is lost and never
moves on to another object. Saliency comes in as masks; this file computes none, and knows nothing of crops. How the
object is followed from one key frame to the next lies in `target.py`.

Shape suffixes: T frames, R regions, H W pixels.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TypeVar

import numpy as np

from previts import packing, records, shards, storage, target, workers
from previts.errors import InputError
from previts.experiment import TrackConfig
from previts.masks import Mask, decode_rle, encode_rle
from previts.progress import progress
from previts.saliency import predict

Unpacked = TypeVar("Unpacked")


@dataclass(frozen=True)
class Tube:
    """The masks of one object: one per matched key frame, and for each frame of the video which of them holds.

    Attributes:
        height: Of the video, in pixels.
        width: Of the video, in pixels.
        key_counts: Run lengths of each mask, as `masks.encode_rle` writes them.
        frame_keys: For each frame the position of its mask in `key_counts`, or -1 where the tube is empty.
    """

    height: int
    width: int
    key_counts: list[list[int]]
    frame_keys: list[int]

    def mask(self, frame: int) -> Mask:
        """Return the mask (height, width) of a frame, all False where the tube is empty."""
        return np.asarray(self.masks([frame])[0])

    def masks(self, frames: Sequence[int]) -> Mask:
        """Return the masks (T, height, width) of the given frames, which may repeat and come in any order.

        Raises:
            ValueError: If a frame is not one of the video.
        """
        packing.check_frames(frames, len(self.frame_keys))
        mask_THW = np.zeros((len(frames), self.height, self.width), dtype=np.bool_)
        decoded: dict[int, Mask] = {}
        for place, frame in enumerate(frames):
            key = self.frame_keys[frame]
            if key < 0:
                continue
            if key not in decoded:
                decoded[key] = decode_rle(self.key_counts[key], self.height, self.width)
            mask_THW[place] = decoded[key]
        return mask_THW

    def spans(self) -> list[list[int]]:
        """Return the half-open spans [start, stop) of frames in which the tube is not empty."""
        visible = np.diff(np.array([-1, *self.frame_keys, -1]) >= 0).nonzero()[0]
        return [[int(start), int(stop)] for start, stop in visible.reshape(-1, 2)]

    def tracked_frames(self) -> int:
        """Return the number of frames in which the tube is not empty."""
        return sum(key >= 0 for key in self.frame_keys)

    def mean_area(self) -> float:
        """Return the mean share of the frame that the object covers where the tube is not empty, else 0."""
        areas = [sum(counts[1::2]) for counts in self.key_counts]
        seen = [areas[key] for key in self.frame_keys if key >= 0]
        return float(np.mean(seen)) / (self.height * self.width) if seen else 0.0

    def lost_frame(self) -> int | None:
        """Return the first frame from which the tube is empty to the end; None if it is held to the last frame."""
        visible = [frame for frame, key in enumerate(self.frame_keys) if key >= 0]
        stop = visible[-1] + 1 if visible else 0
        return stop if stop < len(self.frame_keys) else None

    def border_share(self) -> float:
        """Return the share of the tube's masks that touch the edge of the frame, else 0."""
        masks = (decode_rle(counts, self.height, self.width) for counts in self.key_counts)
        touching = [mask[[0, -1]].any() or mask[:, [0, -1]].any() for mask in masks]
        return float(np.mean(touching)) if touching else 0.0

    def to_bytes(self) -> bytes:
        """Return the tube as a compact blob, of which single masks can be read (`packing.py`)."""
        return packing.pack(self.height, self.width, self.key_counts, self.frame_keys)

    @classmethod
    def from_bytes(cls, blob: bytes) -> "Tube":
        """Return the tube of a blob.

        Raises:
            ValueError: If the blob is not one of `to_bytes`, or is damaged.
        """
        packed = packing.unpack(blob)
        counts = [packed.counts(key).tolist() for key in range(packed.num_masks)]
        return cls(packed.height, packed.width, counts, packed.frame_keys.tolist())


def build_tube(
    masks: Iterable[Mask],
    key_frames: Sequence[int],
    num_frames: int,
    config: TrackConfig,
    first: Mask | None = None,
) -> Tube:
    """Follow the largest salient region of the first key frame that has one; `target.py` says what may happen to it.

    The tube keeps the matched region's own pixels. Between two neighbouring key frames that both matched, each frame
    holds the mask of the nearer one (the earlier at a tie). Where the last two key frames both matched, the last mask
    holds to the end of the video. Every other frame is empty.

    Args:
        masks: Salient pixels of each key frame: a mask (H, W), or regions (R, H, W) that may overlap.
        key_frames: Frame numbers of `masks`, increasing.
        num_frames: Frames of the video.
        config: How to follow.
        first: The object where it is known: its mask (H, W) in the first key frame. The region that overlaps it there
            becomes the target.

    Raises:
        ValueError: If there are no masks, or they do not fit the key frames or each other.
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


@dataclass(frozen=True)
class TubeRecord:
    """The tube of one video: how much of it there is, and which bytes of the shard's blob file hold it.

    Attributes:
        status: "tracked" or "empty", where nothing could be followed.
        lost_frame: First frame from which the tube is empty to the end; None if it is held to the last frame.
        border_share: Share of the matched key frames in which the mask touches the edge of the frame.
        agreement: Mean agreement of the handcrafted priors on the key frames where they were compared.
    """

    video_id: str
    status: str
    tracked_frames: int
    spans: list[list[int]]
    mean_area: float
    offset: int
    size: int
    lost_frame: int | None
    border_share: float
    agreement: float | None


def blob_name(shard: int) -> str:
    """Return the file name of a shard's tubes, which lie one after the other."""
    return f"shard-{shard:05d}.tubes"


def is_done(tubes_uri: str, shard: int) -> bool:
    """Return whether a shard's tubes are written; its table comes last."""
    return storage.exists(storage.join(tubes_uri, shards.table_name(shard)))


def read_shard(tubes_uri: str, shard: int) -> list[TubeRecord]:
    """Return the rows of a shard, one for each usable video in the order of the videos."""
    return records.read_records(storage.join(tubes_uri, shards.table_name(shard)), TubeRecord)


class DamagedTubeError(InputError):
    """The bytes of one tube are not what was written."""


def read_tube(tubes_uri: str, shard: int, offset: int, size: int) -> Tube:
    """Return one tube by one range read.

    Raises:
        InputError: If the blob file is missing or damaged.
    """
    return _read(tubes_uri, shard, offset, size, Tube.from_bytes)


def read_masks(tubes_uri: str, shard: int, offset: int, size: int, frames: Sequence[int]) -> list[Mask]:
    """Return the masks (H, W) of some frames of a tube by one range read; frames that share a mask share the array.

    Raises:
        ValueError: If a frame is not one of the video.
        InputError: As of `read_tube`.
    """
    return _read(tubes_uri, shard, offset, size, lambda blob: packing.unpack(blob).masks(frames))


def _read(tubes_uri: str, shard: int, offset: int, size: int, unpack: Callable[[bytes], Unpacked]) -> Unpacked:
    uri = storage.join(tubes_uri, blob_name(shard))
    try:
        return unpack(shards.read_ranges(uri, [offset], [offset + size])[0])
    except FileNotFoundError:
        raise InputError(
            f"{uri} is missing; delete {shards.table_name(shard)} and {storage.MANIFEST} beside it "
            "and run `previts track` again"
        ) from None
    except packing.DamagedError as error:
        raise DamagedTubeError(
            f"{uri}, bytes {offset} to {offset + size}: {error}; "
            f"delete {shards.table_name(shard)} and {storage.MANIFEST} beside it and run `previts track` again"
        ) from None


def track_shard(
    videos_uri: str,
    saliency_uri: str,
    shard: int,
    config: TrackConfig,
    target_uri: str,
    run: workers.Run = workers.in_order,
) -> dict[str, int]:
    """Write the tube of every usable video of a shard: the blobs, then the table that makes the shard done.

    Returns:
        Counts: videos = tracked + empty; frames, tracked_frames.

    Raises:
        InputError: If the saliency is not that of these videos.
    """
    usable = [video for video in shards.read_shard(videos_uri, shard) if video.status == "ok"]
    salient = predict.read_shard(saliency_uri, shard)
    of_video = {video_id: list(rows) for video_id, rows in groupby(salient, key=lambda row: row.video_id)}
    tasks = [(video, of_video.pop(video.video_id, []), config, saliency_uri) for video in usable]
    if of_video:
        raise InputError(
            f"shard {shard} of {saliency_uri} has {len(of_video)} videos that {videos_uri} has not "
            f"(first: {sorted(of_video)[:3]}); run `previts saliency` on these videos"
        )
    rows: list[TubeRecord] = []
    blobs: list[bytes] = []
    offset = 0
    for row, blob in progress(run(_video_tube, tasks), f"track, shard {shard}", unit="video", total=len(tasks)):
        rows.append(replace(row, offset=offset))
        blobs.append(blob)
        offset += len(blob)
    storage.write_bytes(storage.join(target_uri, blob_name(shard)), b"".join(blobs))
    records.write_records(storage.join(target_uri, shards.table_name(shard)), TubeRecord, rows)
    tracked = sum(row.status == "tracked" for row in rows)
    return {
        "videos": len(rows),
        "tracked": tracked,
        "empty": len(rows) - tracked,
        "frames": sum(video.num_frames for video in usable),
        "tracked_frames": sum(row.tracked_frames for row in rows),
    }


def _video_tube(
    task: tuple[shards.VideoRecord, list[predict.SaliencyRecord], TrackConfig, str],
) -> tuple[TubeRecord, bytes]:
    """Return the tube of one video as bytes, with its row; where the bytes will lie is not known yet."""
    video, salient, config, saliency_uri = task
    sizes = {(row.height, row.width) for row in salient}
    if sizes != {(video.height, video.width)} or salient[-1].frame >= video.num_frames:
        raise InputError(
            f"{saliency_uri} has {len(salient)} masks of sizes {sorted(sizes)} for video {video.video_id!r}, "
            f"which is {video.height} x {video.width} with {video.num_frames} frames; "
            "run `previts saliency` on these videos"
        )
    regions = (row.masks() for row in salient)
    tube = build_tube(regions, [row.frame for row in salient], video.num_frames, config)
    blob = tube.to_bytes()
    alike = [row.agreement for row in salient if row.agreement is not None]
    record = TubeRecord(
        video_id=video.video_id,
        status="tracked" if tube.key_counts else "empty",
        tracked_frames=tube.tracked_frames(),
        spans=tube.spans(),
        mean_area=tube.mean_area(),
        offset=0,
        size=len(blob),
        lost_frame=tube.lost_frame(),
        border_share=tube.border_share(),
        agreement=float(np.mean(alike)) if alike else None,
    )
    return record, blob
