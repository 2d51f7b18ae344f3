"""Copies of real clips, as they are found on the web: coded again, scaled, cut, marked, mirrored, framed, recoloured.

A clip is a list of RGB frames and a rate. A kind of copy is a list of changes, which are applied in their order.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
MAX_SECONDS, SHORT_SIDE = 8.0, 160
CRF, COPY_CRF = 23, 35


@dataclass(frozen=True)
class Clip:
    """A name, frames (height, width, 3) uint8 RGB with even sides, and frames per second."""

    name: str
    frames: list[Frame]
    fps: Fraction
    crf: int = CRF


def even(image: Frame, scale: float = 1.0) -> Frame:
    height, width = (max(16, 2 * round(side * scale / 2)) for side in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def marked(image: Frame) -> Frame:
    """Return an image with a logo in a corner: a bright sign and letters on a dark box."""
    height, width = image.shape[:2]
    image, left, top = image.copy(), round(0.72 * width), round(0.06 * height)
    right, bottom = left + round(0.22 * width), top + round(0.14 * height)
    cv2.rectangle(image, (left, top), (right, bottom), (20, 20, 60), -1)
    cv2.circle(image, (left + (bottom - top) // 2, (top + bottom) // 2), (bottom - top) // 3, (255, 210, 40), -1)
    at, size = (left + (bottom - top), bottom - (bottom - top) // 4), (bottom - top) / 36
    cv2.putText(image, "TV1", at, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)
    return image


def recoloured(image: Frame) -> Frame:
    """Return an image with another gamma, white balance and brightness."""
    levels = 255 * (np.arange(256) / 255) ** 0.8
    table = np.stack([np.clip(levels * gain + 12, 0, 255) for gain in (1.15, 1.0, 0.8)], axis=-1).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table.reshape(1, 256, 3)), np.uint8)


def framed(image: Frame, rows: float, columns: float) -> Frame:
    """Return an image with black bars, whose sizes are shares of its sides."""
    height, width = (2 * round(share * side / 2) for share, side in zip((rows, columns), image.shape, strict=False))
    return np.pad(image, ((height, height), (width, width), (0, 0)))


def each(change: Callable[[Frame], Frame]) -> Callable[[Clip], Clip]:
    return lambda clip: Clip(clip.name, [change(frame) for frame in clip.frames], clip.fps, clip.crf)


def cut(seconds: float) -> Callable[[Clip], Clip]:
    return lambda clip: Clip(clip.name, clip.frames[round(seconds * clip.fps) :], clip.fps, clip.crf)


def coded(clip: Clip) -> Clip:
    return Clip(clip.name, clip.frames, clip.fps, COPY_CRF)


HALF, LOGO, COLOUR = each(lambda image: even(image, 0.5)), each(marked), each(recoloured)
MIRROR = each(lambda image: np.ascontiguousarray(image[:, ::-1]))
LETTERBOX, PILLARBOX = each(lambda image: framed(image, 0.16, 0)), each(lambda image: framed(image, 0, 0.16))
KINDS: dict[str, list[Callable[[Clip], Clip]]] = {
    "crf 35": [coded],
    "half size": [HALF],
    "1 s cut off": [cut(1.0)],
    "1.12 s cut off": [cut(1.12)],  # the sampled frames are between those of the original
    "logo": [LOGO],
    "mirrored": [MIRROR],
    "letterboxed": [LETTERBOX],
    "pillarboxed": [PILLARBOX],
    "recoloured": [COLOUR],
    "mirrored, logo, crf 35": [MIRROR, LOGO, coded],
    "cut, letterboxed, half size": [cut(1.12), LETTERBOX, HALF],
    "recoloured, cut, half size, crf 35": [COLOUR, cut(1.12), HALF, coded],
}


# The kinds that a search for copies is asked to find; the others are harder, or combine several changes.
COMMON = ("crf 35", "half size", "1 s cut off", "logo", "mirrored", "letterboxed", "recoloured")


def kinds_of(number: int, count: int) -> list[str]:
    """Return the kinds of copies that are made of a clip: all kinds are made equally often, and in all combinations."""
    names = list(KINDS)
    return [names[(number * 7 + step * 5) % len(names)] for step in range(count)]


def copy_of(clip: Clip, kind: str) -> Clip:
    for change in KINDS[kind]:
        clip = change(clip)
    return clip


def real_clips(data: Path) -> list[Path]:
    """Return the real clips: files of the crawl, UCF-101 and HMDB-51, and folders of images of DAVIS and JHMDB."""
    files = [*(data / "crawl").glob("*.mp4"), *(data / "ucf101" / "UCF-101").glob("*/*.*")]
    folders = [*(data / "davis" / "JPEGImages" / "480p").iterdir(), *(data / "jhmdb" / "Frames").glob("*/*")]
    return [*sorted(files), *sorted(folders)]


def read_clip(path: Path) -> Clip:
    """Return the first `MAX_SECONDS` of a clip, with its short side at `SHORT_SIDE` pixels."""
    return _images(path, 25 if "jhmdb" in path.parts else 24) if path.is_dir() else _decoded(path)


def _scaled(image: Frame) -> Frame:
    return even(image, min(1.0, SHORT_SIDE / min(image.shape[:2])))


def _decoded(path: Path) -> Clip:
    with av.open(str(path), metadata_errors="ignore") as container:
        fps = container.streams.video[0].average_rate or Fraction(25)
        frames = itertools.islice(container.decode(video=0), round(MAX_SECONDS * fps))
        return Clip(path.stem, [_scaled(frame.to_ndarray(format="rgb24")) for frame in frames], fps)


def _images(folder: Path, fps: int) -> Clip:
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))[: round(MAX_SECONDS * fps)]
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
    return Clip(f"{folder.parent.name}_{folder.name}", [_scaled(image) for image in images], Fraction(fps))


def write(clip: Clip, path: Path) -> None:
    """Write a clip as an ordinary H.264 file."""
    with av.open(str(path), "w") as container:
        options = {"preset": "superfast", "crf": str(clip.crf), "threads": "1"}
        stream = container.add_stream("libx264", rate=clip.fps.limit_denominator(1001), options=options)
        stream.height, stream.width = clip.frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in clip.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")))
        container.mux(stream.encode(None))
