"""The normaliser: converts a video of any format to a small H.264 file in which single frames are cheap to read.

PreViTS section 4.1 trains on VGG-Sound and Kinetics. The paper states neither the size nor the frame rate of its stored
videos. The loader needs two short clips of a video of ten seconds. So every video becomes H.264 in short closed GOPs
whose byte offsets are known.

A normalised video has one slice for each frame, no B-frames and no audio. Each GOP is a run of bytes that can be
decoded without the others, and `frame_decoder.py` finds its frames by their slices.

`source.py` decodes the frames of a source, and `source_stream.py` has the rules for how they are shown. This module
reads local files only, no network and no object store.
"""

import contextlib
import errno
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from previts.config.perception import VideoConfig
from previts.errors import VideoError
from previts.media.frame_hashes import FrameHasher
from previts.media.geometry import Pixels, make_canvas, pixels
from previts.media.gop_layout import VideoInfo, split_frames
from previts.media.source import Decoding, probe
from previts.media.source_stream import SD_MATRIX, cause, colour_matrix, orientation, untagged_matrix
from previts.media.timing import MAX_FRAMES, constant_rate

PRESET = "veryfast"  # 0.9 dB below medium at equal crf and bytes, for less than half of the CPU time

# Colour matrices that a normalised video may have: from the number of swscale to that of H.264.
_MATRIX_TAG = {1: 1, 4: 4, 5: 6, 7: 7, 9: 9}


def normalise(
    source: str | int,
    target: str,
    config: VideoConfig,
    start_seconds: float | None,
    end_seconds: float | None,
    made: Callable[[int], None] = lambda frames: None,
) -> VideoInfo:
    """Write the window [start, end) of a video, a path or an open file's descriptor, as a normalised video.

    The frames are upright (the display matrix is applied), with square pixels and even sides. They are scaled down so
    that the short side is at most `max_short_side`, but never up. The rate is constant: min(average rate of the window,
    `max_fps`). Each output frame is the frame on screen at its time. Seconds count from the start of the file. A window
    that ends after the video ends with the video. `made` is called with the number of frames written so far.

    Raises:
        VideoError: If there is no usable video: empty, not a video, no video stream, damaged inside the window, nothing
            in the window, too large, too costly to decode, a slide show, or a single frame (motion needs two).
        OSError: If the disk is full.
        MemoryError: If the frames do not fit into memory.
    """
    if not os.path.isfile(source):
        raise VideoError("there is no such file")
    if os.path.getsize(source) == 0:
        raise VideoError("the file is empty (0 bytes)")
    try:
        return _normalise(source, target, config, start_seconds, end_seconds, made)
    except av.FFmpegError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM):
            raise  # the video may not be the cause; the caller knows the limits
        if error.errno == errno.EFBIG:
            raise VideoError("the normalised video is larger than the limit of a file") from error
        raise VideoError(f"not a readable video: {cause(error)}") from error


def _normalise(
    source: str | int,
    target: str,
    config: VideoConfig,
    start_seconds: float | None,
    end_seconds: float | None,
    made: Callable[[int], None],
) -> VideoInfo:
    window, cost = probe(source, start_seconds, end_seconds, config.cpu_seconds_per_frame)
    rate = min(window.rate, Fraction(config.max_fps).limit_denominator(1001))
    if math.isinf(window.stop) and window.seconds * float(rate) >= MAX_FRAMES:
        raise VideoError(f"more than {MAX_FRAMES} frames; give start_seconds and end_seconds")
    decoding = Decoding(source, window, cost)
    with contextlib.closing(constant_rate(decoding.frames(), window, rate)) as frames:
        first = next(frames)
        shaper = _Shaper(first, window.pixel_aspect, config)
        hasher = FrameHasher(float(rate))
        shaped = (shaper.to_canvas(frame) for frame in _counted(itertools.chain([first], frames), made))
        _encode(hasher.watch(shaped), rate, target, matrix=shaper.matrix, gop=config.gop, crf=config.crf)
    info = inspect_video(target)
    if info.num_frames < 2:
        slower = f" at {float(rate):g} frames per second" if rate < window.rate else ""
        raise VideoError(f"the video or window has only one frame{slower}; it needs at least two")
    return replace(
        info,
        skipped_frames=decoding.skipped,
        missing_seconds=decoding.missing_seconds,
        hashes=hasher.to_bytes(),
    )


def _counted(frames: Iterable[Any], made: Callable[[int], None]) -> Iterator[Any]:
    for number, frame in enumerate(frames):
        made(number)
        yield frame


class _Shaper:
    """Converts decoded frames to upright yuv420p in limited range, with one size and one colour matrix."""

    def __init__(self, first: Any, pixel_aspect: float, config: VideoConfig) -> None:
        short_side, turn = config.max_short_side, orientation(first)
        self.canvas = make_canvas(first.width, first.height, pixel_aspect, short_side, turn)
        self.matrix, self.untagged = colour_matrix(first), untagged_matrix(first)
        self.reformatter = VideoReformatter()

    def to_canvas(self, frame: Any) -> Pixels:
        """Return a frame, resized and rotated to the canvas, as packed yuv420p planes (height * 3 / 2, width)."""
        scaled = self.reformatter.reformat(
            frame,
            self.canvas.width,
            self.canvas.height,
            "yuv420p",
            src_colorspace=self.untagged,
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
    _encode((_planes(frame) for frame in frames), rate, target, matrix=SD_MATRIX, gop=gop, crf=crf)
    return inspect_video(target)


def _planes(frame: Pixels) -> Pixels:
    """Return an RGB frame as packed yuv420p planes (height * 3 / 2, width)."""
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or frame.shape[0] % 2 or frame.shape[1] % 2:
        raise ValueError(f"a frame must be (even height, even width, 3) uint8, got {frame.shape} {frame.dtype}")
    image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
    return pixels(
        VideoReformatter().reformat(
            image, format="yuv420p", dst_colorspace=SD_MATRIX, dst_color_range=ColorRange.MPEG, threads=1
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
