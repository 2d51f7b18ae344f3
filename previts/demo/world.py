"""The whole demo world on disk: crawls of videos with exact masks, the labelled sets, and a contact sheet.

It replaces the corpora and benchmarks of the paper's section 4. Nothing here trains or evaluates.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

import cv2
import numpy as np

from previts.corpus.truth import write_masks
from previts.demo import unwanted
from previts.demo.cast import casting
from previts.demo.cast.casting import compose
from previts.demo.config import WorldConfig
from previts.demo.files import write_mp4, write_png
from previts.demo.films import VideoPlan, film, plan_videos
from previts.demo.scene import Frame, render
from previts.demo.scenery.textures import Image
from previts.demo.sets import in9, world_images, world_videos
from previts.processes import workers
from previts.processes.progress import progress
from previts.storage import csv_text, files

CRAWLS = "crawls"  # the folder of the crawls, which has their videos and masks in folders below
COLUMNS = ("video_id", "url", "start_seconds", "end_seconds", "label", "split")
_SHEET_FRAMES, _SHEET_TILE = 6, (160, 120)

# The labelled sets by the name of their count: folder and writer. Those that take longest come first.
_SETS = {
    "jhmdb_clips": ("jhmdb", world_videos.write_jhmdb),
    "ucf101_clips": ("ucf101", world_videos.write_ucf101),
    "in9_images": ("in9", in9.write_in9),
    "imagenet_images": ("imagenet", world_images.write_imagenet),
    "voc_images": ("voc", world_images.write_voc),
    "minikinetics_clips": ("minikinetics", world_videos.write_minikinetics),
    "davis_sequences": ("davis", world_videos.write_davis),
    "coco_images": ("coco", world_images.write_coco),
}

Row = dict[str, str]  # of a crawl, by column


def make_world(uri: str, config: WorldConfig) -> dict[str, int]:
    """Write the world with its first crawl below `uri`; the same configuration gives the same bytes.

    Writes `crawls/crawl-1.csv`, `crawls/videos/`, `crawls/masks/` (see `corpus.truth.read_masks`), `datasets/` and
    `preview.png`.

    Returns:
        The number of videos, images, sequences and clips of each set.
    """
    plans = plan_videos(config)
    with workers.pool(data=uri) as run, _one_thread():
        rows = _write_videos(uri, config, plans, "world: videos", run)
        bad = _write_bad_items(uri, plans[0]) if config.bad_items else []
        made = run(partial(_write_set, uri, config), _SETS)
        counts = {"videos": len(plans), "bad_items": len(bad)}
        for name, count in zip(_SETS, progress(made, "world: sets", unit="set", total=len(_SETS)), strict=True):
            counts[name] = count
        write_png(files.join(uri, "preview.png"), contact_sheet(config, plans))
        _write_crawl(_crawl_uri(uri, 1), [*rows, *bad])  # last: readers start from the crawl
    return counts


def add_crawl(uri: str, config: WorldConfig, crawl: int) -> str:
    """Write crawl 2 or 3 into a finished world, unless it is there, and return its URI.

    It has new videos, and videos that a corpus should leave out.
    """
    target = _crawl_uri(uri, crawl)
    if not files.exists(target):
        with workers.pool(data=uri) as run, _one_thread():
            rows = _write_videos(uri, config, plan_videos(config, crawl), f"world: crawl {crawl}", run)
            names = unwanted.write_videos(files.join(uri, CRAWLS, "videos"), files.join(uri, "datasets"), config, crawl)
            rows += [_row(name, label="", split="") for name in names]
            _write_crawl(target, rows)
    return target


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let OpenCV use one thread: the images are small, and more threads are slower. At the end, clear the caches."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        casting.clear_caches()


def _write_videos(uri: str, config: WorldConfig, plans: Sequence[VideoPlan], title: str, run: workers.Run) -> list[Row]:
    """Write new videos and their masks; return their rows of the crawl."""
    written = run(partial(_write_video, uri, config), plans)
    return list(progress(written, title, unit="video", total=len(plans)))


def _write_video(uri: str, config: WorldConfig, plan: VideoPlan) -> Row:
    frames, name = film(config, plan), f"{plan.video_id}.mp4"
    write_mp4(files.join(uri, CRAWLS, "videos", name), (frame.image for frame in frames), plan.fps)
    masks = np.stack([frame.masks[0] for frame in frames])
    write_masks(files.join(uri, CRAWLS, "masks", f"{plan.video_id}.npz"), masks)
    return _row(name, plan.label)


def _write_set(uri: str, config: WorldConfig, name: str) -> int:
    folder, write = _SETS[name]
    return write(files.join(uri, "datasets", folder), config)


def _write_bad_items(uri: str, plan: VideoPlan) -> list[Row]:
    """Write bad items as in a real crawl and return their rows: a truncated file, a web page, a missing file."""
    videos = files.join(uri, CRAWLS, "videos")
    whole = files.read_bytes(files.join(videos, f"{plan.video_id}.mp4"))
    files.write_bytes(files.join(videos, "bad_truncated.mp4"), whole[: min(700, len(whole) // 4)])
    page = b"<html><body>This video is unavailable.</body></html>\n"
    files.write_bytes(files.join(videos, "bad_webpage.mp4"), page)
    return [_row(f"{name}.mp4", plan.label) for name in ("bad_truncated", "bad_webpage", "bad_missing")]


def _row(name: str, label: str, split: str = "train") -> Row:
    return {"video_id": name.rsplit(".", 1)[0], "url": f"videos/{name}", "label": label, "split": split}


def _crawl_uri(uri: str, crawl: int) -> str:
    return files.join(uri, CRAWLS, f"crawl-{crawl}.csv")


def _write_crawl(target: str, rows: Sequence[Row]) -> None:
    text = csv_text.to_csv(COLUMNS, ([row.get(column) for column in COLUMNS] for row in rows))
    files.write_bytes(target, text.encode())


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
