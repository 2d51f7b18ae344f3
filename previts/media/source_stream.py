"""The video stream of a source file: which stream it is, which of its frames are shown, and how a frame is displayed.

The readers of videos that are not normalised share these rules: `normalisation.py` for the corpora of PreViTS section
4.1, `video_reader.py` for the labelled videos of sections 4.3 and 4.4.

- The stream is the largest one that can be decoded and is not a cover (an attached picture).
- Packets outside an MP4's edit list are decoded, because others depend on them, but their frames are not shown.
- A stream may start inside a GOP (a group of frames that depend on its first). Frames that need an earlier GOP are not
  shown.
- A frame is displayed upright and with square pixels. A file that states no colour matrix has that of its size.
"""

import errno
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter

from previts.errors import VideoError
from previts.media.geometry import Orientation, Pixels, displayed_size, make_orientation
from previts.storage.file_names import VIDEO_FORMATS

MAX_STREAMS = 64  # of one file
MAX_PIXELS = 8192 * 4352  # of one frame

# Colour matrices that swscale converts: from the number of H.264 to that of swscale.
_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
SD_MATRIX = 5  # BT.601, as swscale numbers it
_HD_MATRIX = 1  # BT.709
_UNTAGGED = 2  # H.264's number of "unspecified"


def open_stream(source: str | bytes) -> tuple[Any, Any]:
    """Return the container of a local path or of the bytes of a file, and its video stream, to decode on one thread.

    Raises:
        VideoError: If the format is not allowed, there is no video stream or no decoder, or its frames are too large.
        av.FFmpegError: If the file cannot be read.
    """
    allowed = {"format_whitelist": ",".join(VIDEO_FORMATS), "max_streams": str(MAX_STREAMS)}
    if isinstance(source, str):
        allowed["protocol_whitelist"] = "file"
    try:
        opened = source if isinstance(source, str) else io.BytesIO(source)
        container = av.open(opened, options=allowed, metadata_errors="ignore")
    except av.FFmpegError as error:
        if error.errno == errno.EINVAL:
            raise VideoError("not a readable video: the format of the file is not known or not allowed") from error
        raise
    try:
        stream = _choose(container.streams)
        check_size(stream.width or 0, stream.height or 0)
    except VideoError:
        container.close()
        raise
    stream.codec_context.thread_count = 1
    stream.codec_context.thread_type = "NONE"
    return container, stream


def _choose(streams: Any) -> Any:
    moving: list[Any] = [stream for stream in streams.video if not stream.disposition & Disposition.attached_pic]
    if not moving:
        kinds = sorted({"a cover" if stream.type == "video" else stream.type for stream in streams})
        raise VideoError(f"no video stream (the file contains {' and '.join(kinds) if kinds else 'nothing'} only)")
    known = [stream for stream in moving if stream.codec_context is not None]
    if not known:
        raise VideoError("there is no decoder for the codec of the video")
    return max(known, key=lambda stream: ((stream.width or 0) * (stream.height or 0), -stream.index))


def check_size(width: int, height: int) -> None:
    """Refuse a frame of more than `MAX_PIXELS`.

    Raises:
        VideoError: If it is larger.
    """
    if width * height > MAX_PIXELS:
        raise VideoError(f"frames of {width}x{height} are larger than the limit of {MAX_PIXELS} pixels")


def decoded(packets: Iterable[Any], where: Callable[[], str]) -> Iterator[Any]:
    """Yield the frames that are shown, in the order of the decoder.

    Args:
        packets: All packets of the stream from a possible start on, those outside the edit list included.
        where: Returns the place that was reached, for messages, such as "at frame 3".

    Raises:
        VideoError: If a packet or a frame is damaged, except for those that need frames before the first one.
    """
    started = False
    for packet in packets:
        if packet.is_corrupt:
            raise VideoError(f"damaged or cut short {where()}")
        if not packet.size and packet.dts is not None:
            continue  # AVI stores a repeated frame as an empty packet; a decoder treats that as the end
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            if not started and not packet.is_keyframe:
                continue  # the stream starts inside a GOP
            raise VideoError(f"damaged {where()}: {error.strerror or error}") from error
        for frame in frames:
            if frame.is_corrupt and not started:
                continue
            if frame.is_corrupt:
                raise VideoError(f"damaged {where()}")
            check_size(frame.width, frame.height)
            started = True
            yield frame


def colour_matrix(frame: Any) -> int:
    """Return the colour matrix of a decoded frame, as swscale numbers it."""
    # Players treat an untagged matrix as BT.709 in HD and as BT.601 in smaller videos. Number 0 is RGB.
    is_hd = min(frame.width, frame.height) >= 720 and frame.colorspace != 0
    return _MATRIX.get(int(frame.colorspace), _HD_MATRIX if is_hd else SD_MATRIX)


def untagged_matrix(frame: Any) -> int | None:
    """Return the colour matrix to assume for a frame that states none, or None if it states one."""
    return colour_matrix(frame) if int(frame.colorspace) == _UNTAGGED else None


def orientation(frame: Any) -> Orientation:
    """Return how a decoded frame is turned upright, from the display matrix of its file."""
    side = frame.side_data.get("DISPLAYMATRIX")
    return make_orientation(None if side is None else bytes(side))


@dataclass
class Display:
    """Converts decoded frames of one video to images as they are displayed, all of one size.

    Attributes:
        width: Width of the stored frames in pixels, before any turn.
        height: Their height.
        pixel_aspect: Width / height of one stored pixel.
    """

    width: int
    height: int
    pixel_aspect: Fraction
    _reformatter: VideoReformatter = field(default_factory=VideoReformatter)

    def rgb(self, frame: Any) -> Pixels:
        """Return a frame as an array (height, width, 3), uint8 RGB: upright, with square pixels."""
        size = displayed_size(self.width, self.height, self.pixel_aspect)
        scaled = self._reformatter.reformat(
            frame,
            *size,
            "rgb24",
            src_colorspace=untagged_matrix(frame),
            # Without a change of size, the default only affects how chroma is enlarged.
            interpolation=None if size == (frame.width, frame.height) else Interpolation.BICUBIC,
            threads=1,
        )
        return orientation(frame).turn(np.asarray(scaled.to_ndarray(), dtype=np.uint8))
