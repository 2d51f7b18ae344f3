"""An index of longer videos with ragged masks, and the experiments of benchmarks that load data."""

import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from previts.config.experiment import Experiment
from previts.config.perception import FilterConfig, VideoConfig
from previts.corpus import index_table, tube_table
from previts.ingest import shards
from previts.ingest.crawls import CrawlItem
from previts.media import normalisation
from previts.media.masks import encode_rle
from previts.storage import tables
from previts.storage.files import join, write_bytes

IMAGE = Experiment()
TWO_CLIPS = replace(
    IMAGE,
    model=replace(IMAGE.model, encoder="s3dg"),
    sampling=replace(IMAGE.sampling, clip_frames=16, clip_stride=2),
)
THREE_CLIPS = replace(
    TWO_CLIPS,
    sampling=replace(TWO_CLIPS.sampling, clip_stride=1),
    objective=replace(TWO_CLIPS.objective, speed_weight=1.0),
)


def moving_masks(number: int, height: int, width: int, frames: int) -> list[np.ndarray]:
    """Return masks of an object that moves and has a ragged edge, as salient regions have."""
    coarse = np.random.default_rng(number).random((height // 6 + 1, width // 6 + 1)).astype(np.float32)
    ragged = cv2.resize(coarse, (width, height)) / 3
    rows, columns = np.mgrid[:height, :width]
    masks = []
    for frame in range(frames):
        middle = (
            height * (0.5 + 0.15 * np.sin(frame / 20 + number)),
            width * (0.5 + 0.2 * np.cos(frame / 30 + number)),
        )
        far = ((rows - middle[0]) / (0.28 * height)) ** 2 + ((columns - middle[1]) / (0.2 * width)) ** 2
        masks.append(far + np.roll(ragged, frame, 1) < 1.2)
    return masks


def write_drifting(path: Path, number: int, height: int, frames: int) -> None:
    """Write a video at 25 frames a second of a random texture that drifts; it is 4/3 as wide as high."""
    width = height * 4 // 3 // 2 * 2
    coarse = np.random.default_rng(number).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    texture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)

    def images() -> Iterator[np.ndarray]:
        for frame in range(frames):
            yield np.ascontiguousarray(np.roll(texture, (frame, 2 * frame), (0, 1)))

    normalisation.encode_video(images(), 25.0, str(path))


def make_index(folder: Path, sources: list[Path], frames: int) -> tuple[index_table.Index, list[list[np.ndarray]]]:
    """Write the shard, the tubes and the index of videos of that many frames; return the index and the masks."""
    items = [CrawlItem(path.stem, str(path), None, None, "", "train") for path in sources]
    videos_uri, tubes_uri, uri = (str(folder / name) for name in ("videos", "tubes", "index"))
    rows = shards.build_shard(items, 0, videos_uri, VideoConfig(), workers=1)
    assert [(row.error, row.num_frames) for row in rows] == [("", frames)] * len(rows)
    blobs: list[bytes] = []
    tracked: list[tube_table.TubeRecord] = []
    drawn = [moving_masks(number, row.height, row.width, frames) for number, row in enumerate(rows)]
    for row, masks in zip(rows, drawn, strict=True):
        tube = tube_table.Tube(row.height, row.width, [encode_rle(mask) for mask in masks], list(range(frames)))
        blob = tube.to_bytes()
        place = (sum(map(len, blobs)), len(blob), zlib.crc32(blob))
        measured = (tube.mean_area(), *place, tube.lost_frame(), tube.border_share(), None)
        tracked.append(tube_table.TubeRecord(row.video_id, "tracked", frames, tube.spans(), *measured))
        blobs.append(blob)
    write_bytes(join(tubes_uri, tube_table.blob_name(0)), b"".join(blobs))
    tables.write_records(join(tubes_uri, tables.table_name(0)), tube_table.TubeRecord, tracked)
    index_table.write_index(uri, [index_table.join_shard(videos_uri, tubes_uri, 0)], FilterConfig())
    table = tables.read_table(join(uri, index_table.TABLE), index_table.IndexRecord)
    return index_table.Index(uri, (index_table.Crawl(videos_uri, tubes_uri),), table), drawn
