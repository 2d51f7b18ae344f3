"""The video stream of a source file: which stream it is, which of its frames are shown, and how a frame is displayed.

The readers of videos that are not normalised share these rules: `source.py` for the corpora of PreViTS section 4.1,
`video_reader.py` for the labelled videos of sections 4.3 and 4.4. The first finds frames by time, the second by number.

- The stream is the largest one that can be decoded and is not a cover (an attached picture).
- Packets outside an MP4's edit list are decoded, because others depend on them, but their frames are not shown.
- A stream may start inside a GOP (a group of frames that depend on its first). Frames that need an earlier GOP are not
  shown.
- A frame is displayed upright and with square pixels. A file that states no colour matrix has that of its size.
"""

import errno
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import av.subtitles.stream  # PyAV imports it when it meets subtitles, and a confined process cannot import any more
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter

from previts.errors import VideoError
from previts.media.geometry import Orientation, Pixels, displayed_size, make_orientation, pixels
from previts.storage.file_names import VIDEO_FORMATS

MAX_STREAMS = 64  # of one file
MAX_PIXELS = 8192 * 4352  # of one frame

# Colour matrices that swscale converts: from the number of H.264 to that of swscale.
_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
SD_MATRIX = 5  # BT.601, as swscale numbers it
_HD_MATRIX = 1  # BT.709
_UNTAGGED = 2  # H.264's number of "unspecified"


def open_stream(source: str | int | bytes, options: Mapping[str, str] | None = None) -> tuple[Any, Any]:
    """Return the container of a video and its video stream, to decode on one thread.

    Args:
        source: A local path, the descriptor of an open file, or the bytes of a file.
        options: Options of the decoder.

    Raises:
        VideoError: If the format is not allowed, there is no video stream or no decoder, or its frames are too large.
        av.FFmpegError: If the file cannot be read.
    """
    allowed = {"format_whitelist": ",".join(VIDEO_FORMATS), "max_streams": str(MAX_STREAMS)}
    opened: Any = io.BytesIO(source) if isinstance(source, bytes) else source
    if isinstance(source, str):
        allowed["protocol_whitelist"] = "file"
    elif isinstance(source, int):  # FFmpeg's protocol `fd` can open no other file
        os.lseek(source, 0, os.SEEK_SET)
        allowed |= {"protocol_whitelist": "fd", "fd": str(source)}
        opened = "fd:"
    try:
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
    if options:
        stream.codec_context.options = dict(options)
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


def cause(error: av.FFmpegError) -> str:
    """Return in our words why FFmpeg failed; its own texts differ between its versions."""
    if isinstance(error, av.error.InvalidDataError) or error.errno == errno.EINVAL:
        return "invalid data"
    if isinstance(error, av.error.EOFError):
        return "it ends too early"
    if isinstance(error, av.error.PatchWelcomeError | av.error.ExperimentalError):
        return "it uses something that the decoder does not support"
    code = errno.errorcode.get(error.errno or 0, "")
    return f"the decoder reports {code}" if code else "the decoder reports an error"


class PacketDecoder:
    """Decodes the packets of a stream one by one, and decides what is damage.

    Packets and frames before the first frame that is shown may be damaged: they need frames before the start.

    Args:
        where: Returns the place that was reached, for messages, such as "at frame 3".
    """

    def __init__(self, where: Callable[[], str]) -> None:
        self._where = where
        self._has_key = False  # whether a key frame was decoded; its frame may come later
        self._has_shown = False

    def frames(self, packet: Any, *, may_be_marked: bool = False) -> list[Any] | None:
        """Return the frames that come out of the decoder with a packet, or None if it needs frames before the start.

        Args:
            packet: The next packet of the stream; those outside an edit list are needed too.
            may_be_marked: Whether a mark of damage by FFmpeg means nothing for this packet.

        Raises:
            VideoError: If the packet is damaged.
        """
        if packet.is_corrupt and not may_be_marked:
            raise VideoError(f"damaged or cut short {self._where()}")
        try:
            frames: list[Any] = packet.decode()
        except av.FFmpegError as error:
            if error.errno == errno.ENOMEM:
                raise  # the video may not be the cause
            if self._has_key or packet.is_keyframe:
                raise VideoError(f"damaged {self._where()}: {cause(error)}") from error
            return None
        self._has_key = self._has_key or packet.is_keyframe
        return frames

    def shows(self, frame: Any) -> bool:
        """Return whether a frame is shown; if not, it needs frames before the start.

        Raises:
            VideoError: If the frame is damaged or has too many pixels.
        """
        if frame.is_corrupt and self._has_shown:
            raise VideoError(f"damaged {self._where()}")
        if frame.is_corrupt:
            return False
        check_size(frame.width, frame.height)
        self._has_shown = True
        return True


def decoded(packets: Iterable[Any], where: Callable[[], str]) -> Iterator[Any]:
    """Yield the frames that are shown, in the order of the decoder.

    Args:
        packets: All packets of the stream from a possible start on, those outside the edit list included.
        where: As for `PacketDecoder`.

    Raises:
        VideoError: If a packet or a frame is damaged.
    """
    decoder = PacketDecoder(where)
    for packet in packets:
        if not packet.size and packet.dts is not None:
            continue  # AVI stores a repeated frame as an empty packet; a decoder treats that as the end
        yield from filter(decoder.shows, decoder.frames(packet) or ())


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
        return orientation(frame).turn(pixels(scaled))
