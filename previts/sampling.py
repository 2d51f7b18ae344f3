"""Which frames of a video become query, key and the third clip of the speed task, and which region of them is cropped.

PreViTS sections 3.1 (three segments, two speeds) and 3.2 (temporal and spatial constraint) and the ablations of tables
6a and 6b. Pure: it draws from the generator it is given and touches neither pixels nor files.

A video of which too little could be tracked still gives a pair, drawn without constraints and flagged.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from previts.boxes import Box, draw_box, draw_size
from previts.errors import InputError
from previts.experiment import SamplingConfig

Crop = Box
"""Left, top, right, bottom in pixels; right and bottom are exclusive."""


# Splits that are never learnt from, as crawls name them.
HELD_OUT = ("test", "val", "validate", "validation")


class Timeline(Protocol):
    """What must be known of a video to draw frames from it; `index.IndexRecord` is one."""

    @property
    def num_frames(self) -> int:
        """Frames of the clip."""

    @property
    def fps(self) -> float:
        """Frames a second."""

    @property
    def spans(self) -> Sequence[Sequence[int]]:
        """Half-open [start, stop) runs of frames in which the object is visible, in order."""


@dataclass(frozen=True)
class Pair:
    """First frames of the clips of a pair, and whether the object is visible in all of them.

    `other` is the third clip of the speed task, None without that task.
    """

    query: int
    key: int
    other: int | None
    constrained: bool


class Speeds(NamedTuple):
    """At which speed query and key run, and at which one the other clip: every frame (1), every second one (2), ..."""

    pair: int
    other: int


def draw_speeds(config: SamplingConfig, generator: np.random.Generator) -> Speeds:
    """Draw which of the two speeds query and key share (section 3.1); the other clip has the other one."""
    first, second = config.speeds
    return Speeds(first, second) if generator.random() < 0.5 else Speeds(second, first)


def sample_pair(
    video: Timeline, config: SamplingConfig, generator: np.random.Generator, *, speed_task: bool = False
) -> Pair:
    """Draw the first frames of a query and a key clip (section 3.2; the gap is the delta of table 6a).

    Both clips lie inside a span of the tube; with `visible="middle"` it is enough that their middle frame does.
    `varying` draws the two independently; `constant` puts the key `gap_seconds` after the query, or before it near the
    end; `zero` takes the same clip twice. A constant gap that the tube is too short for shrinks to the largest one it
    allows. With too few tracked frames, or no room for a clip, the draw is from the whole video and the pair is not
    `constrained`.

    With the `speed_task` there is a third clip: a segment drawn like the others (with a gap that is not `varying` it
    begins where the key does), or with `other_segment="key"` the key's own. Every clip then has the room that the
    fastest speed takes, so that where a clip lies tells nothing of its speed.
    """
    window = _reach(config, speed_task, config.clip_frames - 1) + 1
    starts = np.arange(max(1, video.num_frames - window + 1))
    constrained = False
    if config.constraint == "tracking":
        tracked = sum(stop - start for start, stop in video.spans)
        visible = _visible_starts(video, config, window, reference_offset(config, speed_task))
        constrained = len(visible) > 0 and tracked >= config.min_tracked_fraction * video.num_frames
        starts = visible if constrained else starts
    match config.gap:
        case "varying":
            query, key = generator.choice(starts), generator.choice(starts)
        case "zero":
            query = key = generator.choice(starts)
        case "constant":
            query, key = _constant_gap(starts, round(config.gap_seconds * video.fps), generator)
    if not speed_task:
        return Pair(int(query), int(key), None, constrained)
    own = config.other_segment == "own" and config.gap == "varying"
    return Pair(int(query), int(key), int(generator.choice(starts) if own else key), constrained)


def _reach(config: SamplingConfig, speed_task: bool, step: int) -> int:
    """Return how many frames after its first one a clip of the fastest speed takes its frame number `step`."""
    return step * config.clip_stride * (max(config.speeds) if speed_task else 1)


def reference_offset(config: SamplingConfig, speed_task: bool) -> int:
    """Return the distance from the first frame of a clip to the one whose mask stands for it with `visible="middle"`.

    It is the middle frame of a clip of the fastest speed, for slower ones too, as the released code has it: 16 of a
    window of 32.
    """
    return _reach(config, speed_task, config.clip_frames // 2)


def _visible_starts(video: Timeline, config: SamplingConfig, window: int, reference: int) -> NDArray[np.int64]:
    """Return the first frames, in order, of the clips in which the object is visible as `config` wants it."""
    if config.visible == "clip":
        ranges = [(start, stop - window + 1) for start, stop in video.spans]
    else:
        last = video.num_frames - window
        ranges = [(max(0, start - reference), min(last + 1, stop - reference)) for start, stop in video.spans]
    return np.concatenate([np.arange(0), *(np.arange(start, max(start, stop)) for start, stop in ranges)])


def _constant_gap(starts: NDArray[np.int64], gap: int, generator: np.random.Generator) -> tuple[int, int]:
    gap = min(gap, int(starts[-1] - starts[0]))
    while True:  # ends at gap 0 at the latest
        before, after = np.isin(starts - gap, starts), np.isin(starts + gap, starts)
        able = np.flatnonzero(before | after)
        if len(able):
            chosen = generator.choice(able)
            start = int(starts[chosen])
            return start, start + gap if after[chosen] else start - gap
        gap -= 1


def clip_indices(start: int, num_frames: int, config: SamplingConfig, speed: int = 1) -> list[int]:
    """Return the frames of the clip that begins at `start`; a video shorter than the clip is repeated."""
    return [(start + step * config.clip_stride * speed) % num_frames for step in range(config.clip_frames)]


def sample_crop(
    mask_HW: NDArray[np.bool_] | None,
    height: int,
    width: int,
    config: SamplingConfig,
    generator: np.random.Generator,
) -> Crop:
    """Draw the region of a frame to crop; with a mask, one that overlaps it by `min_overlap`.

    Without a mask this is the random resized crop of torchvision. With one, the centre is drawn from a Gaussian around
    the mask's centroid (standard deviation: the frame's width and height), truncated so that the crop fits. The overlap
    is the share of the mask's pixels in the crop (`coverage`), or intersection over union of crop and mask (`iou`).

    - coverage: a mask that is too large for the smallest crop lowers the threshold; when no attempt succeeds, the box
      of the mask, widened at random, is taken; where that, cut to an allowed aspect ratio, loses too much, the largest
      crop that the frame allows, where it covers most.
    - iou: when no attempt succeeds (none can where the object is smaller than `min_overlap` of the smallest crop), the
      box of the mask is taken, widened at random as far as it keeps the threshold; where even the box by itself is
      under it, as with a thin diagonal object, the best of these boxes.

    Paper: section 3.2 says IoU, section 4.6 "cover at least mu of the object area"; with crops of 40 % of the frame an
    IoU of 0.3 is out of reach for most objects, so coverage is the default, as in the released code.

    Raises:
        ValueError: If the mask is empty or has another shape than the frame.
    """
    if mask_HW is None:
        box = draw_box(height, width, config.crop_scale, config.crop_ratio, config.crop_attempts, generator)
        return box or _shrink_to_ratio((0, 0, width, height), (width / 2, height / 2), config)
    pixels_HW = mask_HW.view(np.uint8)
    rows = cv2.reduce(pixels_HW, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()
    area = int(rows.sum())
    if mask_HW.shape != (height, width) or not area:
        raise ValueError(f"the mask must be {height} x {width} and not empty, got {mask_HW.shape} of {area} px")
    columns = cv2.reduce(pixels_HW, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()
    middle_row, middle_column = (float(counts @ np.arange(len(counts))) / area + 0.5 for counts in (rows, columns))
    for _ in range(config.crop_attempts):
        crop_height, crop_width = draw_size(height, width, config.crop_scale, config.crop_ratio, generator)
        if crop_height > height or crop_width > width:
            continue
        left = _draw_offset(middle_column, crop_width, width, generator)
        top = _draw_offset(middle_row, crop_height, height, generator)
        crop = (left, top, left + crop_width, top + crop_height)
        if _overlaps(mask_HW, area, crop, config):
            return crop
    inside_rows, inside_columns = np.flatnonzero(rows), np.flatnonzero(columns)
    box = (int(inside_columns[0]), int(inside_rows[0]), int(inside_columns[-1]) + 1, int(inside_rows[-1]) + 1)
    return _fallback_box(mask_HW, area, box, config, generator)


def _overlaps(mask_HW: NDArray[np.bool_], area: int, crop: Crop, config: SamplingConfig) -> bool:
    if config.overlap == "iou":
        return _iou(mask_HW, area, crop) >= config.min_overlap
    # A mask that the smallest crop cannot hold, and a rounded-down crop that is full of object, will do.
    needed = min(config.min_overlap * area, config.crop_scale[0] * mask_HW.size, _area(crop))
    return _covered(mask_HW, crop) >= needed


def _covered(mask_HW: NDArray[np.bool_], crop: Crop) -> int:
    left, top, right, bottom = crop
    return int(np.count_nonzero(mask_HW[top:bottom, left:right]))


def _area(crop: Crop) -> int:
    left, top, right, bottom = crop
    return (right - left) * (bottom - top)


def _iou(mask_HW: NDArray[np.bool_], area: int, crop: Crop) -> float:
    covered = _covered(mask_HW, crop)
    return covered / (area + _area(crop) - covered)


def _draw_offset(centre: float, size: int, extent: int, generator: np.random.Generator) -> int:
    """Draw the first pixel of a crop side whose middle is Gaussian around `centre`, truncated to the frame."""
    gaussian = NormalDist(float(centre), extent)
    low, high = gaussian.cdf(size / 2), gaussian.cdf(extent - size / 2)
    middle = gaussian.inv_cdf(generator.uniform(low, high)) if high > low else size / 2
    return min(max(round(middle - size / 2), 0), extent - size)


def _fallback_box(
    mask_HW: NDArray[np.bool_], area: int, box: Crop, config: SamplingConfig, generator: np.random.Generator
) -> Crop:
    """Return the box of a mask, widened on each side at random."""
    left, top, right, bottom = box
    height, width = mask_HW.shape
    sides = [int(generator.integers(0, room + 1)) for room in (left, top, width - right, height - bottom)]
    centre = ((left + right) / 2, (top + bottom) / 2)

    def widened(share: float) -> Crop:
        more = [int(side * share) for side in sides]
        wide = (left - more[0], top - more[1], right + more[2], bottom + more[3])
        return _shrink_to_ratio(wide, centre, config)

    if config.overlap == "coverage":
        crop = widened(1)
        return crop if _overlaps(mask_HW, area, crop, config) else _largest_crop(mask_HW, config)
    candidates = [widened(share) for share in (1, 1 / 2, 1 / 4, 1 / 8, 0)]
    ious = [_iou(mask_HW, area, crop) for crop in candidates]
    good = [crop for crop, iou in zip(candidates, ious, strict=True) if iou >= config.min_overlap]
    return good[0] if good else candidates[int(np.argmax(ious))]


def _largest_crop(mask_HW: NDArray[np.bool_], config: SamplingConfig) -> Crop:
    """Return the largest crop of an allowed aspect ratio, where it covers most of the mask."""
    height, width = mask_HW.shape
    narrow, wide = config.crop_ratio
    crop_height, crop_width = min(height, max(1, round(width / narrow))), min(width, max(1, round(wide * height)))

    def best(counts: NDArray[np.int64], size: int) -> int:
        sums = np.concatenate([[0], np.cumsum(counts)])
        return int(np.argmax(sums[size:] - sums[:-size]))

    # One of its sides is the frame's own, so the other one alone is to be placed.
    top, left = best(mask_HW.sum(1), crop_height), best(mask_HW.sum(0), crop_width)
    return left, top, left + crop_width, top + crop_height


def _shrink_to_ratio(box: Crop, centre: tuple[float, float], config: SamplingConfig) -> Crop:
    """Cut the longer side of a box to the allowed aspect ratio, around `centre` as far as the box allows."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    narrow, wide = config.crop_ratio
    new_width, new_height = width, height
    if width > wide * height:
        new_width = max(1, round(wide * height))
    elif width < narrow * height:
        new_height = max(1, round(width / narrow))
    left = min(max(round(centre[0] - new_width / 2), left), right - new_width)
    top = min(max(round(centre[1] - new_height / 2), top), bottom - new_height)
    return left, top, left + new_width, top + new_height


def choose_videos(video_ids: Sequence[str], splits: Sequence[str], config: SamplingConfig) -> list[int]:
    """Return which videos are learnt from: all but those of held-out splits, and of these a fixed share.

    The share is taken by the digest of the id, so smaller shares are parts of larger ones (appendix A, figure 1).

    Raises:
        InputError: If no video is left.
    """
    able = [number for number, split in enumerate(splits) if split not in HELD_OUT]
    if not able:
        raise InputError(
            f"no video to learn from: all {len(video_ids)} videos of the index are of {sorted(set(splits))}, "
            f"and {', '.join(HELD_OUT)} are held out; crawl the training split too"
        )
    by_digest = sorted(able, key=lambda number: hashlib.sha256(video_ids[number].encode()).hexdigest())
    return sorted(by_digest[: math.ceil(config.data_fraction * len(able))])
