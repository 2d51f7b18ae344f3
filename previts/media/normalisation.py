"""Videos of any kind in, normalised videos out.

PreViTS section 4.1 trains on VGG-Sound and Kinetics; the paper gives neither size nor rate of what it stored. The
loader asks for two short clips of a ten second video, so every video becomes H.264 in short closed GOPs whose byte
offsets are known. With `decoder.py` and `footage.py` the only file that imports PyAV. It never reads a network or an
object store.

A normalised video has one slice a frame, no B-frames and no audio. A GOP is a run of bytes that decodes by itself, and
`decoder.py` finds its frames by their slices alone.
"""

import contextlib
import errno
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from previts.config.experiment import VideoConfig
from previts.errors import VideoError
from previts.media.frame_decoder import pixels
from previts.media.geometry import Pixels, make_canvas
from previts.media.gop_layout import VideoInfo, split_frames
from previts.media.timing import MAX_FRAMES, Window, check_complete, constant_rate, make_window
from previts.media.video_reader import CONTAINERS, MAX_STREAMS

__all__ = ["Pixels", "VideoConfig", "VideoError", "VideoInfo", "encode_video", "inspect_video", "normalise"]

MAX_PIXELS = 8192 * 4352
SEEK_AFTER_SECONDS = 5.0  # below this, decoding from the start costs less than a seek can go wrong
SECONDS_UNKNOWN = -(1 << 63)

# swscale's number of a colour matrix by H.264's, for those that a normalised video may have.
_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
_MATRIX_TAG = {1: 1, 4: 4, 5: 6, 7: 7, 9: 9}
_SD_MATRIX = 5
PRESET = "veryfast"  # 0.9 dB below medium at equal crf and bytes, for less than half of the CPU time


def normalise(
    source: str, target: str, config: VideoConfig, start_seconds: float | None, end_seconds: float | None
) -> VideoInfo:
    """Write the window [start, end) of a video as a normalised video.

    Upright (the display matrix is applied) with square pixels, scaled down so that the short side is at most
    `max_short_side`, never up, to even sides; at the constant rate min(average rate of the window, `max_fps`), each
    output frame being the picture on screen at its time. Seconds count from the start of the file. A window that
    reaches past the end of the video is cut there.

    Raises:
        VideoError: If there is no usable video: empty, not a video, no video stream, damaged inside the window, nothing
            in the window, too large, or one picture only (it needs two frames to move).
        OSError: If the disk is full.
        MemoryError: If the pictures do not fit into memory.
    """
    if not os.path.isfile(source):
        raise VideoError("there is no such file")
    if os.path.getsize(source) == 0:
        raise VideoError("the file is empty (0 bytes)")
    try:
        return _normalise(source, target, config, start_seconds, end_seconds)
    except av.FFmpegError as error:
        if error.errno in (errno.ENOSPC, errno.ENOMEM):
            raise  # not the video's fault, or not only: the caller knows the limits
        if error.errno == errno.EFBIG:
            raise VideoError("its normalised form grows larger than a file may be") from error
        raise VideoError(f"not a readable video: {error.strerror or error}") from error


def _normalise(
    source: str, target: str, config: VideoConfig, start_seconds: float | None, end_seconds: float | None
) -> VideoInfo:
    window = _probe(source, start_seconds, end_seconds, seek=(start_seconds or 0.0) > SEEK_AFTER_SECONDS)
    rate = min(window.rate, Fraction(config.max_fps).limit_denominator(1001))
    with contextlib.closing(constant_rate(_decoded(source, window), window, rate)) as frames:
        first = next(frames)
        shaper = _Shaper(first, window.pixel_aspect, config)
        pictures = (shaper.shape(frame) for frame in itertools.chain([first], frames))
        _encode(pictures, rate, shaper.matrix, target, config.gop, config.crf)
    info = inspect_video(target)
    if info.num_frames < 2:
        slower = f" at {float(rate):g} pictures a second" if rate < window.rate else ""
        raise VideoError(f"only one picture in the video or window{slower}; it needs at least two")
    return info


def _open(source: str) -> tuple[Any, Any]:
    """Return the container and its video stream, ready to decode on one thread."""
    allowed = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS, "max_streams": str(MAX_STREAMS)}
    try:
        container = av.open(source, options=allowed, metadata_errors="ignore")
    except av.FFmpegError as error:
        if error.errno == errno.EINVAL:
            raise VideoError("not a kind of file that videos come in") from error
        raise
    moving: list[Any] = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        kinds = sorted({"a cover" if stream.type == "video" else stream.type for stream in container.streams})
        container.close()
        raise VideoError(f"no video stream (it holds {' and '.join(kinds) if kinds else 'nothing'} only)")
    known = [stream for stream in moving if stream.codec_context is not None]
    if not known:
        container.close()
        raise VideoError("no decoder for the video's codec")
    stream: Any = max(known, key=lambda s: ((s.width or 0) * (s.height or 0), -s.index))
    stream.codec_context.thread_count = 1
    stream.codec_context.thread_type = "NONE"
    _check_size(stream.width or 0, stream.height or 0)
    return container, stream


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise VideoError(f"pictures of {width}x{height} are larger than the limit of {MAX_PIXELS} pixels")


def _probe(source: str, start_seconds: float | None, end_seconds: float | None, seek: bool) -> Window:
    """Return the window in container time and its average rate, from its packets' timestamps; nothing is decoded."""
    container, stream = _open(source)
    with container:
        zero = 0.0 if container.start_time in (None, SECONDS_UNKNOWN) else container.start_time / av.time_base
        trimmed = start_seconds is not None or end_seconds is not None
        origin = zero + (start_seconds or 0.0) if trimmed else -math.inf
        stop = math.inf if end_seconds is None else zero + end_seconds
        if seek:
            container.seek(int(origin * av.time_base))
        times: list[float] = []
        earliest, last, final = math.inf, -math.inf, -math.inf
        complete = True
        for packet in container.demux():
            ticks = packet.dts if packet.pts is None else packet.pts
            if ticks is None or packet.is_discard:
                continue
            time = float(ticks * packet.time_base)
            final = max(final, time)
            if packet.stream_index != stream.index:
                continue
            earliest, last = min(earliest, time), max(last, time)
            if packet.dts is not None and float(packet.dts * packet.time_base) >= stop:
                complete = False
                break
            if origin <= time < stop:
                times.append(time)
            if len(times) > MAX_FRAMES * 12:
                raise VideoError(f"more than {MAX_FRAMES * 12} pictures; give start_seconds and end_seconds")
        nominal, aspect = stream.average_rate, stream.sample_aspect_ratio
        if complete and "matroska" in container.format.name and container.duration:
            check_complete(container.duration / av.time_base, final - zero, stop - zero)
    if seek and earliest > origin:  # the index pointed behind the window
        return _probe(source, start_seconds, end_seconds, seek=False)
    if not times:
        if earliest == math.inf:
            raise VideoError("the video stream holds no pictures")
        raise VideoError(
            f"no pictures in the window from {start_seconds or 0:g} s"
            f"{'' if end_seconds is None else f' to {end_seconds:g} s'}; the video ends near {last - zero:.1f} s"
        )
    return make_window(times, origin, stop, nominal=nominal, aspect=aspect, seek=seek)


def _decoded(source: str, window: Window) -> Iterator[tuple[float, Any]]:
    """Yield (seconds, frame) in order of time, up to the end of the window."""
    container, stream = _open(source)
    with container:
        if window.seek:
            container.seek(int(window.origin * av.time_base))
        last = -math.inf
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise VideoError(f"damaged or cut short after {window.elapsed(last)}")
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                if last == -math.inf and not packet.is_keyframe:
                    continue  # the stream starts inside a GOP
                raise VideoError(f"damaged after {window.elapsed(last)}: {error.strerror or error}") from error
            for frame in frames:
                ticks = frame.dts if frame.pts is None else frame.pts
                time = last + 1 / float(window.rate) if ticks is None else float(ticks * frame.time_base)
                if time >= window.stop:
                    return
                if time <= last or (frame.is_corrupt and last == -math.inf):
                    continue
                if frame.is_corrupt:
                    raise VideoError(f"damaged after {window.elapsed(last)}")
                _check_size(frame.width, frame.height)
                last = time
                yield time, frame


class _Shaper:
    """Turns decoded frames into upright yuv420p pictures of one size, colour matrix and limited range."""

    def __init__(self, first: Any, pixel_aspect: float, config: VideoConfig) -> None:
        side = first.side_data.get("DISPLAYMATRIX")
        display_matrix = None if side is None else bytes(side)
        self.canvas = make_canvas(first.width, first.height, pixel_aspect, config.max_short_side, display_matrix)
        # An untagged matrix means BT.709 for HD and BT.601 below, as players have it.
        guess = 1 if min(first.width, first.height) >= 720 and first.colorspace != 0 else 5
        self.matrix = _MATRIX.get(int(first.colorspace), guess)
        self.untagged = int(first.colorspace) == 2
        self.reformatter = VideoReformatter()

    def shape(self, frame: Any) -> Pixels:
        """Return a picture as packed yuv420p planes, [height * 3 / 2, width]."""
        scaled = self.reformatter.reformat(
            frame,
            self.canvas.width,
            self.canvas.height,
            "yuv420p",
            src_colorspace=self.matrix if self.untagged else None,
            dst_colorspace=self.matrix,
            interpolation=Interpolation.BICUBIC,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        return self.canvas.turn(pixels(scaled))


def encode_video(
    frames: Iterable[Pixels], fps: float | Fraction, target: str, *, gop: int = 12, crf: int = 23
) -> VideoInfo:
    """Write frames, each [height, width, 3] uint8 RGB of even sides, as a normalised video.

    The same frames give the same bytes: one thread, no dates.

    Raises:
        ValueError: If there are no frames, or their shapes are odd or differ.
    """
    rate = Fraction(fps).limit_denominator(1001)
    _encode((_planes(frame) for frame in frames), rate, _SD_MATRIX, target, gop, crf)
    return inspect_video(target)


def _planes(frame: Pixels) -> Pixels:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or frame.shape[0] % 2 or frame.shape[1] % 2:
        raise ValueError(f"a frame must be [even height, even width, 3] uint8, got {frame.shape} {frame.dtype}")
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
    return pixels(
        VideoReformatter().reformat(
            picture, format="yuv420p", dst_colorspace=_SD_MATRIX, dst_color_range=ColorRange.MPEG, threads=1
        )
    )


def _encode(pictures: Iterable[Pixels], rate: Fraction, matrix: int, target: str, gop: int, crf: int) -> None:
    """Encode packed yuv420p planes; leaves no file behind if the pictures end in an error."""
    done = False
    try:
        with av.open(target, "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream: Any = None
            for number, planes in enumerate(pictures):
                if stream is None:
                    stream = _video_stream(container, planes, rate, matrix, gop, crf)
                if planes.shape != (stream.height * 3 // 2, stream.width):
                    raise ValueError(f"frames of one video must share a shape, frame {number} differs")
                frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
                frame.pts, frame.time_base = number, 1 / rate
                container.mux(stream.encode(frame))
            if stream is None:
                raise ValueError("a video needs frames, got none")
            container.mux(stream.encode(None))
        done = True
    finally:
        if not done and os.path.exists(target):
            os.remove(target)


def _video_stream(container: Any, planes: Pixels, rate: Fraction, matrix: int, gop: int, crf: int) -> Any:
    fixed = {
        "keyint": gop, "min-keyint": gop, "scenecut": 0, "open-gop": 0, "bframes": 0,
        "slices": 1, "sliced-threads": 0, "threads": 1, "lookahead-threads": 1,
        # Without it x264's macroblock tree differs between CPUs, and now and then between two runs on one.
        "cpu-independent": 1,
    }  # fmt: skip
    stream = container.add_stream(
        "libx264",
        rate=rate,
        options={
            "preset": PRESET,
            "tune": "fastdecode",
            "crf": str(crf),
            "x264-params": ":".join(f"{key}={value}" for key, value in fixed.items()),
        },
    )
    stream.width, stream.height, stream.pix_fmt = planes.shape[1], planes.shape[0] * 2 // 3, "yuv420p"
    context = stream.codec_context
    context.thread_count = 1
    context.time_base = 1 / rate
    context.colorspace, context.color_range = _MATRIX_TAG[matrix], int(ColorRange.MPEG)
    return stream


def inspect_video(path: str) -> VideoInfo:
    """Return how a normalised video is laid out in its file.

    Raises:
        VideoError: If the file is not of `normalise` or `encode_video`.
    """
    try:
        with av.open(path, options={"protocol_whitelist": "file"}) as container, open(path, "rb") as file:
            stream = container.streams.video[0]
            context = stream.codec_context
            header, rate = bytes(context.extradata or b""), stream.average_rate
            starts: list[tuple[int, bool]] = []
            end = 0
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                if packet.pos is None or (starts and packet.pos != end):
                    raise VideoError("not a normalised video: its frames do not lie one after the other")
                starts.append((packet.pos, packet.is_keyframe))
                end = packet.pos + packet.size
            if not starts or not starts[0][1] or context.name != "h264" or rate is None:
                raise VideoError("not a normalised video: it must be H.264 and start with a key frame")
            file.seek(starts[0][0])
            units = split_frames(file.read(end - starts[0][0]))
    except (av.FFmpegError, IndexError) as error:
        raise VideoError(f"not a normalised video: {error}") from error
    if [(start + starts[0][0], key) for start, _, key in units] != starts:
        raise VideoError("not a normalised video: a frame must be a single slice")
    keys = [number for number, (_, key) in enumerate(starts) if key]
    offsets = [starts[number][0] for number in keys] + [end]
    return VideoInfo(context.width, context.height, len(starts), float(rate), header, keys, offsets)
