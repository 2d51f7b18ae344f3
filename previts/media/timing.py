"""The time window of a source video: its bounds, its frame rate, and the frame on screen at each output time.

It prepares the corpora of PreViTS section 4.1, whose crawls name a window of each video. This module computes with
timestamps in seconds; it reads and decodes nothing.
"""

import itertools
import math
import statistics
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from previts.errors import VideoError
from previts.media.geometry import square_or

MAX_FRAMES = 90_000  # one hour at 25 fps; longer videos, such as whole films, need a window
MIN_RATE = 1.0  # frames per second; below it nothing can be seen to move from one frame to the next
MAX_DELAY = 16  # frames: a decoder reorders at most this many
JUMP_SECONDS = 10.0  # FFmpeg's limit; in a broadcast stream, a longer step is a new time base and not a still picture


@dataclass(frozen=True)
class Window:
    """The wanted part of a source.

    Attributes:
        origin: Start in seconds, in the time of the container.
        stop: End in seconds, exclusive; infinity is the end of the video.
        rate: Average frames per second of the source in the window.
        pixel_aspect: Width / height of one pixel of the source.
        seek: Whether decoding starts with a seek to `origin`.
        frames: Number of frames of the source in the window.
        first: Time of its first frame in seconds, in the time of the container.
        seconds: Time from the first frame to the last.
        joins: Numbers of the packets at which the timestamps start again.
        last: Number of the last packet if the stream may be cut there, else -1.
        missing_seconds: How much the container promises beyond its end.
    """

    origin: float
    stop: float
    rate: Fraction
    pixel_aspect: float
    seek: bool
    frames: int
    first: float
    seconds: float
    joins: tuple[int, ...] = ()
    last: int = -1
    missing_seconds: float = 0.0

    def elapsed(self, time: float) -> str:
        """Return in words how far after the start of the window a time is."""
        return f"{max(0.0, time - self.origin):.1f} s of the window" if math.isfinite(time) else "0 s"


def make_window(
    times: list[float],
    origin: float,
    stop: float,
    *,
    nominal: Fraction | None,
    aspect: Fraction | None,
    seek: bool,
    joins: tuple[int, ...] = (),
    last: int = -1,
    missing_seconds: float = 0.0,
) -> Window:
    """Return the window from the timestamps of its frames.

    Args:
        times: Seconds of each frame in the window, in any order.
        origin: Start of the window, or minus infinity for the first frame.
        stop: End of the window.
        nominal: Frame rate that the container states.
        aspect: Pixel aspect ratio that the container states.
        seek: Whether decoding starts with a seek.
        joins: As `Window.joins`.
        last: As `Window.last`.
        missing_seconds: As `Window.missing_seconds`.

    Raises:
        VideoError: If there is only one frame, or the frames have no distance in time, or too much.
    """
    if len(times) == 1:
        raise VideoError("the video or window has only one frame; it needs at least two")
    span = max(times) - min(times)
    if span <= 0:
        raise VideoError("all frames have the same timestamp")
    pixel_aspect = float(square_or(aspect))
    first = min(times)
    origin = first if origin == -math.inf else origin
    rate = _average_rate(sorted(times), nominal)
    return Window(origin, stop, rate, pixel_aspect, seek, len(times), first, span, joins, last, missing_seconds)


def _average_rate(times: Sequence[float], nominal: Fraction | None) -> Fraction:
    """Return the average rate of a window: the rate that the container states if it fits, else the measured rate."""
    frames, seconds = len(times), times[-1] - times[0]
    measured = (frames - 1) / seconds
    if measured < MIN_RATE:
        raise VideoError(
            f"{frames} frames in {seconds:.0f} s are a slide show, not a video; "
            f"at least {MIN_RATE:g} frame per second is needed"
        )
    # One frame more or less, or timestamps in milliseconds, must not change 30000/1001 to a similar number.
    if nominal and (
        abs(float(nominal) - measured) <= measured * max(0.01, 1.01 / frames) or _is_steady(times, 1 / float(nominal))
    ):
        return Fraction(nominal).limit_denominator(1001)
    return Fraction(measured).limit_denominator(1001)


def _is_steady(times: Sequence[float], step: float) -> bool:
    """Return whether frames follow each other at this step, apart from whole frames that are missing."""
    steps = [(after - before) / step for before, after in itertools.pairwise(times)]
    near = 0.01 + 1e-3 / step  # timestamps may be in milliseconds
    return sum(abs(found - 1) <= near for found in steps) >= 0.7 * len(steps) and all(
        abs(found - round(found)) <= near for found in steps
    )


def missing_at_end(times: Sequence[float]) -> int:
    """Return how many frames are missing before the last one, from the times of all in the order of the file.

    Frames are stored in the order of decoding. So a stream that is cut may have its last frame without those that are
    shown between it and the last frame before. Other gaps are pauses, and the usual step may change within a video.
    """
    shown = sorted(times)
    place = times.index(shown[-1])
    if place == 0 or shown == list(times):
        return 0
    before = max(times[:place])
    tail = shown[-MAX_DELAY:]
    step = statistics.median(after - earlier for earlier, after in itertools.pairwise(tail))
    between = sum(before < time < shown[-1] for time in shown)
    return max(0, round((shown[-1] - before) / step) - 1 - between) if step > 0 else 0


class Clock:
    """Time that never starts again: moves the timestamps of files that are joined to follow each other.

    The parts of a DVD, and of files joined with `cat`, each have their own timestamps. A clock is for one stream, whose
    packets it must see in the order of the file.
    """

    def __init__(self, ticks_per_second: float, *, may_jump: bool) -> None:
        self.joined = False
        self._offset = 0  # ticks
        self._latest: int | None = None  # ticks, moved
        self._step, self._decoded = 1, 0
        self._second = ticks_per_second
        self._jump = JUMP_SECONDS * ticks_per_second if may_jump else math.inf

    def move(self, pts: int | None, dts: int | None, duration: int | None, *, is_key: bool) -> int:
        """Return the ticks to add to the timestamps of the next packet; `joined` says whether a new part starts."""
        self.joined = False
        shown = dts if pts is None else pts
        if shown is None:
            return self._offset
        decoded = shown if dts is None else dts
        if self._latest is None:
            self._latest = shown
        else:
            # Frames that are shown before a key frame are stored after it. So time goes forward from key to key.
            back = (is_key and shown + self._offset < self._latest) or decoded < self._decoded - self._second
            if back or decoded > self._decoded + self._jump:
                self._offset = self._latest + self._step - (shown if is_key else decoded)
                self.joined = True
        if duration and duration > 0:
            self._step = duration
        elif shown + self._offset > self._latest:
            self._step = shown + self._offset - self._latest
        self._latest, self._decoded = max(self._latest, shown + self._offset), decoded
        return self._offset


def check_complete(stated: float, found: float, wanted: float) -> None:
    """Refuse a file that ends long before the length that its header states.

    Args:
        stated: Duration in seconds that the header states.
        found: Seconds at which the last frame begins.
        wanted: Seconds at which the window ends.

    Raises:
        VideoError: If the last frame is long before the stated end and before the end of the window.
    """
    if found < min(stated, wanted) - max(0.5, 0.05 * stated):
        raise VideoError(f"cut short: the header states {stated:.1f} s, but the video ends after {found:.1f} s")


def constant_rate(decoded: Iterator[tuple[float, Any]], window: Window, rate: Fraction) -> Generator[Any, None, None]:
    """Yield the frame on screen at each multiple of 1 / rate after the start of the window.

    A timestamp is rounded to the nearest multiple. So a source of exactly this rate passes unchanged, even if its
    timestamps are coarse.

    Args:
        decoded: (seconds, frame) in order of time.
        window: The window.
        rate: Frames per second of the output.

    Raises:
        VideoError: If there are no frames, or more than `MAX_FRAMES`.
    """
    first = count = 0
    limit = MAX_FRAMES
    if math.isfinite(window.stop):
        limit = min(limit, max(1, math.ceil((window.stop - window.origin) * rate - 1e-3)))
    held: Any = None
    slot = -1
    for time, frame in decoded:
        slot = math.floor((time - window.origin) * rate + 0.5)
        if held is None:  # before its first frame, a video shows nothing
            first = count = min(max(0, slot), limit - 1)
        while held is not None and count < min(slot, limit):
            yield held
            count += 1
        if count >= limit:
            break
        held = frame
    if held is not None and count <= slot and count < limit:
        yield held
        count += 1
    if count == first:
        raise VideoError("no frame could be decoded in the window")
    if count == MAX_FRAMES and not math.isfinite(window.stop):
        raise VideoError(f"more than {MAX_FRAMES} frames; give start_seconds and end_seconds")
