"""The window of a source that a crawl asks for: its bounds, its rate, and the picture on screen at each moment.

Below PreViTS section 4.1. Arithmetic of timestamps in seconds only: nothing here knows what a picture is.
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from previts.errors import VideoError

MAX_FRAMES = 90_000  # an hour at 25 fps; gives a reason where a whole film was meant to be trimmed


@dataclass(frozen=True)
class Window:
    """What part of a source is wanted, in the time of its container."""

    origin: float
    stop: float
    rate: Fraction
    pixel_aspect: float
    seek: bool

    def elapsed(self, time: float) -> str:
        """Return in words how far into the window a moment lies."""
        return f"{max(0.0, time - self.origin):.1f} s of the window" if math.isfinite(time) else "0 s"


def make_window(
    times: list[float], origin: float, stop: float, *, nominal: Fraction | None, aspect: Fraction | None, seek: bool
) -> Window:
    """Return the window whose pictures have some timestamps; `nominal` and `aspect` are as the container states them.

    Raises:
        VideoError: If there is one picture only, or no time passes between them, or too much.
    """
    if len(times) == 1:
        raise VideoError("only one picture in the video or window; it needs at least two")
    span = max(times) - min(times)
    if span <= 0:
        raise VideoError("all pictures have the same timestamp")
    # Absurd or missing pixel shapes count as square.
    pixel_aspect = float(aspect) if aspect and Fraction(1, 4) <= aspect <= 4 else 1.0
    origin = min(times) if origin == -math.inf else origin
    return Window(origin, stop, _average_rate(len(times), span, nominal), pixel_aspect, seek)


def _average_rate(pictures: int, span: float, nominal: Fraction | None) -> Fraction:
    """Return the average rate of a window: what the container states where that fits, else pictures over time."""
    measured = (pictures - 1) / span
    # One picture more or less, or milliseconds as timestamps, must not turn 30000/1001 into a neighbour of it.
    if nominal and abs(float(nominal) - measured) <= measured * max(0.01, 1.01 / pictures):
        return Fraction(nominal).limit_denominator(1001)
    rate = Fraction(measured).limit_denominator(1001)
    if rate < Fraction(1, 10):
        raise VideoError(f"{pictures} pictures in {span:.0f} s are a slide show, not a video")
    return rate


def check_complete(stated: float, found: float, wanted: float) -> None:
    """Refuse a Matroska file that ends before its header says; other containers notice that by themselves.

    Raises:
        VideoError: If the last picture lies long before the seconds that the header states, or that are wanted.
    """
    if found < min(stated, wanted) - max(0.5, 0.05 * stated):
        raise VideoError(f"cut short: it says {stated:.1f} s and ends after {found:.1f} s")


def constant_rate(decoded: Iterator[tuple[float, Any]], window: Window, rate: Fraction) -> Generator[Any, None, None]:
    """Yield the picture on screen at each multiple of 1 / rate after the window's origin, of (seconds, picture).

    A timestamp counts to the nearest multiple: a source of that very rate passes unchanged, however coarse its clock.

    Raises:
        VideoError: If there are no pictures, or too many.
    """
    count = 0
    limit = MAX_FRAMES
    if math.isfinite(window.stop):
        limit = min(limit, max(1, math.ceil((window.stop - window.origin) * rate - 1e-3)))
    held: Any = None
    slot = -1
    for time, frame in decoded:
        slot = math.floor((time - window.origin) * rate + 0.5)
        while held is not None and count < min(slot, limit):
            yield held
            count += 1
        if count >= limit:
            break
        held = frame
    if held is not None and count <= slot and count < limit:
        yield held
        count += 1
    if count == 0:
        raise VideoError("no picture could be decoded in the window")
    if count == MAX_FRAMES and not math.isfinite(window.stop):
        raise VideoError(f"more than {MAX_FRAMES} frames; give start_seconds and end_seconds")
