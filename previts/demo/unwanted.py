"""Videos of the later crawls that a corpus should leave out: copies of earlier videos, and videos of test items.

Not part of the paper. Crawls from the web have both. Each video is named after its kind and what it shows.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from previts.demo.config import WorldConfig
from previts.demo.files import write_mp4
from previts.demo.films import film, plan_videos
from previts.demo.scenery.textures import Image
from previts.storage import files

_FPS, _DAVIS_FPS = 12.0, 24.0
_EQUAL = {2: 3, 3: 2}  # copies of files, of the crawl before
_SIZE = (224, 168)  # of the slide show
_SLIDES, _SLIDE_FRAMES = 4, 12

Frames = Sequence[Image]


def _logo(frames: Frames, fps: float) -> Frames:
    """Return the frames with a logo in a corner."""
    marked = []
    for frame in frames:
        image = np.ascontiguousarray(frame)
        cv2.rectangle(image, (6, 6), (56, 24), (240, 240, 240), -1)
        cv2.putText(image, "TUBE", (9, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (200, 0, 0), 1, cv2.LINE_AA)
        marked.append(image)
    return marked


def _half(frames: Frames, fps: float) -> Frames:
    """Return the frames with half of their sides."""
    height, width = frames[0].shape[:2]
    size = (width // 4 * 2, height // 4 * 2)
    return [_resized(frame, size) for frame in frames]


_CHANGED: dict[int, dict[str, Callable[[Frames, float], Frames]]] = {
    2: {"coded": lambda frames, fps: frames, "half": _half},
    3: {
        "trimmed": lambda frames, fps: frames[round(min(1.0, len(frames) / fps / 4) * fps) :],
        "logo": _logo,
        "mirrored": lambda frames, fps: [frame[:, ::-1] for frame in frames],
    },
}


def write_videos(videos: str, datasets: str, config: WorldConfig, crawl: int) -> list[str]:
    """Write the unwanted videos of crawl 2 or 3 into a folder, and return their names.

    Args:
        videos: Folder of all videos. It has those of the earlier crawls.
        datasets: Folder of the labelled sets.
        config: Sizes of the world.
        crawl: Number of the crawl.
    """
    names = []
    for plan in plan_videos(config, crawl - 1)[-_EQUAL[crawl] :]:
        names.append(f"equal_{plan.video_id}.mp4")
        files.write_bytes(files.join(videos, names[-1]), files.read_bytes(files.join(videos, f"{plan.video_id}.mp4")))
    first = sum(len(_CHANGED[number]) for number in range(2, crawl))
    for plan, (kind, change) in zip(plan_videos(config)[first:], _CHANGED[crawl].items(), strict=False):
        names.append(f"{kind}_{plan.video_id}.mp4")
        frames = change([frame.image for frame in film(config, plan)], plan.fps)
        write_mp4(files.join(videos, names[-1]), frames, plan.fps, crf=35 if kind == "coded" else 23)
    shown = (_write_davis, _write_ucf101) if crawl == 2 else (_write_voc,)
    return names + [write(videos, datasets) for write in shown]


def _write_davis(videos: str, datasets: str) -> str:
    """Write a video of the first test sequence of DAVIS."""
    davis = files.join(datasets, "davis")
    paths = [line.split()[0] for line in _lines(files.join(davis, "ImageSets", "480p", "val.txt"))]
    sequence = paths[0].split("/")[-2]
    name = f"davis_{sequence}.mp4"
    shown = [_image(files.join(davis, path)) for path in paths if path.split("/")[-2] == sequence]
    write_mp4(files.join(videos, name), shown, _DAVIS_FPS)
    return name


def _write_ucf101(videos: str, datasets: str) -> str:
    """Write a copy of the first test clip of UCF-101."""
    ucf101 = files.join(datasets, "ucf101")
    path = _lines(files.join(ucf101, "ucfTrainTestlist", "testlist01.txt"))[0]
    name = f"ucf101_{path.rsplit('/', 1)[-1]}"
    files.write_bytes(files.join(videos, name), files.read_bytes(files.join(ucf101, "UCF-101", path)))
    return name


def _write_voc(videos: str, datasets: str) -> str:
    """Write a slide show of test images of VOC 2007, a second each."""
    voc = files.join(datasets, "voc", "VOCdevkit", "VOC2007")
    chosen = _lines(files.join(voc, "ImageSets", "Main", "test.txt"))[:_SLIDES]
    slides = [_resized(_image(files.join(voc, "JPEGImages", f"{image}.jpg")), _SIZE) for image in chosen]
    write_mp4(files.join(videos, "voc_slides.mp4"), [slide for slide in slides for _ in range(_SLIDE_FRAMES)], _FPS)
    return "voc_slides.mp4"


def _lines(uri: str) -> list[str]:
    return files.read_bytes(uri).decode().split("\n")[:-1]


def _resized(image: Image, size: tuple[int, int]) -> Image:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _image(uri: str) -> Image:
    """Read an image HWC."""
    found = cv2.imdecode(np.frombuffer(files.read_bytes(uri), np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(found, np.uint8)[..., ::-1]
