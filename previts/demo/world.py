"""The whole demo world on disk: a crawl of videos with exact masks, the labelled sets, and a contact sheet.

It replaces the corpora and benchmarks of the paper's section 4. Nothing here trains or evaluates.
"""

from dataclasses import asdict, dataclass

import cv2
import numpy as np

from previts.corpus.truth import write_masks
from previts.demo.cast import casting
from previts.demo.cast.casting import Shot, compose, family_for, generator, kind_of
from previts.demo.cast.kinds import CLASSES
from previts.demo.cast.motion import ACTIONS, Visit
from previts.demo.config import WorldConfig
from previts.demo.files import write_mp4, write_png
from previts.demo.scene import Frame, render
from previts.demo.scenery.backgrounds import FAMILIES
from previts.demo.scenery.textures import Image
from previts.demo.sets import in9, world_images, world_videos
from previts.processes.progress import progress
from previts.storage import csv_text, files

COLUMNS = ("video_id", "url", "start_seconds", "end_seconds", "label", "split")
_SHEET_FRAMES, _SHEET_TILE = 6, (160, 120)


@dataclass(frozen=True)
class VideoPlan:
    """The content of one video; `home` is the background family of its class."""

    video_id: str
    label: str
    home: str
    fps: float
    num_frames: int
    shot: Shot


def plan_videos(config: WorldConfig) -> list[VideoPlan]:
    """Return the plans of the videos: classes and actions in turn; some are upright, larger or at 25 fps."""
    plans, names = [], list(CLASSES)
    for number in range(config.videos):
        c, action = number % len(names), ACTIONS[(number + number // len(names)) % len(ACTIONS)]
        rng = generator(config.seed, f"plan/{number}")
        width, height = config.width, config.height
        if number % 12 == 3:
            width, height = height, width
        elif number % 12 == 7:
            width, height = (round(side * 1.43 / 2) * 2 for side in (width, height))
        fps = 25.0 if number % 12 == 10 else config.fps
        visit: Visit = "leaves" if number % 18 == 5 else "arrives" if number % 18 == 13 else "stays"
        shot = Shot(
            kind_of(rng, names[c]),
            family_for(rng, c, config.background_correlation),
            action,
            width,
            height,
            config.seconds,
            visit,
            passer=number % 10 == 6,
            clutter=number % 8 == 2,
        )
        video_id = f"v{number:03d}_{shot.kind}_{action}"
        plans.append(VideoPlan(video_id, names[c], FAMILIES[c], fps, round(config.seconds * fps), shot))
    return plans


def make_world(uri: str, config: WorldConfig) -> dict[str, int]:
    """Write the whole world below `uri`; the same configuration gives the same bytes.

    Writes `crawl.csv`, `videos/`, `masks/` (see `corpus.truth.read_masks`), `scenes.json` (the content of each video),
    `datasets/` and `preview.png`.

    Returns:
        The number of videos, images, sequences and clips of each set.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the images are small: more threads are slower
    try:
        plans = plan_videos(config)
        rows = [
            write_video(uri, config, plan) for plan in progress(plans, "world: videos", unit="video", total=len(plans))
        ]
        bad = _write_bad_items(uri, plans[0]) if config.bad_items else []
        datasets = files.join(uri, "datasets")
        counts = {
            "videos": len(plans),
            "bad_items": len(bad),
            "voc_images": world_images.write_voc(files.join(datasets, "voc"), config),
            "imagenet_images": world_images.write_imagenet(files.join(datasets, "imagenet"), config),
            "coco_images": world_images.write_coco(files.join(datasets, "coco"), config),
            "in9_images": in9.write_in9(files.join(datasets, "in9"), config),
            "davis_sequences": world_videos.write_davis(files.join(datasets, "davis"), config),
            "ucf101_clips": world_videos.write_ucf101(files.join(datasets, "ucf101"), config),
            "jhmdb_clips": world_videos.write_jhmdb(files.join(datasets, "jhmdb"), config),
            "minikinetics_clips": world_videos.write_minikinetics(files.join(datasets, "minikinetics"), config),
        }
        write_png(files.join(uri, "preview.png"), contact_sheet(config, plans))
        files.write_json(files.join(uri, "scenes.json"), [_scene_row(plan) for plan in plans])
        _write_crawl(uri, [*rows, *bad])  # last: readers start from the crawl
    finally:
        cv2.setNumThreads(threads)
        casting.clear_caches()
    return counts


def film(config: WorldConfig, plan: VideoPlan) -> list[Frame]:
    """Return the frames of a video."""
    scene = compose(config.seed, f"video/{plan.video_id}", plan.shot)
    return [render(scene, number / plan.fps) for number in range(plan.num_frames)]


def write_video(uri: str, config: WorldConfig, plan: VideoPlan) -> dict[str, str]:
    """Write one video and its masks; return its row of the crawl."""
    frames = film(config, plan)
    write_mp4(files.join(uri, "videos", f"{plan.video_id}.mp4"), (frame.image for frame in frames), plan.fps)
    write_masks(files.join(uri, "masks", f"{plan.video_id}.npz"), np.stack([frame.masks[0] for frame in frames]))
    return {"video_id": plan.video_id, "url": f"videos/{plan.video_id}.mp4", "label": plan.label, "split": "train"}


def _write_bad_items(uri: str, plan: VideoPlan) -> list[dict[str, str]]:
    """Write bad items as in a real crawl and return their rows: a truncated file, a web page, a missing file."""
    whole = files.read_bytes(files.join(uri, "videos", f"{plan.video_id}.mp4"))
    files.write_bytes(files.join(uri, "videos", "bad_truncated.mp4"), whole[: min(700, len(whole) // 4)])
    files.write_bytes(
        files.join(uri, "videos", "bad_webpage.mp4"), b"<html><body>This video is unavailable.</body></html>\n"
    )
    names = ("bad_truncated", "bad_webpage", "bad_missing")
    return [{"video_id": name, "url": f"videos/{name}.mp4", "label": plan.label, "split": "train"} for name in names]


def _write_crawl(uri: str, rows: list[dict[str, str]]) -> None:
    text = csv_text.to_csv(COLUMNS, ([row.get(column) for column in COLUMNS] for row in rows))
    files.write_bytes(files.join(uri, "crawl.csv"), text.encode())


def _scene_row(plan: VideoPlan) -> dict[str, object]:
    return {
        "video_id": plan.video_id,
        "label": plan.label,
        "home": plan.home,
        "fps": plan.fps,
        "num_frames": plan.num_frames,
        **asdict(plan.shot),
    }


def contact_sheet(config: WorldConfig, plans: list[VideoPlan]) -> Image:
    """Return an image of the world: a row of frames for each of up to 18 videos, the object outlined."""
    rows = []
    for plan in _shown(plans):
        scene = compose(config.seed, f"video/{plan.video_id}", plan.shot)
        tiles = [_tile(render(scene, config.seconds * (k + 0.1) / _SHEET_FRAMES)) for k in range(_SHEET_FRAMES)]
        row = np.concatenate(tiles, 1)
        _caption(
            row,
            f"{plan.label}: {plan.shot.kind}, {plan.shot.action}, {plan.shot.family}"
            + ("" if plan.shot.family == plan.home else " (not at home)"),
        )
        rows.append(row)
    if len(rows) > 9:
        rows = [
            np.concatenate([left, right], 1)
            for left, right in zip(rows[:9], [*rows[9:], *[np.zeros_like(rows[0])] * (18 - len(rows))], strict=True)
        ]
    return np.concatenate(rows, 0)


def _shown(plans: list[VideoPlan]) -> list[VideoPlan]:
    """Return up to 18 videos: one of each class, then one of each class, if possible over a foreign background."""
    chosen: list[VideoPlan] = []
    for away in (False, True):
        for label in dict.fromkeys(plan.label for plan in plans):
            rest = [plan for plan in plans if plan.label == label and plan not in chosen]
            chosen += sorted(rest, key=lambda plan: (plan.shot.family != plan.home) != away)[:1]
    return chosen


def _tile(frame: Frame) -> Image:
    """Return a frame with its object outlined, fitted into a tile of the contact sheet."""
    image = np.ascontiguousarray(frame.image)
    outlines, _ = cv2.findContours(frame.masks[0].astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, outlines, -1, (255, 40, 200), 1, cv2.LINE_AA)
    width, height = _SHEET_TILE
    scale = min(width / image.shape[1], height / image.shape[0])
    small = cv2.resize(
        image, (round(image.shape[1] * scale), round(image.shape[0] * scale)), interpolation=cv2.INTER_AREA
    )
    tile = np.full((height, width, 3), 24, np.uint8)
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    tile[top : top + small.shape[0], left : left + small.shape[1]] = small
    tile[:, -1] = tile[-1] = 255
    return tile


def _caption(row: Image, text: str) -> None:
    for colour, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(row, text, (5, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, thick, cv2.LINE_AA)
