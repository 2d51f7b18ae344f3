"""The normaliser: converts a video of any format to a small H.264 file in which single frames are cheap to read.

PreViTS section 4.1 trains on VGG-Sound and Kinetics. The paper states neither the size nor the frame rate of its stored
videos. The loader needs two short clips of a video of ten seconds. So every video becomes H.264 in short closed GOPs
whose byte offsets are known.

A normalised video has one slice for each frame, no B-frames and no audio. Each GOP is a run of bytes that can be
decoded without the others, and `frame_decoder.py` finds its frames by their slices.

Only this file, `frame_decoder.py` and `video_reader.py` import PyAV. This module reads local files only, no network and
no object store.
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

MAX_PIXELS = 8192 * 4352  # of one frame
SEEK_AFTER_SECONDS = 5.0  # for earlier windows, decoding from the start is cheap and safer than a seek
SECONDS_UNKNOWN = -(1 << 63)  # FFmpeg's AV_NOPTS_VALUE
PRESET = "veryfast"  # 0.9 dB below medium at equal crf and bytes, for less than half of the CPU time

# Colour matrices that a normalised video may have: from the number of H.264 to that of swscale, and back.
_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
_MATRIX_TAG = {1: 1, 4: 4, 5: 6, 7: 7, 9: 9}
_SD_MATRIX = 5  # BT.601, as swscale numbers it
_HD_MATRIX = 1  # BT.709
_UNTAGGED = 2  # H.264's number of "unspecified"


def normalise(
    source: str, target: str, config: VideoConfig, start_seconds: float | None, end_seconds: float | None
) -> VideoInfo:
    """Write the window [start, end) of a video as a normalised video.

    The frames are upright (the display matrix is applied), with square pixels and even sides. They are scaled down so
    that the short side is at most `max_short_side`, but never up. The rate is constant: min(average rate of the window,
    `max_fps`). Each output frame is the frame on screen at its time. Seconds count from the start of the file. A window
    that ends after the video ends with the video.

    Raises:
        VideoError: If there is no usable video: empty, not a video, no video stream, damaged inside the window, nothing
            in the window, too large, or a single frame (motion needs two).
        OSError: If the disk is full.
        MemoryError: If the frames do not fit into memory.
    """
    if not os.path.isfile(source):
        raise VideoError("there is no such file")
    if os.path.getsize(source) == 0:
        raise VideoError("the file is empty (0 bytes)")
    try:
        return _normalise(source, target, config, start_seconds, end_seconds)
    except av.FFmpegError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM):
            raise  # the video may not be the cause; the caller knows the limits
        if error.errno == errno.EFBIG:
            raise VideoError("the normalised video is larger than the limit of a file") from error
        raise VideoError(f"not a readable video: {error.strerror or error}") from error


def _normalise(
    source: str, target: str, config: VideoConfig, start_seconds: float | None, end_seconds: float | None
) -> VideoInfo:
    window = _probe(source, start_seconds, end_seconds, seek=(start_seconds or 0.0) > SEEK_AFTER_SECONDS)
    rate = min(window.rate, Fraction(config.max_fps).limit_denominator(1001))
    with contextlib.closing(constant_rate(_decoded(source, window), window, rate)) as frames:
        first = next(frames)
        shaper = _Shaper(first, window.pixel_aspect, config)
        shaped = (shaper.to_canvas(frame) for frame in itertools.chain([first], frames))
        _encode(shaped, rate, target, matrix=shaper.matrix, gop=config.gop, crf=config.crf)
    info = inspect_video(target)
    if info.num_frames < 2:
        slower = f" at {float(rate):g} frames per second" if rate < window.rate else ""
        raise VideoError(f"the video or window has only one frame{slower}; it needs at least two")
    return info


def _open(source: str) -> tuple[Any, Any]:
    """Return the container and its video stream, ready to decode on one thread."""
    allowed = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS, "max_streams": str(MAX_STREAMS)}
    try:
        container = av.open(source, options=allowed, metadata_errors="ignore")
    except av.FFmpegError as error:
        if error.errno == errno.EINVAL:
            raise VideoError("not a readable video: the format of the file is not known or not allowed") from error
        raise
    moving: list[Any] = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        kinds = sorted({"a cover" if stream.type == "video" else stream.type for stream in container.streams})
        container.close()
        raise VideoError(f"no video stream (the file contains {' and '.join(kinds) if kinds else 'nothing'} only)")
    known = [stream for stream in moving if stream.codec_context is not None]
    if not known:
        container.close()
        raise VideoError("there is no decoder for the codec of the video")
    stream: Any = max(known, key=lambda s: ((s.width or 0) * (s.height or 0), -s.index))
    stream.codec_context.thread_count = 1
    stream.codec_context.thread_type = "NONE"
    _check_size(stream.width or 0, stream.height or 0)
    return container, stream


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise VideoError(f"frames of {width}x{height} are larger than the limit of {MAX_PIXELS} pixels")


def _probe(source: str, start_seconds: float | None, end_seconds: float | None, *, seek: bool) -> Window:
    """Return the window, with its average rate, from the timestamps of the packets; nothing is decoded."""
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
                raise VideoError(f"more than {MAX_FRAMES * 12} frames; give start_seconds and end_seconds")
        nominal, aspect = stream.average_rate, stream.sample_aspect_ratio
        if complete and "matroska" in container.format.name and container.duration:
            check_complete(container.duration / av.time_base, final - zero, stop - zero)
    if seek and earliest > origin:  # the index of the file led to a place after the start of the window
        return _probe(source, start_seconds, end_seconds, seek=False)
    if not times:
        if earliest == math.inf:
            raise VideoError("the video stream has no frames")
        raise VideoError(
            f"no frames in the window from {start_seconds or 0:g} s"
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
    """Converts decoded frames to upright yuv420p in limited range, with one size and one colour matrix."""

    def __init__(self, first: Any, pixel_aspect: float, config: VideoConfig) -> None:
        side = first.side_data.get("DISPLAYMATRIX")
        display_matrix = None if side is None else bytes(side)
        self.canvas = make_canvas(first.width, first.height, pixel_aspect, config.max_short_side, display_matrix)
        # Players treat an untagged matrix as BT.709 in HD and as BT.601 in smaller videos. Number 0 is RGB.
        is_hd = min(first.width, first.height) >= 720 and first.colorspace != 0
        self.matrix = _MATRIX.get(int(first.colorspace), _HD_MATRIX if is_hd else _SD_MATRIX)
        self.untagged = int(first.colorspace) == _UNTAGGED
        self.reformatter = VideoReformatter()

    def to_canvas(self, frame: Any) -> Pixels:
        """Return a frame, resized and rotated to the canvas, as packed yuv420p planes (height * 3 / 2, width)."""
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
    """Write frames, each (height, width, 3) uint8 RGB with even sides, as a normalised video.

    The same frames always give the same bytes: the encoder uses one thread and writes no dates.

    Raises:
        ValueError: If there are no frames, sides are odd, or shapes differ.
    """
    rate = Fraction(fps).limit_denominator(1001)
    _encode((_planes(frame) for frame in frames), rate, target, matrix=_SD_MATRIX, gop=gop, crf=crf)
    return inspect_video(target)


def _planes(frame: Pixels) -> Pixels:
    """Return an RGB frame as packed yuv420p planes (height * 3 / 2, width)."""
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or frame.shape[0] % 2 or frame.shape[1] % 2:
        raise ValueError(f"a frame must be (even height, even width, 3) uint8, got {frame.shape} {frame.dtype}")
    image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
    return pixels(
        VideoReformatter().reformat(
            image, format="yuv420p", dst_colorspace=_SD_MATRIX, dst_color_range=ColorRange.MPEG, threads=1
        )
    )


def _encode(frames: Iterable[Pixels], rate: Fraction, target: str, *, matrix: int, gop: int, crf: int) -> None:
    """Encode packed yuv420p planes; after an error, no file is left."""
    done = False
    try:
        with av.open(target, "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream: Any = None
            for number, planes in enumerate(frames):
                if stream is None:
                    stream = _video_stream(container, planes, rate, matrix=matrix, gop=gop, crf=crf)
                if planes.shape != (stream.height * 3 // 2, stream.width):
                    raise ValueError(f"all frames of a video must have one shape, but frame {number} differs")
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


def _video_stream(container: Any, planes: Pixels, rate: Fraction, *, matrix: int, gop: int, crf: int) -> Any:
    """Add a stream for planes of this size to a container, with settings that make the bytes reproducible."""
    fixed = {
        "keyint": gop, "min-keyint": gop, "scenecut": 0, "open-gop": 0, "bframes": 0,
        "slices": 1, "sliced-threads": 0, "threads": 1, "lookahead-threads": 1,
        # Without it, the macroblock tree of x264 differs between CPUs, and sometimes between two runs on one CPU.
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
    """Return the layout of a normalised video in its file.

    Raises:
        VideoError: If `normalise` or `encode_video` did not write the file.
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
                    raise VideoError("not a normalised video: its frames are not contiguous")
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
