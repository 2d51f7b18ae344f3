"""Source videos in many formats, whose frames show their own number, and a reader of these numbers."""

from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from previts.config.perception import VideoConfig
from previts.media import normalisation
from previts.media.frame_decoder import rgb

CONFIG = VideoConfig()
BITS = 10


def numbered(number, width=160, height=96, channels=3):
    """Return a frame that shows its number as a row of black and white blocks, above a moving texture."""
    rows, columns = np.mgrid[:height, :width]
    image = 110 + 40 * np.sin(rows / 9 + number / 3) + 40 * np.cos(columns / 13 - number / 5)
    block = width // BITS
    for bit in range(BITS):
        image[: height // 3, bit * block : (bit + 1) * block] = 255 if number >> bit & 1 else 0
    return np.repeat(image.astype(np.uint8)[..., None], channels, axis=2)


def read_number(frame):
    """Return the number that a frame of `numbered` shows."""
    height, width = frame.shape[:2]
    block = width / BITS
    strip = frame[height // 9 : height // 4].mean(axis=(0, 2))
    return sum(int(strip[int((bit + 0.5) * block)] > 127) << bit for bit in range(BITS))


def write_source(
    path,
    frames,
    *,
    times=None,
    fps=25,
    codec="libx264",
    gop=30,
    options=None,
    matrix=None,
    aspect=None,
    audio=False,
    container_options=None,
):
    """Write a video that is not normalised; `times` in seconds give it a variable frame rate."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        tick = 1 / Fraction(fps)
        stream.codec_context.time_base = tick
        if matrix is not None:
            stream.set_display_matrix(matrix)
        if audio:
            write_tone(container)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p")
            frame.time_base = tick
            frame.pts = number if times is None else round(times[number] / tick)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


def write_tone(container, seconds=2):
    """Add an audio stream to a container."""
    stream = container.add_stream("aac", rate=16000)
    for start in range(0, 16000 * seconds, 1024):
        tone = np.sin(np.arange(start, start + 1024) / 10).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def write_noisy(path):
    """Write a normalised video with so much detail and motion that every frame depends on the frames before it."""
    base = np.random.default_rng(0).integers(0, 256, (160, 240, 3), dtype=np.uint8)
    return normalisation.encode_video([np.roll(base, (shift, 2 * shift), (0, 1)) for shift in range(40)], 25, path)


def decode_file(path):
    """Return all frames of a video file (T, H, W, 3), uint8 RGB, from the first to the last."""
    reformatter = VideoReformatter()
    with av.open(path) as container:
        return np.stack([rgb(reformatter, frame) for frame in container.decode(video=0)])


def shown(source, tmp_path, start=None, end=None, config=CONFIG):
    """Normalise a video; return its layout and the numbers that its frames show."""
    target = str(tmp_path / "normalised.mp4")
    info = normalisation.normalise(source, target, config, start, end)
    frames = decode_file(target)
    assert len(frames) == info.num_frames
    return info, [read_number(frame) for frame in frames]
