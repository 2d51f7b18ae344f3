"""Writers of small videos whose frames show their own number twice, so that any frame is checked against the truth."""

import functools
import struct
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, COUNT, FPS = 160, 96, 50, 25
BITS = 10


def picture(number, width=WIDTH, height=HEIGHT):
    """Return a frame (height, width, 3): its number in black and white, below it the complement, then a texture."""
    rows, columns = np.mgrid[:height, :width]
    image = 110 + 40 * np.sin(rows / 9 + number / 3) + 40 * np.cos(columns / 13 - number / 5)
    for bit in range(BITS):
        block = slice(bit * width // BITS, (bit + 1) * width // BITS)
        image[: height // 4, block] = 255 * (number >> bit & 1)
        image[height // 4 : height // 2, block] = 255 * (1 - (number >> bit & 1))
    return np.repeat(image.astype(np.uint8)[..., None], 3, axis=2)


def read_picture(frame):
    """Return the number that a frame shows, or None if it and its complement do not agree."""
    height, width = frame.shape[:2]
    places = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
    upper, lower = (
        frame[int(height * start) : int(height * stop)].mean(axis=(0, 2))[places] > 127
        for start, stop in ((0.06, 0.19), (0.31, 0.44))
    )
    return None if (upper == lower).any() else sum(int(white) << bit for bit, white in enumerate(upper))


def write(
    path,
    numbers=range(COUNT),
    *,
    codec="libx264",
    fps=FPS,
    times=None,
    size=(WIDTH, HEIGHT),
    pix="yuv420p",
    gop=12,
    options=None,
    form=None,
    container_options=None,
    aspect=None,
    matrix=None,
    audio=False,
    ticks=None,
):
    """Write the pictures of some numbers; `times` (seconds) give them a variable rate."""
    options = options or ({"preset": "ultrafast"} if codec == "libx264" else {})
    with av.open(str(path), "w", format=form, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        (stream.width, stream.height), stream.pix_fmt = size, pix
        context = stream.codec_context
        context.gop_size, context.thread_count = gop, 1
        context.time_base = ticks or 1 / Fraction(fps)
        if aspect:
            context.sample_aspect_ratio = aspect
        if matrix is not None:
            stream.set_display_matrix(matrix)
        sound = container.add_stream("aac", rate=16000) if audio else None
        for place, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), "rgb24").reformat(format=pix)
            frame.time_base = context.time_base
            frame.pts = round((place / Fraction(fps) if times is None else times[place]) / context.time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound:
            for start in range(0, 32000, 1024):
                tone = np.sin(np.arange(start, start + 1024) / 10).astype(np.float32)[None]
                part = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
                part.sample_rate, part.pts, part.time_base = 16000, start, Fraction(1, 16000)
                container.mux(sound.encode(part))
            container.mux(sound.encode(None))
    return path


@functools.cache
def base(suffix, codec="libx264", first=0, count=COUNT, **settings):
    """Return the bytes of a video of `count` frames from number `first`; options are pairs of texts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"base.{suffix}")
        plain = {name: dict(value) if name.endswith("options") else value for name, value in settings.items()}
        write(path, range(first, first + count), codec=codec, **plain)
        return path.read_bytes()


def write_packets(path, codec, size, pix, times, *, form=None, fps=FPS, options=None):
    """Write one frame (number 7) again and again, at the given ticks of 1 / fps: a large video in little time."""
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        (stream.width, stream.height), stream.pix_fmt = size, pix
        stream.codec_context.thread_count = 1
        small = picture(7)
        rows, columns = (np.arange(n) * m // n for n, m in zip(size[::-1], small.shape, strict=False))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(small[rows][:, columns]), "rgb24").reformat(format=pix)
        frame.pts = 0
        packet = bytes([*stream.encode(frame), *stream.encode(None)][0])
        for tick in times:
            copy = av.Packet(packet)
            copy.stream, copy.pts, copy.dts, copy.time_base = stream, tick, tick, 1 / Fraction(fps)
            copy.is_keyframe = True
            container.mux(copy)
    return path


def shift_ts(data, seconds):
    """Return an MPEG transport stream with all its timestamps moved, modulo 2^33 ticks as the format has it."""
    out = bytearray(data)
    for start in range(0, len(out) - 187, 188):
        packet = memoryview(out)[start : start + 188]
        body = 4
        if packet[3] & 0x20:
            if packet[4] and packet[5] & 0x10:  # the clock of the program
                ticks = int.from_bytes(packet[6:10], "big") << 1 | packet[10] >> 7
                ticks = (ticks + round(seconds * 90_000)) % (1 << 33)
                packet[6:10] = (ticks >> 1).to_bytes(4, "big")
                packet[10] = packet[10] & 0x7F | (ticks & 1) << 7
            body += 1 + packet[4]
        if packet[1] & 0x40 and bytes(packet[body : body + 3]) == b"\0\0\1" and packet[body + 3] >= 0xBD:
            flags, place = packet[body + 7] >> 6, body + 9
            for _ in range({2: 1, 3: 2}.get(flags, 0)):
                b = packet[place : place + 5]
                ticks = (b[0] >> 1 & 7) << 30 | b[1] << 22 | (b[2] >> 1) << 15 | b[3] << 7 | b[4] >> 1
                ticks = (ticks + round(seconds * 90_000)) % (1 << 33)
                b[0] = b[0] & 0xF1 | (ticks >> 30 & 7) << 1
                b[1], b[2] = ticks >> 22 & 255, (ticks >> 15 & 127) << 1 | 1
                b[3], b[4] = ticks >> 7 & 255, (ticks & 127) << 1 | 1
                place += 5
    return bytes(out)


def boxes(data, start=0, stop=None):
    """Yield (name, start, stop) of the boxes of an MP4 file, the inner ones after their parent."""
    stop = len(data) if stop is None else stop
    while start + 8 <= stop:
        size, name = struct.unpack(">I4s", data[start : start + 8])
        if size < 8 or start + size > stop:
            return
        yield name, start, start + size
        if name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf"):
            yield from boxes(data, start + 8, start + size)
        start += size


def box(data, wanted):
    """Return (start, stop) of the first box of a name."""
    return next((start, stop) for name, start, stop in boxes(data) if name == wanted)


def put(data, place, new):
    """Return the data with some bytes replaced."""
    return data[:place] + new + data[place + len(new) :]
