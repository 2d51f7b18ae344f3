"""The reader of videos that are not normalised: any frames of a whole video file, by number or by time.

PreViTS sections 4.3 and 4.4: labelled videos are decoded as their authors published them, mostly as MPEG-4 in AVI. This
module works on the bytes of a file; it reads no files. `source_stream.py` has the rules for which frames are shown and
how. `frame_decoder.py` decodes normalised videos.

Shape suffixes: N frames of the video, K frames at another rate, T wanted frames, H W pixels, C colour channels (RGB).
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from previts.errors import VideoError
from previts.media.geometry import Pixels, square_or
from previts.media.source_stream import Display, cause, decoded, open_stream
from previts.media.timing import check_complete

# At most this many numbers in a row have no frame of their own; the frame before is still on screen. Old encoders with
# B-frames leave such packets at the end of a file. Hidden frames of VP8 and second fields are packets too.
EMPTY_PACKETS = 2


@dataclass(frozen=True)
class Footage:
    """A video from which any frames can be read.

    Attributes:
        times: Seconds at which each frame appears (N), ascending from 0.
        fps: Average frames per second.
        read: Function from frame numbers to the frames (THWC), uint8 RGB, all of one size: upright, with square pixels.
            Numbers may be in any order and repeat. Only the frames that are needed for them are decoded.
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


class _Packet(NamedTuple):
    """What is kept of a packet; `pts` is in ticks, None if the file does not state it."""

    pts: int | None
    is_key: bool
    is_shown: bool


class _Start(NamedTuple):
    """A packet at which decoding can start, and the number of the first frame that is shown from there on."""

    place: int
    number: int


@dataclass(frozen=True)
class _Source:
    """A file and what is known of its frames.

    Attributes:
        data: The bytes of the file.
        starts: Where decoding can start, ascending.
        ticks: When each frame is shown (N), ascending; None if frames can only be counted.
        is_avi: Whether the file is an AVI, whose last packet may be cut; its frame is then repeated.
        size: Width and height of stored frames.
        pixel_aspect: Width / height of a stored pixel.
    """

    data: bytes
    starts: Sequence[_Start]
    ticks: NDArray[np.int64] | None
    is_avi: bool
    size: tuple[int, int]
    pixel_aspect: Fraction


def open_footage(data: bytes) -> Footage:
    """Return the footage of a video file, given its bytes; frames are decoded when they are read.

    Raises:
        VideoError: If it is not a video, has no frames, or is cut short.
    """
    try:
        return _open(data)
    except av.FFmpegError as error:
        raise VideoError(f"not a readable video: {cause(error)}") from error


def _open(data: bytes) -> Footage:
    container, stream = open_stream(data)
    with container:
        packets, final = _packets(container, stream)
        shown = [packet for packet in packets if packet.is_shown]
        if not shown:
            raise VideoError("the video stream has no frames")
        _check_whole(data, container, stream, len(packets), final)
        rate, base = float(stream.average_rate or 25), float(stream.time_base)
        size, pixel_aspect = (int(stream.width), int(stream.height)), square_or(stream.sample_aspect_ratio)
        is_avi, is_reordered = "avi" in container.format.name, bool(stream.codec_context.has_b_frames)
        has_header = container.format.name not in ("mpegts", "mpeg", "mpegvideo")
    ticks = [packet.pts for packet in shown if packet.pts is not None]
    ticks_N = np.unique(np.array(ticks, np.int64))
    is_distinct = len(ticks) == len(ticks_N) == len(shown)
    # AVI does not store when a frame is shown, and joined files state some times twice. Their frames are counted.
    # FFmpeg's times of the frames of an AVI are right on average.
    is_counted = is_avi or not is_distinct
    # Without a header, FFmpeg states the size of any frame that it has probed.
    if not all(size) or not has_header or (not is_counted and _may_start_inside_gop(packets, ticks_N)):
        first = _first_frame(data)
        size = (first.width, first.height)
        ticks_N = ticks_N if is_counted or first.pts is None else ticks_N[ticks_N >= first.pts]
    if is_counted:
        # With B-frames, frames after a jump could not be counted.
        starts = [_Start(0, 0)] if is_avi and is_reordered else _starts(packets, None)
        source = _Source(data, starts, None, is_avi, size, pixel_aspect)
        seconds_N = (ticks_N - ticks_N[0]) * base if is_distinct else np.arange(len(shown)) / rate
    else:
        source = _Source(data, _starts(packets, ticks_N), ticks_N, is_avi, size, pixel_aspect)
        seconds_N = (ticks_N - ticks_N[0]) * base
    fps = (len(seconds_N) - 1) / float(seconds_N[-1]) if len(seconds_N) > 1 else rate
    return Footage(seconds_N, fps, partial(_read, source))


def _packets(container: Any, stream: Any) -> tuple[list[_Packet], float]:
    """Return the packets of the video, and the seconds at which the last packet of any stream ends."""
    packets, final = [], -math.inf
    for packet in container.demux():
        ticks = packet.dts if packet.pts is None else packet.pts
        if ticks is not None:
            final = max(final, float((ticks + (packet.duration or 0)) * packet.time_base))
        if packet.size and packet.stream_index == stream.index:
            packets.append(_Packet(packet.pts, packet.is_keyframe, not packet.is_discard))
    return packets, final


def _check_whole(data: bytes, container: Any, stream: Any, count: int, final: float) -> None:
    """Refuse a file that ends before its last frame.

    Raises:
        VideoError: If frames are missing.
    """
    name, stated = container.format.name, int(stream.frames)
    if "mov" in name:
        # An edit list may leave out frames that the header counts, so the places of the frames decide.
        ends = [entry.pos + entry.size for entry in stream.index_entries]
        count, stated = sum(end <= len(data) for end in ends), len(ends)
        missing = stated - count
    else:
        missing = stated - count if stated - count > max(EMPTY_PACKETS, 0.02 * stated) else 0
    if missing:
        raise VideoError(f"cut short: it has {count} of {stated} frames")
    if "matroska" in name and container.duration:
        check_complete(container.duration / av.time_base, final, math.inf)


def _may_start_inside_gop(packets: Sequence[_Packet], ticks_N: NDArray[np.int64]) -> bool:
    """Return whether the first frames may need frames that the file does not have."""
    first = packets[0]
    return not first.is_key or first.pts is None or int(ticks_N[0]) < first.pts


def _first_frame(data: bytes) -> Any:
    container, stream = open_stream(data)
    with container:
        for frame in decoded(container.demux(stream), lambda: "at the first frame"):
            return frame
    raise VideoError("damaged: no frame could be decoded")


def _starts(packets: Sequence[_Packet], ticks_N: NDArray[np.int64] | None) -> list[_Start]:
    """Return where decoding can start: at the first packet, and at key frames between earlier and later frames.

    Such a key frame is shown after all earlier packets and before all later ones. In an open GOP, frames after the key
    frame are shown before it. They need the GOP before, so a decoder drops them if it starts here.

    Args:
        packets: All packets of the stream.
        ticks_N: When each frame is shown; None if frames are counted.
    """
    is_stated = all(packet.pts is not None for packet in packets)
    pts = [place if packet.pts is None or not is_stated else packet.pts for place, packet in enumerate(packets)]
    pts_P, shown_P = np.array(pts, np.int64), np.array([packet.is_shown for packet in packets])
    bounds = np.iinfo(np.int64)
    latest_P = np.maximum.accumulate(np.where(shown_P, pts_P, bounds.min))
    earliest_P = np.minimum.accumulate(np.where(shown_P, pts_P, bounds.max)[::-1])[::-1]
    counted_P = np.cumsum(shown_P)
    starts = [_Start(0, 0)]
    for place in range(1, len(packets)):
        if packets[place].is_key and latest_P[place - 1] < earliest_P[place] and pts_P[place] <= earliest_P[place]:
            number = counted_P[place - 1] if ticks_N is None else np.searchsorted(ticks_N, earliest_P[place])
            starts.append(_Start(place, int(number)))
    return starts


def _read(source: _Source, numbers: Sequence[int]) -> Pixels:
    """Decode from the last possible start before the first wanted frame up to the last wanted frame."""
    display = Display(*source.size, source.pixel_aspect)
    waiting, found = sorted(set(numbers), reverse=True), dict[int, Pixels]()
    reached, on_screen = -1, None  # the last decoded frame and its number
    try:
        with contextlib.closing(_numbered(source, waiting[-1])) as frames:
            for number, frame in frames:
                while waiting and waiting[-1] < number:
                    wanted = waiting.pop()
                    shown, of = (frame, number) if on_screen is None else (on_screen, reached)
                    found[wanted] = _repeated(display, shown, of, wanted)
                if waiting and waiting[-1] == number:
                    found[waiting.pop()] = display.rgb(frame)
                reached, on_screen = number, frame
                if not waiting:
                    break
    except av.FFmpegError as error:
        raise VideoError(f"damaged after frame {reached}: {cause(error)}") from error
    for wanted in waiting:
        found[wanted] = _repeated(display, on_screen, reached, wanted)
    return np.stack([found[number] for number in numbers])


def _repeated(display: Display, frame: Any, number: int, wanted: int) -> Pixels:
    """Return the frame that is on screen in place of a wanted one that the decoder did not give."""
    if frame is None or abs(wanted - number) > EMPTY_PACKETS:
        raise VideoError(f"damaged: frame {wanted} could not be decoded")
    return display.rgb(frame)


def _numbered(source: _Source, first: int) -> Generator[tuple[int, Any], None, None]:
    """Yield the shown frames with their numbers, ascending, from the last start before frame `first` on."""
    start = next(start for start in reversed(source.starts) if start.number <= first or not start.place)
    number = start.number - 1
    container, stream = open_stream(source.data)
    with container:
        whole = (packet for packet in container.demux(stream) if not (source.is_avi and packet.is_corrupt))
        packets = itertools.islice((packet for packet in whole if packet.size or packet.dts is None), start.place, None)
        frames = decoded(packets, lambda: f"at frame {number + 1}")
        for frame in frames:
            if source.ticks is None or frame.pts is None:
                following = number + 1
            else:
                following = int(np.searchsorted(source.ticks, frame.pts, side="right")) - 1
            if following > number:
                number = following
                yield number, frame
