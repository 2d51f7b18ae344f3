"""A small corpus for tests: encoded videos of one moving square, their exact tubes and an index.

Video n shows a square on a noisy background; its colour depends on n mod 5. Every fourth video (n mod 4 = 3) has no
object and an empty tube. The other odd ones lose their object in the last quarter.
"""

import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from previts.config.experiment import Experiment
from previts.config.perception import FilterConfig, VideoConfig
from previts.corpus import index_table, tube_table
from previts.corpus.index_table import Crawl, Index
from previts.ingest import shards
from previts.ingest.crawls import CrawlItem
from previts.media import normalisation
from previts.media.masks import encode_rle
from previts.storage import files, tables

FRAMES, SIZE, SQUARE = 30, 96, 30

Shown = Callable[[int, int], np.ndarray]
"""Function from the numbers of a video and a frame to its image (height, width, 3)."""


def square(number: int, frame: int) -> np.ndarray:
    """Return the exact mask of the square."""
    mask = np.zeros((SIZE, SIZE), bool)
    visible = number % 4 != 3 and (number % 2 == 0 or frame < FRAMES * 3 // 4)
    if visible:
        left, top = 5 + frame + number % 3, 40 - frame + number % 5
        mask[top : top + SQUARE, left : left + SQUARE] = True
    return mask


def frame_image(number: int, frame: int) -> np.ndarray:
    """Return a frame with the square."""
    generator = np.random.default_rng([number, 7])
    image = generator.integers(60, 120, (SIZE, SIZE, 3), dtype=np.uint8)
    image[square(number, frame)] = [(230, 40, 40), (40, 220, 60), (40, 60, 240), (240, 230, 30), (230, 40, 220)][
        number % 5
    ]
    return image


def numbered(number: int, frame: int) -> np.ndarray:
    """Return a grey frame whose brightness is its number (`frame_number`)."""
    return np.full((SIZE, SIZE, 3), 8 * frame, np.uint8)


def frame_number(planes_RS: np.ndarray) -> int:
    """Return the number of a frame of `numbered`, given as packed I420 planes."""
    size = planes_RS.shape[1]
    return round((float(planes_RS[:size].mean()) - 16) * 255 / 219 / 8)


def make_index(folder: Path, videos: int, *, split: str = "train", shown: Shown = frame_image) -> Index:
    """Encode videos with the frames of `shown`; write shards, tubes and the index; return the index."""
    source, videos_uri, tubes_uri = folder / "source", str(folder / "videos"), str(folder / "tubes")
    source.mkdir(parents=True)
    items = []
    for number in range(videos):
        path = source / f"v{number:03d}.mp4"
        normalisation.encode_video((shown(number, frame) for frame in range(FRAMES)), 10.0, str(path))
        items.append(CrawlItem(f"v{number:03d}", str(path), None, None, "", split))
    config = VideoConfig(videos_per_shard=8)
    joined = []
    for shard in range(shards.num_shards(videos, config)):
        made = shards.build_shard(shards.shard_items(items, shard, config), shard, videos_uri, config, workers=1)
        assert [row.error for row in made] == [""] * len(made)
        _write_tubes(tubes_uri, shard, made)
        joined.append(index_table.join_shard(videos_uri, tubes_uri, shard))
    index_table.write_index(str(folder / "index"), joined, FilterConfig())
    table = tables.read_table(str(folder / "index" / index_table.TABLE), index_table.IndexRecord)
    return Index(str(folder / "index"), (Crawl(videos_uri, tubes_uri),), table)


def moved(index: Index, *, videos: str = "", tubes: str = "") -> Index:
    """Return an index of one crawl whose videos or tubes are in another folder."""
    (crawl,) = index.crawls
    return replace(index, crawls=(Crawl(videos or crawl.videos, tubes or crawl.tubes),))


def small_experiment(**optim: float) -> Experiment:
    """Return an experiment with PreViTS at a size for tests: ResNet-18, 64 px, batches of 8 in two groups."""
    paper = Experiment()
    return replace(
        paper,
        augment=replace(paper.augment, size=64),
        model=replace(paper.model, encoder="resnet18", embedding_dim=32),
        objective=replace(paper.objective, queue_size=50, batch_norm_groups=2, key_momentum=0.9),
        optim=replace(paper.optim, **{"batch_size": 8, "epochs": 4, **optim}),
    )


def small_video_experiment(frames: int = 8, **optim: float) -> Experiment:
    """Return an experiment on clips, with the speed task, at a size for tests: an eighth of S3D-g, 64 px."""
    image = small_experiment(**optim)
    return replace(
        image,
        sampling=replace(image.sampling, clip_frames=frames),
        model=replace(image.model, encoder="s3dg", width=0.125),
        objective=replace(image.objective, speed_weight=1.0),
    )


def _write_tubes(tubes_uri: str, shard: int, videos: list) -> None:
    blobs, rows, offset = [], [], 0
    for video in videos:
        number = int(video.video_id[1:])
        masks = [square(number, frame) for frame in range(FRAMES)]
        keys = [frame for frame, mask in enumerate(masks) if mask.any()]
        frame_keys = [keys.index(frame) if frame in keys else -1 for frame in range(FRAMES)]
        tube = tube_table.Tube(SIZE, SIZE, [encode_rle(masks[frame]) for frame in keys], frame_keys)
        blob = tube.to_bytes()
        status = "tracked" if keys else "empty"
        area, lost, border = tube.mean_area(), tube.lost_frame(), tube.border_share()
        place = (offset, len(blob), zlib.crc32(blob))
        rows.append(
            tube_table.TubeRecord(video.video_id, status, len(keys), tube.spans(), area, *place, lost, border, None)
        )
        blobs.append(blob)
        offset += len(blob)
    files.write_bytes(files.join(tubes_uri, tube_table.blob_name(shard)), b"".join(blobs))
    tables.write_records(files.join(tubes_uri, tables.table_name(shard)), tube_table.TubeRecord, rows)
