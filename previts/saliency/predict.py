"""Salient regions of every k-th frame of each usable video, written as run lengths in a table per shard.

PreViTS section 3.2: a saliency map selects the object, and SORT needs one on every key frame to follow it
(`tracking/tracker.py`). This file selects the method and writes the table (`corpus/region_table.py`). Other files
compute the maps.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from previts.config.perception import PRIORS, SaliencyConfig
from previts.corpus import video_table, withdrawals
from previts.corpus.region_table import SaliencyRecord
from previts.errors import VideoError
from previts.media.masks import Mask, encode_rle
from previts.processes import workers
from previts.processes.progress import progress
from previts.saliency.priors import mean_agreement, prior_map, prior_maps
from previts.storage import files, tables

FRAMES_AT_ONCE = 240  # decoded frames in memory; a multiple of the GOP, so that no GOP is decoded twice

Images = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]
# From images (T, H, W, 3) to saliency (T, H, W) in [0, 1].
Predictor = Callable[[Images], Maps]


def load_predictor(model_uri: str, config: SaliencyConfig) -> Predictor:
    """Return a function from images to saliency maps by the configured method, with a model of `fit_saliency`.

    Raises:
        InputError: If the model cannot be read.
        ValueError: If the method has regions but no maps.
    """
    match config.method:
        case "rbd" | "mc" | "dsr" | "hs":
            method = config.method
            return lambda images_THWC: np.stack([prior_map(method, image) for image in images_THWC])
        case "deepusps":
            from previts.saliency.infer import load_network_predictor

            return load_network_predictor(model_uri, config.crf)
        case "supervised" | "none":
            raise ValueError(f"saliency.method={config.method} has no saliency maps; use `load_finder`")


def load_finder(model_uri: str, config: SaliencyConfig) -> Callable[[Images], list[list[Mask]]]:
    """Return a function from images (T, H, W, 3) to the masks (H, W) of the salient regions of each image."""
    if config.method == "supervised":
        from previts.saliency.supervised import load_detector

        return load_detector(model_uri, config.min_score, config.detector_side)
    predictor = load_predictor(model_uri, config)

    def find(images_THWC: Images) -> list[list[Mask]]:
        masks_THW = predictor(images_THWC) > config.threshold
        return [[mask] if mask.any() else [] for mask in masks_THW]

    return find


def predict_shard(
    videos_uri: str,
    model_uri: str,
    shard: int,
    config: SaliencyConfig,
    target_uri: str,
    run: workers.Run = workers.in_order,
) -> dict[str, int]:
    """Write the salient regions of every k-th frame of each usable video of a shard.

    Args:
        videos_uri: The folder of all shards.
        model_uri: The folder of the saliency model.
        shard: Number of the shard.
        config: Method, threshold and interval of key frames.
        target_uri: Folder to write the table to.
        run: Worker processes that share the videos.

    Returns:
        Counts: videos; key_frames; salient_frames, the key frames with at least one salient pixel.

    Raises:
        InputError: If a stored video cannot be decoded, or the model cannot be read.
    """
    usable = [video for video in video_table.read_shard(videos_uri, shard) if video.status == "ok"]
    # The bytes of a withdrawn video may be deleted: it gets no regions, and so an empty tube.
    ledger, none = withdrawals.read(withdrawals.root_of(videos_uri)), replace(config, method="none")
    tasks = [
        (videos_uri, model_uri, video, none if video_table.is_withdrawn(video, ledger) else config) for video in usable
    ]
    rows: list[SaliencyRecord] = []
    # The workers already use all cores, one video each. On 200 x 200 matrices, threads of BLAS mostly wait for each
    # other: on a busy machine they made a map four times as expensive.
    with threadpool_limits(limits=1, user_api="blas"):
        for found in progress(run(_video_rows, tasks), f"saliency, shard {shard}", unit="video", total=len(tasks)):
            rows.extend(found)
    tables.write_records(files.join(target_uri, tables.table_name(shard)), SaliencyRecord, rows)
    return {"videos": len(usable), "key_frames": len(rows), "salient_frames": sum(bool(row.regions) for row in rows)}


# A worker process loads a network once for all its videos.
_loaded = functools.lru_cache(maxsize=1)(load_finder)


def _video_rows(task: tuple[str, str, video_table.VideoRecord, SaliencyConfig]) -> list[SaliencyRecord]:
    videos_uri, model_uri, video, config = task
    if config.method == "none":
        keys = range(0, video.num_frames, config.every)
        return [SaliencyRecord(video.video_id, frame, video.height, video.width, [], None) for frame in keys]
    find = _loaded(model_uri, config)
    rows = []
    for key_frames, images_THWC in _key_frames(videos_uri, video, config.every):
        for frame, image, masks in zip(key_frames, images_THWC, find(images_THWC), strict=True):
            agreement = mean_agreement(prior_maps(image, PRIORS)) if config.agreement and frame == 0 else None
            regions = [encode_rle(mask) for mask in masks]
            rows.append(SaliencyRecord(video.video_id, frame, video.height, video.width, regions, agreement))
    return rows


def _key_frames(videos_uri: str, video: video_table.VideoRecord, every: int) -> Iterator[tuple[list[int], Images]]:
    for start in range(0, video.num_frames, FRAMES_AT_ONCE):
        stop = min(start + FRAMES_AT_ONCE, video.num_frames)
        key_frames = [frame for frame in range(start, stop) if frame % every == 0]
        if not key_frames:
            continue
        try:
            yield key_frames, video_table.read_frames(videos_uri, video, key_frames)
        except VideoError as error:
            raise video_table.unreadable(videos_uri, video, error) from error
