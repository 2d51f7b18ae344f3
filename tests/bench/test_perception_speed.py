"""Speed of saliency and tracking on 10 s videos with 5 key frames a second, against a plain RBD, interleaved.

Run by `make bench`, or alone with `-m bench -s`. `PREVITS_BENCH_MODEL` is the folder of a trained saliency network to
measure too. `PREVITS_BENCH_VIDEOS` and `PREVITS_BENCH_ROUNDS` set the number of videos and rounds.
"""

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from one_core import one_thread
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import shortest_path
from scipy.spatial.distance import cdist
from skimage.color import rgb2lab
from skimage.filters import threshold_otsu
from skimage.segmentation import slic
from source_videos import decode_file

from previts.config.perception import SaliencyConfig, TrackConfig, VideoConfig
from previts.corpus import tube_table, video_table
from previts.ingest import shards
from previts.ingest.crawls import CrawlItem
from previts.media import normalisation
from previts.saliency.predict import load_predictor
from previts.saliency.superpixels import inside_bars
from previts.tracking import tracker

SECONDS, FPS, KEY_FPS = 10, 25, 5
CORPUS = 200_000  # videos
VIDEOS = int(os.environ.get("PREVITS_BENCH_VIDEOS", "8"))
ROUNDS = int(os.environ.get("PREVITS_BENCH_ROUNDS", "3"))
PHASES = ("decode", "saliency", "track")
BETA2 = 0.3

Predict = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


def plain_rbd(image):
    """Return Robust Background Detection (Zhu et al. 2014) by its plain formulas: SLIC at full size, full matrices."""
    inner = inside_bars(image)
    saliency = np.zeros(image.shape[:2], dtype=np.float32)
    saliency[inner] = plain_rbd_of_scene(image[inner])
    return saliency


def plain_rbd_of_scene(image):
    height, width = image.shape[:2]
    lab = rgb2lab(image)
    # slic scales its input to [0, 1], so compactness is in the same unit.
    labels = slic(
        lab, n_segments=height * width // 600, compactness=20 / max(np.ptp(lab), 1), convert2lab=False, start_label=0
    )
    flat, count = labels.ravel(), labels.max() + 1
    if count < 2:
        return np.zeros((height, width))
    area = np.bincount(flat, minlength=count)

    def means(channels):
        return np.stack([np.bincount(flat, channel.ravel(), count) / area for channel in channels], axis=1)

    colour = means(np.moveaxis(lab, 2, 0))
    rows, columns = np.mgrid[0:height, 0:width]
    position = means([rows / height, columns / width])
    adjacent = np.eye(count, dtype=bool)
    for one, other in (
        (labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1]),
        (labels[1:, 1:], labels[:-1, :-1]), (labels[1:, :-1], labels[:-1, 1:]),
    ):  # fmt: skip
        apart = one != other
        adjacent[one[apart], other[apart]] = adjacent[other[apart], one[apart]] = True
    border = np.zeros(count, dtype=bool)
    for edge in (labels[:8], labels[-8:], labels[:, :8], labels[:, -8:]):
        border[edge] = True

    colour_distance = cdist(colour, colour)
    two_ring = adjacent.astype(float) @ adjacent > 0
    clique = np.outer(border, border)
    others = ~np.eye(count, dtype=bool)
    nearest, nearest_two = (
        np.where(near & others, colour_distance, np.inf).min(axis=1).mean() for near in (adjacent, two_ring)
    )
    neighbours = np.sort(colour_distance[adjacent & others])[::-1]
    top = neighbours[: max(1, round(0.01 * len(neighbours)))].mean()
    geodesic_sigma = max(5, min(10, 3 * nearest, top / 10))
    neighbour_sigma = min(3 * nearest, 0.2 * top, 20)

    def weight(distance, sigma):
        return np.where(distance > 3 * sigma, 0, np.exp(-(distance**2) / (2 * sigma**2 + 1e-12)))

    linked = np.nonzero((adjacent | clique) & others)
    # A sparse graph has no links of length 0. On few nodes Floyd-Warshall is the fastest method of scipy.
    lengths = np.maximum(colour_distance[linked] - nearest_two, 1e-9)
    geodesic = shortest_path(csr_matrix((lengths, linked), shape=(count, count)), method="FW", directed=False)
    near = weight(geodesic, geodesic_sigma)
    connectivity = near[:, border].sum(axis=1) / np.sqrt(near.sum(axis=1))
    background = 1 - np.exp(-(connectivity**2) / 2)

    contrast = stretched((colour_distance * weight(cdist(position, position), 0.4)) @ background)
    if not contrast.any():
        return np.zeros((height, width))
    contrast[contrast < threshold_otsu(contrast)] = 0
    background[connectivity > 3] = 1000
    smooth = np.where(two_ring | clique, weight(colour_distance, neighbour_sigma), 0) + 0.1 * adjacent
    system = np.diag(smooth.sum(axis=1) + 5 * background + contrast) - smooth
    return stretched(np.linalg.solve(system, contrast))[labels]


def stretched(values):
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def variants() -> dict[str, Predict]:
    found: dict[str, Predict] = {
        "plain RBD": lambda images: np.stack([plain_rbd(image) for image in images]),
        "RBD": load_predictor("", SaliencyConfig(method="rbd")),
    }
    model = os.environ.get("PREVITS_BENCH_MODEL")
    if model:
        found["network"] = load_predictor(model, SaliencyConfig(method="deepusps", crf=False))
        found["network + CRF"] = load_predictor(model, SaliencyConfig(method="deepusps", crf=True))
    return found


def ten_seconds(source: Path, target: Path) -> None:
    """Write 10 s at 25 frames a second; a shorter video runs forwards and backwards, so that its motion is smooth."""
    frames = decode_file(str(source))
    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    there_and_back = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
    chosen = (there_and_back[number % len(there_and_back)] for number in range(SECONDS * FPS))
    normalisation.encode_video((frames[number, :height, :width] for number in chosen), FPS, str(target))


def stored_videos(crawl: Path, folder: Path) -> tuple[str, list[video_table.VideoRecord]]:
    """Store evenly chosen videos of the crawl in the same way as the pipeline."""
    sources = sorted(crawl.glob("*.mp4"))
    sources = [sources[number * len(sources) // VIDEOS] for number in range(VIDEOS)]
    for source in sources:
        ten_seconds(source, folder / source.name)
    items = [CrawlItem(source.stem, str(folder / source.name), None, None, "", "") for source in sources]
    uri = str(folder / "videos")
    return uri, shards.build_shard(items, 0, uri, VideoConfig(), workers=1)


def measure(uri: str, record: video_table.VideoRecord, predict: Predict) -> tuple[dict[str, float], tube_table.Tube]:
    """Return CPU and wall seconds of each phase of one video, and its tube."""
    seconds: dict[str, float] = {}
    key_frames = list(range(0, record.num_frames, FPS // KEY_FPS))
    clocks = (time.process_time(), time.perf_counter())

    def done(phase: str) -> None:
        nonlocal clocks
        now = (time.process_time(), time.perf_counter())
        seconds[phase], seconds[f"{phase}_wall"] = now[0] - clocks[0], now[1] - clocks[1]
        clocks = now

    images = video_table.read_frames(uri, record, key_frames)
    done("decode")
    masks = predict(images) > 0.5
    done("saliency")
    tube = tracker.build_tube(masks, key_frames, record.num_frames, TrackConfig(association="box"))
    done("track")
    return seconds, tube


def max_f(predict: Predict, folder: Path) -> tuple[float, float]:
    """Return max-F (beta^2 = 0.3, of the mean precision and recall at each threshold) and MAE on every second image.

    Precision is 1 if no pixel is found, as in Deep-USPS.
    """
    precision, recall, errors = [], [], []
    for path in sorted((folder / "images").iterdir())[::2]:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        truth = cv2.imread(str(folder / "masks" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE) > 127
        saliency = predict(image[None])[0]
        levels = np.round(255 * saliency).astype(np.uint8)
        # Pixels at or above each level, from the highest down.
        found, right = (
            np.cumsum(np.bincount(pixels, minlength=256)[::-1])[::-1] for pixels in (levels.ravel(), levels[truth])
        )
        precision.append(np.where(found, right / np.maximum(found, 1), 1))
        recall.append(right / max(1, truth.sum()))
        errors.append(np.abs(saliency - truth).mean())
    p, r = np.mean(precision, axis=0), np.mean(recall, axis=0)
    return float(((1 + BETA2) * p * r / np.maximum(BETA2 * p + r, 1e-12)).max()), float(np.mean(errors))


@pytest.mark.bench
def test_saliency_and_tracking_of_ten_seconds(real_data: Path, tmp_path: Path):
    measured: dict[str, list[dict[str, float]]] = defaultdict(list)  # of each variant, by round and video
    tracked: dict[str, list[float]] = defaultdict(list)
    figures: dict[str, dict[str, float]] = {}
    with one_thread():
        predictors = variants()
        uri, records = stored_videos(real_data / "crawl", tmp_path)
        assert all(record.num_frames == SECONDS * FPS for record in records), records
        for predict in predictors.values():  # the first use loads and compiles
            measure(uri, records[0], predict)
        for number in range(ROUNDS):
            for record in records:
                for name in list(predictors)[:: 1 if number % 2 else -1]:
                    seconds, tube = measure(uri, record, predictors[name])
                    measured[name].append(seconds)
                    tracked[name].append(tube.tracked_frames() / record.num_frames)
        totals, walls = (
            {name: np.array([sum(row[p + suffix] for p in PHASES) for row in rows]) for name, rows in measured.items()}
            for suffix in ("", "_wall")
        )
        for name, predict in predictors.items():
            f, error = max_f(predict, real_data / "saliency")
            # The median over rounds for each video, then the mean: the cost of a corpus is the sum over its videos.
            mean_total = float(np.median(totals[name].reshape(ROUNDS, -1), axis=0).mean())
            figures[name] = {
                **{phase: float(np.median([row[phase] for row in measured[name]])) for phase in PHASES},
                "total": float(np.median(totals[name])),
                "wall": float(np.median(walls[name])),
                "faster": float(np.median(totals["plain RBD"] / totals[name])),
                "faster_least": float((totals["plain RBD"] / totals[name]).min()),
                "core_hours": mean_total * CORPUS / 3600,
                "max_f": f,
                "mae": error,
                "tracked": float(np.mean(tracked[name])),
            }
    columns = list(figures["plain RBD"])
    print(f"\n{VIDEOS} videos of {SECONDS} s, {SECONDS * KEY_FPS} key frames each, {ROUNDS} rounds, one thread;")
    print("CPU seconds a video (medians), wall seconds; how many times faster than plain RBD on the same video, median")
    print(f"and least; core-hours for {CORPUS:,} videos; max-F and MAE on images; share of the frames with a tube")
    print(f"{'':16}" + "".join(f"{column:>13}" for column in columns))
    for name, row in figures.items():
        print(f"{name:16}" + "".join(f"{row[column]:13.3f}" for column in columns))
    print(json.dumps({"videos": VIDEOS, "rounds": ROUNDS, "corpus": CORPUS, **figures}, indent=1))
