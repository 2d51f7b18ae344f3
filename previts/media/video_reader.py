"""Any frames of a whole video file, by number or by time: bytes in, frames out.

PreViTS sections 4.3 and 4.4: labelled videos are decoded as their authors published them, mostly as MPEG-4 in AVI. It
reads no file, and knows no labels. With `video.py` and `decoder.py` the only file that imports PyAV.

Shape suffixes: N frames of the video, T frames asked for, H W pixels, C colour channels (RGB).
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

# Packets without a picture of their own at the end of a file, as old encoders with B-frames leave them.
EMPTY_PACKETS = 2


@dataclass(frozen=True)
class Footage:
    """A video of which any frames can be had.

    Attributes:
        times: Seconds at which each frame appears, N, ascending from 0.
        fps: Frames a second, on average.
        read: Returns the frames of the given numbers, THWC uint8 RGB. They may be in any order and repeat; only what
            they need is decoded.
    """

    times: NDArray[np.float64]
    fps: float
    read: Callable[[Sequence[int]], Pixels]

    def nearest(self, fps: float) -> NDArray[np.int64]:
        """Return the numbers of the frames that stand for this video at another constant rate: the nearest in time.

        There are `round(duration * fps)` of them, at least one.
        """
        count = max(1, round(len(self.times) / self.fps * fps))
        after_K = np.searchsorted(self.times, wanted_K := np.arange(count) / fps).clip(0, len(self.times) - 1)
        before_K = (after_K - 1).clip(0)
        # The rate is a fraction in the file, so times that are meant to be equal differ by rounding.
        later_K = self.times[after_K] - wanted_K <= wanted_K - self.times[before_K] + 1e-9
        return np.where(later_K, after_K, before_K)


def steady(count: int, fps: float, read: Callable[[Sequence[int]], Pixels]) -> Footage:
    """Return footage whose frames follow each other at a constant rate, such as a folder of images."""
    return Footage(np.arange(count) / fps, fps, read)


def open_footage(data: bytes) -> Footage:
    """Return the footage of a video file, given its bytes; nothing is decoded until frames are asked for.

    Raises:
        VideoError: If it is not a video, holds no pictures, or is cut short.
    """
    try:
        with _opened(data) as (container, stream):
            packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
            stated, rate, base = int(stream.frames), stream.average_rate, float(stream.time_base)
            shown_N = _places(packets)
            keys = [packet.is_keyframe for packet in packets]
            # AVI cannot say when a picture is shown: with B-frames, one after a jump could not be numbered.
            whole = "avi" in container.format.name and stream.codec_context.has_b_frames
    except av.FFmpegError as error:
        raise VideoError(f"not a readable video: {error.strerror or error}") from error
    count = len(packets)
    if not count:
        raise VideoError("the video stream holds no pictures")
    if stated - count > max(EMPTY_PACKETS, 0.02 * stated):
        raise VideoError(f"cut short: it holds {count} of {stated} pictures")
    times_N = (np.sort(shown_N) - shown_N.min()) * base
    steps_N = np.diff(times_N)
    if count > 1 and (steps_N > 0).all():
        fps = (count - 1) / float(times_N[-1])
    else:
        fps = float(rate or 25)
        times_N = np.arange(count) / fps
    return Footage(times_N, fps, partial(_read, data, [0] if whole else _cuts(shown_N, keys)))


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[tuple[Any, Any]]:
    """Lend the container and its largest video stream, on one thread, because whoever calls has several."""
    options = {"format_whitelist": CONTAINERS, "max_streams": str(MAX_STREAMS)}
    with av.open(io.BytesIO(data), options=options, metadata_errors="ignore") as container:
        streams: list[Any] = [stream for stream in container.streams.video if stream.codec_context is not None]
        if not streams:
            raise VideoError("no video stream that can be decoded")
        stream = max(streams, key=lambda s: ((s.width or 0) * (s.height or 0), -s.index))
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        yield container, stream


def _places(packets: Sequence[Any]) -> NDArray[np.int64]:
    """Return when each packet's picture is shown, in ticks; files that do not say so show pictures as they come."""
    shown = [packet.pts for packet in packets]
    if any(value is None for value in shown):
        return np.arange(len(packets))
    return np.array(shown, np.int64)


def _cuts(shown_N: NDArray[np.int64], keys: Sequence[bool]) -> list[int]:
    """Return the packets at which decoding can start: key frames with all earlier pictures before and later after."""
    latest_N = np.maximum.accumulate(shown_N)
    earliest_N = np.minimum.accumulate(shown_N[::-1])[::-1]
    return [0, *(n for n in range(1, len(keys)) if keys[n] and latest_N[n - 1] < earliest_N[n])]


def _read(data: bytes, cuts: Sequence[int], numbers: Sequence[int]) -> Pixels:
    """Decode from the last cut in front of the first wanted frame to the last wanted frame."""
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
    """Turn a decoded frame into colours if it is wanted; return the number of the next."""
    if frame.is_corrupt:
        raise VideoError(f"damaged at frame {number}")
    if number in wanted:
        found[number] = rgb(reformatter, frame)
    return number + 1


# What a crawl may contain. Playlists (hls, concat, dash, sdp) are left out: they make the decoder open other files.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,ivf,m4v,mpegvideo,mxf,nut,dv,rm"


MAX_STREAMS = 64
