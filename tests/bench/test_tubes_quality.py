"""Quality of tubes on 20 sequences of DAVIS-2016 and 15 videos of a crawl, by source of saliency and by tracker.

Run by `make bench`. `PREVITS_BENCH_MODEL` is the folder of a saliency model to measure in addition to RBD.
`PREVITS_BENCH_OUT` is the folder for numbers, contact sheets and (in `maps/`) the saliency maps for the next run.

Each number is a mean over videos, without the first and the last frame of each video, as in DAVIS:
- J: intersection over union in all frames (0 if the tube is empty and the object is visible);
- tracked: J over the frames in which the tube is not empty; lost: share of the other frames;
- off: share of the frames of the tube with J < 0.1, in which it is on another object;
- hop: the same over the videos whose tube starts on the object, so that the choice of the target is not the cause.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from source_videos import decode_file
from threadpoolctl import threadpool_limits

from previts.config.perception import SaliencyConfig, TrackConfig
from previts.media.masks import Mask, components, iou
from previts.saliency.predict import load_predictor
from previts.tracking import tracker

OFF = 0.1
EVERY = (1, 5, 25)
TRACKERS = {
    "box": TrackConfig(association="box"),
    "mask": TrackConfig(association="mask"),
    "box, 0.3, age 1": TrackConfig(association="box", iou_threshold=0.3, max_age=1),
    "mask, 0.3, age 1": TrackConfig(association="mask", iou_threshold=0.3, max_age=1),
    "as published": TrackConfig(iou_threshold=0.3, max_age=1, min_hits=3, motion="drift"),
    "box, age 12": TrackConfig(association="box", max_age=12),
    "mask, age 12": TrackConfig(association="mask", max_age=12),
}
COLUMNS = ("J", "tracked", "lost", "off", "hop", "saliency_s", "track_s")

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Video:
    """One video: frames THWC, exact masks THW, salient pixels THW, and CPU seconds for the salient pixels."""

    name: str
    images: Frames
    truth: Mask
    salient: Mask
    seconds: float


def read_masks(files: Sequence[Path]) -> Mask:
    return np.stack([cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) > 0 for file in files])


def davis(data: Path) -> Iterator[tuple[str, Frames, Mask]]:
    root = data / "davis"
    listed = (root / "ImageSets" / "480p" / "val.txt").read_text().split()
    for name in sorted({Path(line).parent.name for line in listed}):
        files = sorted((root / "JPEGImages" / "480p" / name).glob("*.jpg"))
        images = np.stack([cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files])
        yield name, images, read_masks(sorted((root / "Annotations" / "480p" / name).glob("*.png")))


def crawl(data: Path) -> Iterator[tuple[str, Frames, Mask]]:
    for folder in sorted((data / "crawl_masks").iterdir()):
        images = decode_file(str(data / "crawl" / f"{folder.name}.mp4"))
        files = sorted(folder.glob("*.png"))
        place = [min(round(frame * len(files) / len(images)), len(files) - 1) for frame in range(len(images))]
        yield folder.name, images, read_masks([files[number] for number in place])


def sources() -> dict[str, Callable[[], Callable[[Frames], npt.NDArray[np.float32]]]]:
    found = {"rbd": lambda: load_predictor("", SaliencyConfig(method="rbd"))}
    model = os.environ.get("PREVITS_BENCH_MODEL")
    if model:
        found["deepusps"] = lambda: load_predictor(model, SaliencyConfig(method="deepusps", crf=False))
        found["deepusps + CRF"] = lambda: load_predictor(model, SaliencyConfig(method="deepusps", crf=True))
    return found


def salient_videos(data: Path, name: str, source: str, cache: Path) -> list[Video]:
    """Return the videos of one set with the saliency of one source; maps of an earlier run are read from the cache."""
    predict = None
    found = []
    model = Path(os.environ.get("PREVITS_BENCH_MODEL", "")).name if source.startswith("deepusps") else ""
    for title, images, truth in {"davis": davis, "crawl": crawl}[name](data):
        file = cache / f"{source}-{model}-{name}-{title}.npz"
        if not file.exists():
            predict = predict or sources()[source]()
            started = time.process_time()
            salient = predict(images) > SaliencyConfig().threshold
            seconds = time.process_time() - started
            np.savez_compressed(file, salient=np.packbits(salient), shape=salient.shape, seconds=seconds)
        with np.load(file) as kept:
            salient = np.unpackbits(kept["salient"], count=int(kept["shape"].prod())).reshape(kept["shape"]) > 0
            found.append(Video(title, images, truth, salient, float(kept["seconds"])))
    return found


def largest_regions(masks: Mask) -> Mask:
    """Return the largest region of each frame: the result without a tracker."""
    least = TrackConfig().min_area * masks[0].size
    return np.stack([(components(mask, round(least)) or [np.zeros_like(mask)])[0] for mask in masks])


def followed(one: Video, config: TrackConfig, every: int = 1, known: bool = False) -> Mask:
    keys = range(0, len(one.images), every)
    first = one.truth[0] if known else None
    tube = tracker.build_tube(one.salient[::every], keys, len(one.images), config, first=first)
    return tube.masks(range(len(one.images)))


def score(masks: Mask, truth: Mask) -> dict[str, float]:
    values = np.array([iou(mask, exact) for mask, exact in zip(masks[1:-1], truth[1:-1], strict=True)])
    there = masks[1:-1].any(axis=(1, 2))
    seen = values[there]
    off = float((seen < OFF).mean()) if len(seen) else np.nan
    return {
        "J": float(values.mean()),
        "tracked": float(seen.mean()) if len(seen) else np.nan,
        "lost": float(1 - there.mean()),
        "off": off,
        "hop": off if len(seen) and seen[0] >= OFF else np.nan,
    }


def measure(videos: Sequence[Video], make: Callable[[Video], Mask], every: int = 1) -> dict[str, float]:
    rows = []
    for one in videos:
        started = time.process_time()
        masks = make(one)
        track = time.process_time() - started
        rows.append({**score(masks, one.truth), "saliency_s": one.seconds / every, "track_s": track})
    return {key: round(float(np.nanmean([row[key] for row in rows])), 3) for key in COLUMNS}


def contact_sheet(videos: Sequence[Video], config: TrackConfig, target: Path, columns: int = 8) -> None:
    """Draw the worst, the median and the best three videos: the tube in red, the edge of the exact mask in green."""
    made = [(score(masks := followed(one, config), one.truth)["J"], one, masks) for one in videos]
    made.sort(key=lambda entry: entry[0])
    middle = len(made) // 2
    lines = []
    for value, one, masks in [*made[:3], *made[middle - 1 : middle + 2], *made[-3:]]:
        cells = []
        for frame in np.linspace(0, len(masks) - 1, columns).round().astype(int):
            cell = one.images[frame].copy()
            cell[masks[frame]] = cell[masks[frame]] // 2 + np.array([127, 0, 0], np.uint8)
            edges, _ = cv2.findContours(one.truth[frame].astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cell = cv2.resize(cv2.drawContours(cell, edges, -1, (0, 255, 0), 2), (214, 120))
            cells.append(cell)
        cv2.putText(cells[0], f"{one.name} J {value:.2f}", (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 0), 1)
        lines.append(np.hstack(cells))
    cv2.imwrite(str(target), cv2.cvtColor(np.vstack(lines), cv2.COLOR_RGB2BGR))


@pytest.mark.bench
def test_tubes_against_ground_truth(real_data: Path) -> None:
    out = Path(os.environ.get("PREVITS_BENCH_OUT") or Path(tempfile.gettempdir()) / "previts-tubes-quality")
    (out / "maps").mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    table: dict[str, dict[str, float]] = {}
    print(f"\n{'':44}" + "".join(f"{name:>11}" for name in COLUMNS))

    def add(name: str, figures: dict[str, float]) -> None:
        table[name] = figures
        print(f"{name:44}" + "".join(f"{figures[key]:11.3f}" for key in COLUMNS), flush=True)

    with threadpool_limits(1):
        for source in sources():
            for name in ("davis", "crawl"):
                videos = salient_videos(real_data, name, source, out / "maps")
                start = f"{source}, {name}"
                add(f"{start}, all salient pixels", measure(videos, lambda one: one.salient))
                add(f"{start}, largest region", measure(videos, lambda one: largest_regions(one.salient)))
                for title, config in TRACKERS.items():
                    for known in (False, True):
                        add(
                            f"{start}, {title}{', known' if known else ''}",
                            measure(videos, lambda one, c=config, k=known: followed(one, c, known=k)),
                        )
                for every in EVERY:
                    for title in ("box", "mask"):
                        add(
                            f"{start}, {title}, every {every}",
                            measure(videos, lambda one, c=TRACKERS[title], k=every: followed(one, c, k), every),
                        )
                contact_sheet(videos, TrackConfig(), out / f"{source.replace(' + ', '-')}-{name}.png")
    (out / "tubes_quality.json").write_text(json.dumps(table, indent=1))
    print(json.dumps({"out": str(out), "rows": len(table)}))
