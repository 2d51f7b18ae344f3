"""The reader of videos that are not normalised: any frames of a whole video file, by number or by time.

PreViTS sections 4.3 and 4.4: labelled videos are decoded as their authors published them, mostly as MPEG-4 in AVI. This
module works on the bytes of a file; it reads no files. `frame_decoder.py` decodes normalised videos.

Shape suffixes: N frames of the video, K frames at another rate, T wanted frames, H W pixels, C colour channels (RGB).
"""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from previts.errors import VideoError
from previts.media.frame_decoder import rgb
from previts.media.geometry import Pixels
from previts.media.source import CONTAINERS, MAX_STREAMS

# Old encoders with B-frames leave up to this many packets without a frame at the end of a file.
EMPTY_PACKETS = 2


@dataclass(frozen=True)
class Footage:
    """A video from which any frames can be read.

    Attributes:
        times: Seconds at which each frame appears (N), ascending from 0.
        fps: Average frames per second.
        read: Function from frame numbers to the frames (THWC), uint8 RGB. Numbers may be in any order and repeat. Only
            the frames that are needed for them are decoded.
    """

    times: NDArray[np.float64]
    fps: float
    read: Callable[[Sequence[int]], Pixels]

    def nearest(self, fps: float) -> NDArray[np.int64]:
        """Return the numbers of the frames of this video at another constant rate; each is the nearest in time.

        The result has `round(duration * fps)` numbers, at least one.
        """
        count = max(1, round(len(self.times) / self.fps * fps))
        after_K = np.searchsorted(self.times, wanted_K := np.arange(count) / fps).clip(0, len(self.times) - 1)
        before_K = (after_K - 1).clip(0)
        # The file stores the rate as a fraction, so times that should be equal can differ by rounding.
        later_K = self.times[after_K] - wanted_K <= wanted_K - self.times[before_K] + 1e-9
        return np.where(later_K, after_K, before_K)


def steady(count: int, fps: float, read: Callable[[Sequence[int]], Pixels]) -> Footage:
    """Return footage of `count` frames at a constant rate, such as a folder of images."""
    return Footage(np.arange(count) / fps, fps, read)


def open_footage(data: bytes) -> Footage:
    """Return the footage of a video file, given its bytes; nothing is decoded until frames are read.

    Raises:
        VideoError: If it is not a video, has no frames, or is cut short.
    """
    try:
        with _opened(data) as (container, stream):
            packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
            stated, rate, base = int(stream.frames), stream.average_rate, float(stream.time_base)
            shown_N = _show_times(packets)
            keys = [packet.is_keyframe for packet in packets]
            # AVI does not store when a frame is shown. With B-frames, frames after a jump could not be numbered.
            from_start = "avi" in container.format.name and stream.codec_context.has_b_frames
    except av.FFmpegError as error:
        raise VideoError(f"not a readable video: {error.strerror or error}") from error
    count = len(packets)
    if not count:
        raise VideoError("the video stream has no frames")
    if stated - count > max(EMPTY_PACKETS, 0.02 * stated):
        raise VideoError(f"cut short: it has {count} of {stated} frames")
    times_N = (np.sort(shown_N) - shown_N.min()) * base
    steps_N = np.diff(times_N)
    if count > 1 and (steps_N > 0).all():
        fps = (count - 1) / float(times_N[-1])
    else:
        fps = float(rate or 25)
        times_N = np.arange(count) / fps
    return Footage(times_N, fps, partial(_read, data, [0] if from_start else _cuts(shown_N, keys)))


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[tuple[Any, Any]]:
    """Open a video and provide its container and largest video stream; one thread, because callers use several."""
    options = {"format_whitelist": CONTAINERS, "max_streams": str(MAX_STREAMS)}
    with av.open(io.BytesIO(data), options=options, metadata_errors="ignore") as container:
        streams: list[Any] = [stream for stream in container.streams.video if stream.codec_context is not None]
        if not streams:
            raise VideoError("no video stream that can be decoded")
        stream = max(streams, key=lambda s: ((s.width or 0) * (s.height or 0), -s.index))
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        yield container, stream


def _show_times(packets: Sequence[Any]) -> NDArray[np.int64]:
    """Return when the frame of each packet is shown, in ticks; if the file does not state it, in order of packets."""
    shown = [packet.pts for packet in packets]
    if any(value is None for value in shown):
        return np.arange(len(packets))
    return np.array(shown, np.int64)


def _cuts(shown_N: NDArray[np.int64], keys: Sequence[bool]) -> list[int]:
    """Return the packets at which decoding can start.

    These are the key frames that are shown after all earlier packets and before all later ones. In an open GOP, frames
    after the key frame are shown before it. They need the GOP before, so a decoder drops them if it starts here.
    """
    latest_N = np.maximum.accumulate(shown_N)
    earliest_N = np.minimum.accumulate(shown_N[::-1])[::-1]
    starts_N = (latest_N[:-1] < shown_N[1:]) & (shown_N[1:] <= earliest_N[1:])
    return [0, *(n for n in range(1, len(keys)) if keys[n] and starts_N[n - 1])]


def _read(data: bytes, cuts: Sequence[int], numbers: Sequence[int]) -> Pixels:
    """Decode from the last possible start before the first wanted frame up to the last wanted frame."""
    wanted, last = set(numbers), max(numbers)
    start = max(cut for cut in cuts if cut <= min(numbers))
    reformatter, found, number = VideoReformatter(), dict[int, Pixels](), start
    try:
        with _opened(data) as (container, stream):
            packets = (packet for packet in container.demux(stream) if packet.size and not packet.is_discard)
            context = stream.codec_context
            for place, packet in enumerate(packets):
                if place < start:
                    continue
                for frame in context.decode(packet):
                    number = _keep(frame, number, wanted, reformatter, found)
                if number > last:
                    break
            else:
                for frame in context.decode(None):
                    number = _keep(frame, number, wanted, reformatter, found)
    except av.FFmpegError as error:
        raise VideoError(f"damaged at frame {number}: {error.strerror or error}") from error
    if last - number >= EMPTY_PACKETS or not found:
        raise VideoError(f"damaged: {number} frames could be decoded, frame {last} is needed")
    final = max(found)
    return np.stack([found.get(number, found[final]) for number in numbers])


def _keep(frame: Any, number: int, wanted: set[int], reformatter: Any, found: dict[int, Pixels]) -> int:
    """Add a decoded frame to `found` as RGB if it is wanted; return the number of the next frame."""
    if frame.is_corrupt:
        raise VideoError(f"damaged at frame {number}")
    if number in wanted:
        found[number] = rgb(reformatter, frame)
    return number + 1
