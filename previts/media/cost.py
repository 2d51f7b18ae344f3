"""What decoding a source video costs: a prediction from its size and codec, and the budget that it must keep.

The crawls of PreViTS section 4.1 are untrusted: a file of 4 MB can hold frames that take minutes to decode. The
prediction is the same on every machine, so the same videos are refused everywhere. This module decodes nothing.
"""

from dataclasses import dataclass

from previts.errors import VideoError

TOO_COSTLY = "too costly to decode"  # how the reason of every video starts that is refused for its cost
FREE_FRAMES = 250  # a video of few frames has the budget of this many more: 10 s at 25 fps

# CPU nanoseconds for each pixel and for each byte of a source, measured with one thread of FFmpeg 8.1 at 1920x1080 on
# flat and on noisy frames. Codecs that are not listed cost at most about as much as the first entry.
_USUAL = (3, 30)
_NANOSECONDS = {
    "apng": (20, 5),
    "exr": (20, 10),
    "ffv1": (20, 60),
    "ffvhuff": (8, 5),
    "huffyuv": (8, 5),
    "jpeg2000": (25, 200),
    "png": (20, 5),
    "tiff": (20, 10),
    "webp": (20, 60),
}


@dataclass
class Cost:
    """The decoding of one video: what it has cost so far, and what it may cost.

    Attributes:
        codec: Name of its codec in FFmpeg.
        budget: CPU seconds that it may cost, see `budget_seconds`.
        seconds: CPU seconds that it has cost, by the prediction.
    """

    codec: str
    budget: float
    seconds: float = 0.0

    def add(self, frames: int, width: int, height: int, size: int) -> None:
        """Add frames of a size in pixels, with their total size in bytes.

        Raises:
            VideoError: If the budget is exceeded.
        """
        pixel, byte = _NANOSECONDS.get(self.codec, _USUAL)
        self.seconds += (frames * width * height * pixel + size * byte) / 1e9
        if self.seconds > self.budget:
            raise VideoError(
                f"{TOO_COSTLY}: {self.codec} frames of {width}x{height} need {self.seconds:.0f} CPU seconds or more, "
                f"and the budget is {self.budget:.0f}; give a shorter window, or raise video.cpu_seconds_per_frame"
            )


def budget_seconds(kept: float, seconds_per_frame: float) -> float:
    """Return the CPU seconds that a video may cost of which `kept` frames are stored."""
    return seconds_per_frame * (FREE_FRAMES + kept)
