"""Single frames of a normalised video, from the bytes of its GOPs: as RGB, or in the colours that they are stored in.

The store below PreViTS section 4.1: the loader asks for two short clips of a ten second video. Bytes in, frames out: it
reads no file. `gops.py` defines the layout of the bytes, `video.py` writes them.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence, Set
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from previts.errors import VideoError
from previts.media.geometry import Pixels
from previts.media.gop_layout import FrameBytes, frames_to_decode, split_frames

KEPT_DECODERS = 16  # by header, of which there is one for each size and rate of videos
_DECODERS = threading.local()


class Planes(NamedTuple):
    """A frame as yuv420p in limited range: views of the decoder's own memory, chroma at half of the luma's sides.

    `matrix` is H.264's code of its colour matrix.
    """

    y: Pixels
    u: Pixels
    v: Pixels
    matrix: int


def decode_gops(data: bytes, header: bytes, wanted: Sequence[int]) -> list[Pixels]:
    """Decode single frames from the bytes of whole GOPs that follow each other.

    Args:
        data: The bytes [gop_offsets[a], gop_offsets[b]) of a video.
        header: `VideoInfo.header` of the video.
        wanted: Numbers of frames relative to the first frame in `data`, in any order, repeats allowed.

    Returns:
        Per wanted number a frame [height, width, 3] uint8 RGB; repeats share one array.

    Raises:
        VideoError: If the bytes are damaged or hold too few frames.
    """
    reformatter = VideoReformatter()
    found = {number: rgb(reformatter, frame) for number, frame in _decode_wanted(data, header, set(wanted))}
    return [found[number] for number in wanted]


def decode_planes(data: bytes, header: bytes, wanted: Sequence[int]) -> list[Planes]:
    """Decode single frames as `decode_gops` does, but leave them in the colours that they are stored in."""
    found = {number: _planes_of(frame) for number, frame in _decode_wanted(data, header, set(wanted))}
    return [found[number] for number in wanted]


def _decode_wanted(data: bytes, header: bytes, wanted: Set[int]) -> Iterator[tuple[int, Any]]:
    """Yield (number, frame) of the wanted frames; of each GOP only what they need is decoded."""
    units: list[FrameBytes] = []
    numbers: list[int] = []
    for first, here in frames_to_decode(split_frames(data), wanted):
        units += here
        numbers += range(first, first + len(here))
    frames: list[Any] = []
    try:
        with _decoder(header) as context:
            for start, stop, _ in units:
                frames += context.decode(av.Packet(data[start:stop]))
            frames += context.decode(None)
    except av.FFmpegError as error:
        raise VideoError(f"damaged: {error.strerror or error}") from error
    # Without B-frames a packet is a frame, so the two lists run side by side.
    if len(frames) != len(units) or any(frame.is_corrupt for frame in frames):
        raise VideoError(f"damaged: {len(frames)} of {len(units)} frames could be decoded")
    return ((number, frame) for number, frame in zip(numbers, frames, strict=True) if number in wanted)


@contextlib.contextmanager
def _decoder(header: bytes) -> Iterator[Any]:
    """Lend a decoder of this thread; making one takes a third of the time that a frame does, so some are kept.

    One that met damage is not kept: none of it may show in the next video.
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
        raise VideoError(f"not a normalised video: its pictures are {frame.format.name}, expected yuv420p")
    y, u, v = (
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in frame.planes
    )
    return Planes(y, u, v, int(frame.colorspace))


def rgb(reformatter: VideoReformatter, frame: Any) -> Pixels:
    """Return a decoded frame as [height, width, 3] RGB."""
    return pixels(reformatter.reformat(frame, format="rgb24", threads=1))


def pixels(frame: Any) -> Pixels:
    """Return a frame of PyAV as an array, in the layout of its format."""
    return np.asarray(frame.to_ndarray(), dtype=np.uint8)
