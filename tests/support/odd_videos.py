"""The table of odd source videos: files that players show rightly and readers easily get wrong.

Each frame shows its own number (`source_videos.numbered`), so that the truth does not depend on any reader. All readers
of source videos are tested with the whole table.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from PIL import Image
from source_videos import numbered, write_source

WIDTH, HEIGHT, FPS = 160, 120, 25
ONE = 1 << 16  # 1 in a display matrix
# What the matrix [a b, c d] does to a stored frame, and how such a frame is stored.
TURNS = {
    "clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, 1)),
    "half": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "counterclockwise": ((0, -1, 1, 0), lambda image: np.rot90(image, -1)),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
}

# Endings of files from cameras and discs, in capital letters as cameras write them, and a codec of each.
CAMERAS = {
    ".MTS": "libx264", ".m2ts": "libx264", ".VOB": "mpeg2video", ".mxf": "mpeg2video", ".asf": "wmv2",
    ".3g2": "libx264", ".f4v": "libx264",
}  # fmt: skip


@dataclass(frozen=True)
class OddVideo:
    """A file, the numbers that its displayed frames show in order of time, and the displayed width and height."""

    path: str
    numbers: Sequence[int]
    size: tuple[int, int] = (WIDTH, HEIGHT)

    def picture(self, place: int) -> np.ndarray:
        """Return the displayed frame at a place, as it was drawn."""
        return numbered(self.numbers[place], *self.size)

    def box(self) -> tuple[int, int, int, int]:
        """Return a box xyxy in the lower left of the displayed frame, off its number."""
        width, height = self.size
        return width // 8, height // 2, width // 2, height - height // 8


def frames(count: int, size: tuple[int, int] = (WIDTH, HEIGHT), first: int = 0) -> list[np.ndarray]:
    return [numbered(first + number, *size) for number in range(count)]


def copied(source: str, target: str, keep: Callable[[list[av.Packet]], list[av.Packet]]) -> str:
    """Write some packets of a video to another file without encoding them again, as `ffmpeg -c copy` does."""
    with av.open(source) as given, av.open(target, "w") as out:
        stream = given.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in keep([packet for packet in given.demux(stream) if packet.size]):
            packet.stream = copy
            out.mux(packet)
    return target


def cut_at(seconds: float) -> Callable[[list[av.Packet]], list[av.Packet]]:
    """Keep what `ffmpeg -ss` keeps: all from the key frame before on. An edit list then hides the first frames."""

    def keep(packets: list[av.Packet]) -> list[av.Packet]:
        base = float(packets[0].time_base)
        first = max(n for n, packet in enumerate(packets) if packet.is_keyframe and packet.pts * base <= seconds)
        for packet in packets[first:]:
            packet.pts -= round(seconds / base)
            packet.dts -= round(seconds / base)
        return packets[first:]

    return keep


def boxes_of(data: bytes, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, start and stop of each box of an MP4 file between two places."""
    while start < stop:
        size, name = struct.unpack(">I4s", data[start : start + 8])
        yield name, start, start + size
        start += size


def edited(path: str, edits: Sequence[tuple[int, int]]) -> str:
    """Replace the edit list of an MP4 of one stream: (frames shown, first frame), or (frames waited, -1)."""
    data = Path(path).read_bytes()
    _, moov, end = next(box for box in boxes_of(data, 0, len(data)) if box[0] == b"moov")
    assert end == len(data), "the offsets of the frames would change"
    _, trak, _ = next(box for box in boxes_of(data, moov + 8, end) if box[0] == b"trak")
    parts = {name: data[start:stop] for name, start, stop in boxes_of(data, moov + 8, end)}
    inside = {name: data[start:stop] for name, start, stop in boxes_of(data, trak + 8, trak + len(parts[b"trak"]))}
    (ticks,) = struct.unpack(">I", inside[b"mdia"][8:][8 + 12 : 8 + 16])  # the timescale in mdhd
    rows = b"".join(
        struct.pack(">IiI", round(1000 * count / FPS), first if first < 0 else round(first * ticks / FPS), ONE)
        for count, first in edits
    )
    elst = struct.pack(">I4sII", 16 + len(rows), b"elst", 0, len(edits)) + rows
    inside[b"edts"] = struct.pack(">I4s", 8 + len(elst), b"edts") + elst
    order = [b"tkhd", b"edts", *(name for name in inside if name not in (b"tkhd", b"edts"))]
    content = b"".join(inside[name] for name in order)
    parts[b"trak"] = struct.pack(">I4s", 8 + len(content), b"trak") + content
    content = b"".join(parts.values())
    Path(path).write_bytes(data[:moov] + struct.pack(">I4s", 8 + len(content), b"moov") + content)
    return path


def with_cover(path: str) -> str:
    """Write an MP4 of 12 frames with a grey attached picture that is larger than them."""
    with av.open(path, "w") as out:
        video, cover = out.add_stream("libx264", rate=FPS), out.add_stream("mjpeg", rate=FPS)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        cover.width, cover.height, cover.pix_fmt = 4 * WIDTH, 4 * HEIGHT, "yuvj420p"
        cover.codec_context.time_base, cover.disposition = Fraction(1, FPS), Disposition.attached_pic
        grey = av.VideoFrame.from_ndarray(np.full((4 * HEIGHT, 4 * WIDTH, 3), 128, np.uint8), "rgb24")
        grey = grey.reformat(format="yuvj420p")
        grey.pts, grey.time_base = 0, Fraction(1, FPS)
        out.mux([*cover.encode(grey), *cover.encode(None)])
        for number, image in enumerate(frames(12)):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def with_preview(path: str) -> str:
    """Write a Matroska file whose first video stream is smaller than its second."""
    with av.open(path, "w") as out:
        streams = []
        for size in ((64, 48), (WIDTH, HEIGHT)):
            stream = out.add_stream("libx264", rate=FPS)
            (stream.width, stream.height), stream.pix_fmt = size, "yuv420p"
            streams.append((stream, size))
        for number in range(12):
            for stream, size in streams:
                shown = number if size[0] == WIDTH else 77
                frame = av.VideoFrame.from_ndarray(numbered(shown, *size), "rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                out.mux(stream.encode(frame))
        for stream, _ in streams:
            out.mux(stream.encode(None))
    return path


def growing(folder: Path) -> str:
    """Write a transport stream whose frames have twice the size from frame 6 on."""
    parts = [
        write_source(folder / "small.ts", frames(6), options={"bf": "0"}),
        write_source(
            folder / "large.ts", [image.repeat(2, 0).repeat(2, 1) for image in frames(6, first=6)], options={"bf": "0"}
        ),
    ]
    with av.open(str(folder / "growing.ts"), "w") as out:
        copy = None
        for number, part in enumerate(parts):
            with av.open(part) as given:
                stream = given.streams.video[0]
                copy = copy or out.add_stream_from_template(stream)
                for packet in given.demux(stream):
                    if packet.size:
                        packet.pts += number * 6 * 90000 // FPS
                        packet.dts += number * 6 * 90000 // FPS
                        packet.stream = copy
                        out.mux(packet)
    return str(folder / "growing.ts")


def turned(path: Path, name: str, aspect: Fraction | None = None) -> OddVideo:
    """Write a video that is upright after a turn by its display matrix, and after its pixels are made square."""
    (a, b, c, d), store = TURNS[name]
    matrix = [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30]
    size = (2 * HEIGHT, WIDTH) if aspect else (HEIGHT, WIDTH) if "clockwise" in name else (WIDTH, HEIGHT)
    stored = [np.ascontiguousarray(store(numbered(number, *size))) for number in range(8)]
    if aspect:
        stored = [np.ascontiguousarray(image[:, :: int(aspect)]) for image in stored]
    return OddVideo(write_source(path, stored, matrix=matrix, aspect=aspect), range(8), size)


def write_all(folder: Path) -> dict[str, OddVideo]:
    """Write the table into a folder and return it by name."""

    def plain(name: str, count: int = 12, **options: object) -> str:
        return write_source(folder / name, frames(count), **options)

    long = {"0": plain("long0.mp4", 66, gop=50, options={"bf": "0"}), "2": plain("long2.mp4", 66, gop=50)}
    late = [5 + number / FPS for number in range(12)]
    wide = [np.ascontiguousarray(image[:, ::2]) for image in frames(8, (2 * WIDTH, HEIGHT))]
    tall = [image.repeat(2, axis=1) for image in frames(8, (WIDTH // 2, HEIGHT))]
    found = {
        "cut in the first GOP": OddVideo(copied(long["0"], str(folder / "a.mp4"), cut_at(0.08)), range(2, 66)),
        "cut in the last GOP": OddVideo(copied(long["0"], str(folder / "b.mp4"), cut_at(52 / 25)), range(52, 66)),
        "cut with B-frames": OddVideo(copied(long["2"], str(folder / "c.mp4"), cut_at(0.52)), range(13, 66)),
        "trimmed at both ends": OddVideo(
            edited(plain("d.mp4", 40, gop=40, options={"bf": "0"}), [(9, 12)]), range(12, 21)
        ),
        "shown twice": OddVideo(
            edited(plain("e.mp4", 30, gop=30, options={"bf": "0"}), [(20, 0), (10, 5)]), [*range(20), *range(5, 15)]
        ),
        "starts after a pause": OddVideo(edited(plain("f.mp4", options={"bf": "0"}), [(10, -1), (12, 0)]), range(12)),
        "a larger cover": OddVideo(with_cover(str(folder / "g.mp4")), range(12)),
        "a smaller second stream": OddVideo(with_preview(str(folder / "h.mkv")), range(12)),
        **{name: turned(folder / f"{name}.mp4", name) for name in TURNS},
        "wide pixels": OddVideo(
            write_source(folder / "i.mp4", wide, aspect=Fraction(2)), range(8), (2 * WIDTH, HEIGHT)
        ),
        "tall pixels": OddVideo(
            write_source(folder / "j.mp4", tall, aspect=Fraction(1, 2)), range(8), (WIDTH // 2, HEIGHT)
        ),
        "inside a GOP": OddVideo(
            copied(plain("long.ts", 30, gop=12), str(folder / "k.ts"), lambda packets: packets[5:]), range(12, 30)
        ),
        "open GOPs": OddVideo(plain("l.mkv", 40, codec="mpeg2video", gop=9, options={"bf": "2"}), range(40)),
        "starts late": OddVideo(write_source(folder / "m.mkv", frames(12), times=late, fps=1000), range(12)),
        "AVI with B-frames": OddVideo(plain("o.avi", 30, codec="mpeg4", gop=9, options={"bf": "2"}), range(30)),
        "growing": OddVideo(growing(folder), range(12)),
        **{ending: OddVideo(plain(f"camera{ending}", 8, codec=codec), range(8)) for ending, codec in CAMERAS.items()},
    }
    divx = Path(plain("divx.avi", 8, codec="mpeg4")).rename(folder / "camera.DIVX")
    found[".DIVX"] = OddVideo(str(divx), range(8))
    return found


def fits(shown: np.ndarray, video: OddVideo) -> bool:
    """Return whether frames THWC look as they were drawn, at any size of the same shape."""
    for place, image in enumerate(shown):
        drawn = Image.fromarray(video.picture(place)).resize(image.shape[1::-1], Image.Resampling.BOX)
        if np.abs(np.asarray(drawn).astype(int) - image).mean() > 4:
            return False
    return True
