"""Choice of videos, and of the frames of a video that become query, key and the third clip of the speed task.

PreViTS sections 3.1 (three segments, two speeds) and 3.2 (temporal constraint), and the ablations of tables 6a and 6b.
Pure: it draws from the generator that is passed and touches neither pixels nor files. Crops are drawn in
`crop_sampling.py`.

A video with too few tracked frames still gives a pair, which is drawn without constraints and marked.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from previts.config.experiment import SamplingConfig
from previts.errors import InputError

# Splits that are never learned from, by their names in crawls.
HELD_OUT = ("test", "val", "validate", "validation")


class Timeline(Protocol):
    """The properties of a video from which frames are drawn; `index_table.IndexRecord` has them."""

    @property
    def num_frames(self) -> int:
        """Frames of the video."""

    @property
    def fps(self) -> float:
        """Frames a second."""

    @property
    def spans(self) -> Sequence[Sequence[int]]:
        """Half-open [start, stop) runs of frames in which the object is visible, in order."""


@dataclass(frozen=True)
class Pair:
    """First frames of the clips of a pair, and whether the object is visible in all of them.

    `other` is the third clip of the speed task; None without that task.
    """

    query: int
    key: int
    other: int | None
    constrained: bool


class Speeds(NamedTuple):
    """Speed of query and key, and speed of the other clip: 1 takes every frame, 2 every second frame, and so on."""

    pair: int
    other: int


def draw_speeds(config: SamplingConfig, generator: np.random.Generator) -> Speeds:
    """Draw the speed of query and key (section 3.1); the other clip has the other speed."""
    first, second = config.speeds
    return Speeds(first, second) if generator.random() < 0.5 else Speeds(second, first)


def sample_pair(
    video: Timeline, config: SamplingConfig, generator: np.random.Generator, *, speed_task: bool = False
) -> Pair:
    """Draw the first frames of a query and a key clip (section 3.2; the gap is the delta of table 6a).

    Both clips are inside a span of the tube. With `visible="middle"` only their middle frame has to be. `gap` decides
    how the two are drawn:

    - `varying`: independently.
    - `constant`: the key starts `gap_seconds` after the query, or before it near the end. If the tube is too short for
      the gap, the gap shrinks to the largest one that fits.
    - `zero`: the same clip twice.

    With too few tracked frames, or no room for a clip, the draw is from the whole video and the pair is not
    `constrained`.

    With the `speed_task` there is a third clip: a segment that is drawn like the others. With a gap other than
    `varying` it starts where the key does, and with `other_segment="key"` too. Every clip then gets as many frames of
    room as the fastest speed needs, so that the position of a clip does not reveal its speed.
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
    """Return the distance in frames from the first frame of a clip at the fastest speed to its frame `step`."""
    return step * config.clip_stride * (max(config.speeds) if speed_task else 1)


def reference_offset(config: SamplingConfig, speed_task: bool) -> int:
    """Return the distance from a clip's first frame to the one whose mask all frames share with `visible="middle"`.

    It is the middle frame of a clip at the fastest speed, for slower clips too, as in the released code: 16 of a window
    of 32.
    """
    return _reach(config, speed_task, config.clip_frames // 2)


def _visible_starts(video: Timeline, config: SamplingConfig, window: int, reference: int) -> NDArray[np.int64]:
    """Return, in order, the first frames of the clips in which the object is visible as `config` requires."""
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
    """Return the frames of the clip that starts at `start`; a video shorter than the clip is repeated."""
    return [(start + step * config.clip_stride * speed) % num_frames for step in range(config.clip_frames)]


def choose_videos(video_ids: Sequence[str], splits: Sequence[str], config: SamplingConfig) -> list[int]:
    """Return the numbers of the videos to learn from: a fixed share of all videos outside the held-out splits.

    The share is chosen by the digest of the id, so a smaller share is part of a larger one (appendix A, figure 1).

    Raises:
        InputError: If no video is left.
    """
    able = [number for number, split in enumerate(splits) if split not in HELD_OUT]
    if not able:
        raise InputError(
            f"no video to learn from: the splits of all {len(video_ids)} videos of the index are "
            f"{', '.join(sorted(set(splits)))}, and the splits {', '.join(HELD_OUT)} are kept for evaluation; add the "
            "videos of the training split to the crawl"
        )
    by_digest = sorted(able, key=lambda number: hashlib.sha256(video_ids[number].encode()).hexdigest())
    return sorted(by_digest[: math.ceil(config.data_fraction * len(able))])
