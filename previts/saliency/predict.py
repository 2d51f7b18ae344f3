"""Salient regions of every k-th frame of every usable video, as run lengths in a table per shard.

PreViTS section 3.2: a saliency map chooses the object; SORT needs one on every key frame to follow it (`tubes.py`).
Knows which maps there are and where they are written, never how a map is computed.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from previts import records, shards, storage, workers
from previts.experiment import PRIORS, SaliencyConfig
from previts.masks import Mask, decode_rle, encode_rle
from previts.progress import progress
from previts.saliency.priors import prior_map, prior_maps
from previts.video import VideoError

FRAMES_AT_ONCE = 240  # decoded frames held in memory: a multiple of the GOP, so that no GOP is decoded twice

Images = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]
# Images (T, H, W, 3) to saliency (T, H, W) in [0, 1].
Predictor = Callable[[Images], Maps]


@dataclass(frozen=True)
class SaliencyRecord:
    """The salient regions of one key frame, masks at the resolution of the video as `masks.encode_rle` writes them.

    A saliency map gives one region, which may fall into several components, or none; a detector one for each object.
    `agreement` says how alike the handcrafted priors are on this frame, where they were compared; see `agreement`.
    """

    video_id: str
    frame: int
    height: int
    width: int
    regions: list[list[int]]
    agreement: float | None

    def masks(self) -> Mask:
        """Return the regions as masks (regions, height, width); there may be none."""
        masks_RHW = np.zeros((len(self.regions), self.height, self.width), dtype=np.bool_)
        for region, counts in enumerate(self.regions):
            masks_RHW[region] = decode_rle(counts, self.height, self.width)
        return masks_RHW


def load_predictor(model_uri: str, config: SaliencyConfig) -> Predictor:
    """Return the function from images to saliency maps that a configuration means, with a model of `fit_saliency`.

    Raises:
        InputError: If the model cannot be read.
    """
    match config.method:
        case "rbd" | "mc" | "dsr" | "hs":
            method = config.method
            return lambda images_THWC: np.stack([prior_map(method, image) for image in images_THWC])
        case "deepusps":
            from previts.saliency.infer import load_network_predictor

            return load_network_predictor(model_uri, config.crf)
        case "supervised" | "none":
            raise ValueError(f"saliency.method={config.method} makes no saliency map; see `load_finder`")


def load_finder(model_uri: str, config: SaliencyConfig) -> Callable[[Images], list[list[Mask]]]:
    """Return the function from images to the masks (H, W) of the salient regions of each."""
    if config.method == "supervised":
        from previts.saliency.supervised import load_detector

        return load_detector(model_uri, config.min_score)
    predictor = load_predictor(model_uri, config)

    def find(images_THWC: Images) -> list[list[Mask]]:
        masks_THW = predictor(images_THWC) > config.threshold
        return [[mask] if mask.any() else [] for mask in masks_THW]

    return find


def agreement(maps: Mapping[str, Maps]) -> float:
    """Return how alike saliency maps of one image are, in [0, 1]: the mean over pairs of sum(min) / sum(max).

    It tells without ground truth where saliency can be trusted: four methods that agree are rarely all wrong.
    """
    scores = []
    for one, other in combinations(maps.values(), 2):
        union = float(np.maximum(one, other).sum())
        scores.append(float(np.minimum(one, other).sum()) / union if union else 0.0)
    return float(np.mean(scores))


def is_done(saliency_uri: str, shard: int) -> bool:
    """Return whether a shard's masks are written."""
    return storage.exists(storage.join(saliency_uri, shards.table_name(shard)))


def read_shard(saliency_uri: str, shard: int) -> list[SaliencyRecord]:
    """Return the rows of a shard: all key frames of a video one after the other, videos in the order of the shard."""
    return records.read_records(storage.join(saliency_uri, shards.table_name(shard)), SaliencyRecord)


def predict_shard(
    videos_uri: str,
    model_uri: str,
    shard: int,
    config: SaliencyConfig,
    target_uri: str,
    run: workers.Run = workers.in_order,
) -> dict[str, int]:
    """Write the salient regions of every k-th frame of every usable video of a shard.

    Args:
        videos_uri: The folder of all shards.
        model_uri: The folder of the saliency model.
        shard: Number of the shard.
        config: What is salient, and on which frames.
        target_uri: Where the table goes.
        run: Processes that share the videos.

    Returns:
        Counts: videos, key_frames, and salient_frames, the key frames with any salient pixel.

    Raises:
        InputError: If a video cannot be decoded any more, or the model cannot be read.
    """
    usable = [video for video in shards.read_shard(videos_uri, shard) if video.status == "ok"]
    tasks = [(videos_uri, model_uri, video, config) for video in usable]
    rows: list[SaliencyRecord] = []
    # Workers share a machine by videos. On 200 x 200 matrices threads of BLAS only wait for each other: on a busy
    # machine they made a map four times as dear.
    with threadpool_limits(limits=1, user_api="blas"):
        for found in progress(run(_video_rows, tasks), f"saliency, shard {shard}", unit="video", total=len(tasks)):
            rows.extend(found)
    records.write_records(storage.join(target_uri, shards.table_name(shard)), SaliencyRecord, rows)
    return {"videos": len(usable), "key_frames": len(rows), "salient_frames": sum(bool(row.regions) for row in rows)}


# A worker loads a network once for all its videos.
_loaded = functools.lru_cache(maxsize=1)(load_finder)


def _video_rows(task: tuple[str, str, shards.VideoRecord, SaliencyConfig]) -> list[SaliencyRecord]:
    videos_uri, model_uri, video, config = task
    if config.method == "none":
        keys = range(0, video.num_frames, config.every)
        return [SaliencyRecord(video.video_id, frame, video.height, video.width, [], None) for frame in keys]
    find = _loaded(model_uri, config)
    rows = []
    for key_frames, images_THWC in _key_frames(videos_uri, video, config.every):
        for frame, image, masks in zip(key_frames, images_THWC, find(images_THWC), strict=True):
            alike = agreement(prior_maps(image, PRIORS)) if config.agreement and frame == 0 else None
            regions = [encode_rle(mask) for mask in masks]
            rows.append(SaliencyRecord(video.video_id, frame, video.height, video.width, regions, alike))
    return rows


def _key_frames(videos_uri: str, video: shards.VideoRecord, every: int) -> Iterator[tuple[list[int], Images]]:
    for start in range(0, video.num_frames, FRAMES_AT_ONCE):
        stop = min(start + FRAMES_AT_ONCE, video.num_frames)
        key_frames = [frame for frame in range(start, stop) if frame % every == 0]
        if not key_frames:
            continue
        try:
            yield key_frames, shards.read_frames(videos_uri, video, key_frames)
        except VideoError as error:
            raise shards.unreadable(videos_uri, video, error) from error
