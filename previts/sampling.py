"""Which frames of a video become query and key, and which region of them is cropped.

PreViTS section 3.2 (temporal and spatial constraint) and the ablations of tables 6a and 6b. Pure: it draws from the
generator it is given and touches neither pixels nor files.

A video of which too little could be tracked still gives a pair, drawn without constraints and flagged.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from previts.errors import InputError
from previts.experiment import SamplingConfig

Crop = tuple[int, int, int, int]
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
    """First frames of the query and the key clip, and whether the object is visible in all frames of both."""

    query: int
    key: int
    constrained: bool


def sample_pair(video: Timeline, config: SamplingConfig, generator: np.random.Generator) -> Pair:
    """Draw the first frames of a query and a key clip (section 3.2; the gap is the delta of table 6a).

    Both clips lie inside a span of the tube. `varying` draws the two independently; `constant` puts the key
    `gap_seconds` after the query, or before it near the end; `zero` takes the same clip twice. A constant gap that the
    tube is too short for shrinks to the largest one it allows. With too few tracked frames the draw is from the whole
    video and the pair is not `constrained`.
    """
    window = (config.clip_frames - 1) * config.clip_stride + 1
    starts = np.arange(max(1, video.num_frames - window + 1))
    constrained = False
    if config.constraint == "tracking":
        tracked = sum(stop - start for start, stop in video.spans)
        inside = [np.arange(start, max(start, stop - window + 1)) for start, stop in video.spans]
        visible = np.concatenate(inside) if inside else np.arange(0)
        constrained = len(visible) > 0 and tracked >= config.min_tracked_fraction * video.num_frames
        starts = visible if constrained else starts
    match config.gap:
        case "varying":
            query, key = generator.choice(starts), generator.choice(starts)
        case "zero":
            query = key = generator.choice(starts)
        case "constant":
            query, key = _constant_gap(starts, round(config.gap_seconds * video.fps), generator)
    return Pair(int(query), int(key), constrained)


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


def clip_indices(start: int, num_frames: int, config: SamplingConfig) -> list[int]:
    """Return the frames of the clip that begins at `start`; a video shorter than the clip is repeated."""
    return [(start + step * config.clip_stride) % num_frames for step in range(config.clip_frames)]


def sample_crop(
    mask_HW: NDArray[np.bool_] | None,
    height: int,
    width: int,
    config: SamplingConfig,
    generator: np.random.Generator,
) -> Crop:
    """Draw the region of a frame to crop; with a mask, one that covers at least `min_overlap` of the mask's pixels.

    Without a mask this is the random resized crop of torchvision. With one, the centre is drawn from a Gaussian around
    the mask's centroid (standard deviation: the frame's width and height), truncated so that the crop fits. A mask that
    is too large for the smallest crop lowers the threshold; when no attempt succeeds, the box of the mask, widened at
    random, is taken.

    Paper: section 3.2 says IoU, section 4.6 "cover at least mu of the object area"; with crops of 40 % of the frame an
    IoU of 0.3 is out of reach for most objects, so coverage is meant, as in the released code.

    Raises:
        ValueError: If the mask is empty or has another shape than the frame.
    """
    if mask_HW is None:
        return _random_resized_crop(height, width, config, generator)
    if mask_HW.shape != (height, width) or not mask_HW.any():
        raise ValueError(
            f"the mask must be {height} x {width} and not empty, got {mask_HW.shape} of {mask_HW.sum()} px"
        )
    rows, columns = np.nonzero(mask_HW)
    area = len(rows)
    needed = min(config.min_overlap * area, config.crop_scale[0] * height * width)
    for _ in range(config.crop_attempts):
        crop_height, crop_width = _draw_size(height, width, config, generator)
        if crop_height > height or crop_width > width:
            continue
        left = _draw_offset(columns.mean() + 0.5, crop_width, width, generator)
        top = _draw_offset(rows.mean() + 0.5, crop_height, height, generator)
        covered = int(mask_HW[top : top + crop_height, left : left + crop_width].sum())
        if covered >= min(needed, crop_width * crop_height):  # a rounded-down crop full of object will do
            return left, top, left + crop_width, top + crop_height
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    return _widened_box(box, height, width, config, generator)


def _draw_size(height: int, width: int, config: SamplingConfig, generator: np.random.Generator) -> tuple[int, int]:
    area = generator.uniform(*config.crop_scale) * height * width
    ratio = math.exp(generator.uniform(math.log(config.crop_ratio[0]), math.log(config.crop_ratio[1])))
    return max(1, round(math.sqrt(area / ratio))), max(1, round(math.sqrt(area * ratio)))


def _draw_offset(centre: float, size: int, extent: int, generator: np.random.Generator) -> int:
    """Draw the first pixel of a crop side whose middle is Gaussian around `centre`, truncated to the frame."""
    gaussian = NormalDist(float(centre), extent)
    low, high = gaussian.cdf(size / 2), gaussian.cdf(extent - size / 2)
    middle = gaussian.inv_cdf(generator.uniform(low, high)) if high > low else size / 2
    return min(max(round(middle - size / 2), 0), extent - size)


def _random_resized_crop(height: int, width: int, config: SamplingConfig, generator: np.random.Generator) -> Crop:
    for _ in range(config.crop_attempts):
        crop_height, crop_width = _draw_size(height, width, config, generator)
        if crop_height <= height and crop_width <= width:
            left = int(generator.integers(0, width - crop_width + 1))
            top = int(generator.integers(0, height - crop_height + 1))
            return left, top, left + crop_width, top + crop_height
    return _shrink_to_ratio((0, 0, width, height), (width / 2, height / 2), config)


def _widened_box(box: Crop, height: int, width: int, config: SamplingConfig, generator: np.random.Generator) -> Crop:
    left, top, right, bottom = box
    wide = (
        left - int(generator.integers(0, left + 1)),
        top - int(generator.integers(0, top + 1)),
        right + int(generator.integers(0, width - right + 1)),
        bottom + int(generator.integers(0, height - bottom + 1)),
    )
    return _shrink_to_ratio(wide, ((left + right) / 2, (top + bottom) / 2), config)


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
