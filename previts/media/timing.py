"""The time window of a source video: its bounds, its frame rate, and the frame on screen at each output time.

It prepares the corpora of PreViTS section 4.1, whose crawls name a window of each video. This module computes with
timestamps in seconds; it reads and decodes nothing.
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from previts.errors import VideoError
from previts.media.geometry import square_or

MAX_FRAMES = 90_000  # one hour at 25 fps; longer videos, such as whole films, need a window


@dataclass(frozen=True)
class Window:
    """The wanted part of a source.

    Attributes:
        origin: Start in seconds, in the time of the container.
        stop: End in seconds, exclusive; infinity is the end of the video.
        rate: Average frames per second of the source in the window.
        pixel_aspect: Width / height of one pixel of the source.
        seek: Whether decoding starts with a seek to `origin`.
    """

    origin: float
    stop: float
    rate: Fraction
    pixel_aspect: float
    seek: bool

    def elapsed(self, time: float) -> str:
        """Return in words how far after the start of the window a time is."""
        return f"{max(0.0, time - self.origin):.1f} s of the window" if math.isfinite(time) else "0 s"


def make_window(
    times: list[float], origin: float, stop: float, *, nominal: Fraction | None, aspect: Fraction | None, seek: bool
) -> Window:
    """Return the window from the timestamps of its frames.

    Args:
        times: Seconds of each frame in the window, in any order.
        origin: Start of the window, or minus infinity for the first frame.
        stop: End of the window.
        nominal: Frame rate that the container states.
        aspect: Pixel aspect ratio that the container states.
        seek: Whether decoding starts with a seek.

    Raises:
        VideoError: If there is only one frame, or the frames have no distance in time, or too much.
    """
    if len(times) == 1:
        raise VideoError("the video or window has only one frame; it needs at least two")
    span = max(times) - min(times)
    if span <= 0:
        raise VideoError("all frames have the same timestamp")
    pixel_aspect = float(square_or(aspect))
    origin = min(times) if origin == -math.inf else origin
    return Window(origin, stop, _average_rate(len(times), span, nominal), pixel_aspect, seek)


def _average_rate(frames: int, seconds: float, nominal: Fraction | None) -> Fraction:
    """Return the average rate of a window: the rate that the container states if it fits, else the measured rate."""
    measured = (frames - 1) / seconds
    # One frame more or less, or timestamps in milliseconds, must not change 30000/1001 to a similar number.
    if nominal and abs(float(nominal) - measured) <= measured * max(0.01, 1.01 / frames):
        return Fraction(nominal).limit_denominator(1001)
    rate = Fraction(measured).limit_denominator(1001)
    if rate < Fraction(1, 10):
        raise VideoError(f"{frames} frames in {seconds:.0f} s are a slide show, not a video")
    return rate


def check_complete(stated: float, found: float, wanted: float) -> None:
    """Refuse a Matroska file that ends too early; other containers report this themselves.

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
