"""The decoder of normalised videos: single frames from the bytes of their GOPs, as RGB or as stored (YUV).

A GOP is a group of pictures: a key frame and the frames that depend on it.

It reads the corpora of PreViTS section 4.1: the loader needs two short clips of a video of ten seconds, not all of it.
`gop_layout.py` defines the layout of the bytes, and `normalisation.py` writes them. This module works on bytes; it
reads no files. `video_reader.py` decodes videos that are not normalised.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence, Set
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from previts.errors import VideoError
from previts.media.geometry import Pixels, pixels
from previts.media.gop_layout import FrameBytes, frames_to_decode, split_frames

KEPT_DECODERS = 16  # for each thread; videos of one size and rate share a header, and so a decoder
_DECODERS = threading.local()


class Planes(NamedTuple):
    """A frame as yuv420p in limited range, as views of the decoder's memory.

    The chroma planes `u` and `v` have half the height and width of `y`. `matrix` is the colour matrix, as numbered by
    H.264.
    """

    y: Pixels
    u: Pixels
    v: Pixels
    matrix: int


def decode_gops(data: bytes, header: bytes, wanted: Sequence[int]) -> list[Pixels]:
    """Decode single frames from the bytes of consecutive whole GOPs.

    Args:
        data: The bytes [gop_offsets[a], gop_offsets[b]) of a video.
        header: `VideoInfo.header` of the video.
        wanted: Numbers of frames, counted from the first frame in `data`, in any order, repeats allowed.

    Returns:
        For each wanted number a frame (height, width, 3), uint8 RGB; repeats share one array.

    Raises:
        VideoError: If the bytes are damaged or contain too few frames.
    """
    reformatter = VideoReformatter()
    found = {number: rgb(reformatter, frame) for number, frame in _decode_wanted(data, header, set(wanted))}
    return [found[number] for number in wanted]


def decode_planes(data: bytes, header: bytes, wanted: Sequence[int]) -> Iterator[Planes]:
    """Yield frames as `decode_gops` does, but as stored, without conversion to RGB, and each as soon as it is decoded.

    Args:
        data: As of `decode_gops`.
        header: As of `decode_gops`.
        wanted: Numbers of frames, ascending and without repeats.

    A frame that is dropped before the next one is requested leaves its memory to later frames. So the memory of all
    frames stays in the cache of the processor.

    Raises:
        VideoError: As of `decode_gops`; some frames may be yielded before it.
    """
    for _, frame in _decode_wanted(data, header, set(wanted)):
        yield _planes_of(frame)


def _decode_wanted(data: bytes, header: bytes, wanted: Set[int]) -> Iterator[tuple[int, Any]]:
    """Yield (number, frame) of the wanted frames; each GOP is decoded up to its last wanted frame only."""
    units: list[FrameBytes] = []
    numbers: list[int] = []
    for first, here in frames_to_decode(split_frames(data), wanted):
        units += here
        numbers += range(first, first + len(here))
    decoded = 0
    try:
        with _decoder(header) as context:
            for unit in [*units, None]:
                frames = context.decode(av.Packet(data[unit[0] : unit[1]]) if unit else None)
                while frames:
                    frame = frames.pop(0)
                    # Without B-frames each packet is one frame, so frames and numbers have the same order.
                    if decoded == len(units) or frame.is_corrupt:
                        raise VideoError(f"damaged: frame {decoded} of {len(units)} could not be decoded")
                    if numbers[decoded] in wanted:
                        yield numbers[decoded], frame
                    decoded += 1
                    del frame
    except av.FFmpegError as error:
        raise VideoError(f"damaged: {error.strerror or error}") from error
    if decoded != len(units):
        raise VideoError(f"damaged: {decoded} of {len(units)} frames could be decoded")


@contextlib.contextmanager
def _decoder(header: bytes) -> Iterator[Any]:
    """Provide a decoder of this thread; some are kept, because making one takes a third of the time of a frame.

    After an error the decoder is not kept, so that damage cannot show in the next video.
    """
    kept: dict[bytes, Any] = _DECODERS.__dict__.setdefault("kept", {})
    context: Any = kept.pop(header, None)
    if context is None:
        context = av.CodecContext.create("h264", "r")
        context.extradata = header
        context.thread_count = 1
        context.options = {"err_detect": "explode+bitstream+buffer+careful"}
    yield context
    context.flush_buffers()
    kept[header] = context
    if len(kept) > KEPT_DECODERS:
        del kept[next(iter(kept))]


def _planes_of(frame: Any) -> Planes:
    if frame.format.name != "yuv420p":
        raise VideoError(f"not a normalised video: its frames are {frame.format.name}, expected yuv420p")
    y, u, v = (
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in frame.planes
    )
    return Planes(y, u, v, int(frame.colorspace))


def rgb(reformatter: VideoReformatter, frame: Any) -> Pixels:
    """Return a frame of PyAV as an array (height, width, 3), uint8 RGB."""
    return pixels(reformatter.reformat(frame, format="rgb24", threads=1))
