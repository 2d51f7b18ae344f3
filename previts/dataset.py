"""Pairs from an index: which samples a step takes, and how their crops come from the shards to a batch.

PreViTS section 3.2. Everything random is drawn from a counter (seed, epoch, sample, purpose), so a sample is the same
whatever the number of loader workers and processes, and a run can start at any step. Colours are not touched here
(`augment.py` does that on the training device; only its numbers are drawn here).

Shape suffixes: B pairs of this process, N pairs of all processes, T frames, C channels, H W pixels.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from previts import augment, sampling, shards, storage, tubes
from previts.errors import InputError
from previts.experiment import Experiment
from previts.index import Index, IndexRecord
from previts.video import VideoError

Role = Literal["query", "key"]
# What a random number is for, the last number of its counter.
_ORDER, _KEY_ORDER, _PAIR, _CROP, _AUGMENT = range(5)
_ROLES = {"query": 0, "key": 1}

# A few clips may be damaged; more than this share of the videos, and more than this many (of a small corpus, more than
# an eighth), is a broken corpus.
DAMAGED_FRACTION, DAMAGED_VIDEOS = 0.01, 8


def _generator(*counter: int) -> np.random.Generator:
    return np.random.default_rng(counter)


@dataclass(frozen=True)
class Schedule:
    """Which samples each step takes. An epoch has `max(1, videos // batch_size)` steps.

    A sample is a video, numbered from 0 within those learnt from. With fewer videos than a batch needs, videos come
    several times in a batch, as samples `video + videos * repeat`, each with draws of its own.
    """

    videos: int
    batch_size: int
    epochs: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """The steps of one epoch."""
        return max(1, self.videos // self.batch_size)

    @property
    def total_steps(self) -> int:
        """The steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def epoch(self, step: int) -> int:
        """Return the epoch that a step belongs to, from 0."""
        return step // self.steps_per_epoch

    def samples(self, step: int) -> NDArray[np.int64]:
        """Return the samples of a step, (N,): row n is the query of pair n."""
        epoch, place = divmod(step, self.steps_per_epoch)
        repeats = range(math.ceil(self.batch_size / self.videos))
        rounds = [
            _generator(self.seed, epoch, repeat, _ORDER).permutation(self.videos) + repeat * self.videos
            for repeat in repeats
        ]
        return np.concatenate(rounds)[place * self.batch_size : (place + 1) * self.batch_size]

    def key_order(self, step: int) -> NDArray[np.int64]:
        """Return which pair the key of each row belongs to, (N,): a permutation of the rows of a step.

        Keys are thus batch-normalised among other samples than their queries, and no image has to travel for that.
        """
        return _generator(self.seed, step, _KEY_ORDER).permutation(self.batch_size)


class Sample(NamedTuple):
    """One side of a pair: a clip (T, C, H, W) with the mask of the object (T, H, W), and the `draw` for `augment`."""

    video_id: str
    clip: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    masked: bool
    draw: NDArray[np.float32]
    error: str


class Side(NamedTuple):
    """The queries or the keys of a batch, on the CPU. Where `usable` is False the clip is a stand-in.

    Clips are (B, T, C, H, W), masks (B, T, H, W), flags (B,), draws (B, P).
    """

    clips: Tensor
    masks: Tensor
    masked: Tensor
    usable: Tensor
    draws: Tensor
    video_ids: list[str]


class Batch(NamedTuple):
    """What one step of this process takes; `damaged` lists (video id, reason)."""

    query: Side
    key: Side
    key_order: Tensor
    damaged: list[tuple[str, str]]


Request = tuple[int, int, int, int]
"""Step, epoch, sample of the query, sample of the key."""


class PairDataset(Dataset[tuple[int, Sample, Sample]]):
    """The chosen videos of an index as queries and keys; asked by `Request`s, which `batches` makes."""

    def __init__(self, index: Index, experiment: Experiment) -> None:
        columns = index.table.select(["video_id", "split"]).to_pydict()
        self.index, self.experiment = index, experiment
        self.numbers = sampling.choose_videos(columns["video_id"], columns["split"], experiment.sampling)
        self._check_shards()

    def _check_shards(self) -> None:
        present = set(storage.names(self.index.videos_uri))
        wanted = {shards.tar_name(shard) for shard in self.index.table.column("shard").unique().to_pylist()}
        if missing := sorted(wanted - present):
            raise InputError(
                f"{self.index.videos_uri} lacks {len(missing)} of the {len(wanted)} shards that {self.index.uri} "
                f"names, the first is {missing[0]}; bring them back, or delete the tables of these shards and "
                f"{storage.MANIFEST} there and run `previts download` again"
            )

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, request: Request) -> tuple[int, Sample, Sample]:
        """Return the step, the query of one sample and the key of another."""
        step, epoch, query, key = request
        return step, self.sample(epoch, query, "query"), self.sample(epoch, key, "key")

    def sample(self, epoch: int, sample: int, role: Role) -> Sample:
        """Return one side of a sample. A damaged clip gives a grey one with `error` set."""
        config, seed = self.experiment.sampling, self.experiment.seed
        video = self.index[self.numbers[sample % len(self.numbers)]]
        pair = sampling.sample_pair(video, config, _generator(seed, epoch, sample, _PAIR))
        start = pair.query if role == "query" else pair.key
        frames = sampling.clip_indices(start, video.num_frames, config)
        numbers = _generator(seed, epoch, sample, _AUGMENT, _ROLES[role])
        draw_P = augment.draw(self.experiment.augment, numbers)
        size = self.experiment.augment.size
        try:
            images_THWC = shards.read_frames(self.index.videos_uri, video, frames)
        except VideoError as error:
            grey = np.full((len(frames), 3, size, size), 124, np.uint8)
            return Sample(video.video_id, grey, np.ones((len(frames), size, size), np.bool_), False, draw_P, str(error))
        mask_THW = self._read_masks(video, frames) if pair.constrained else None
        reference = None if mask_THW is None else mask_THW[len(frames) // 2]
        crop = sampling.sample_crop(
            reference, video.height, video.width, config, _generator(seed, epoch, sample, _CROP, _ROLES[role])
        )
        clip_TCHW = np.stack([_resize(image[_slices(crop)], size) for image in images_THWC]).transpose(0, 3, 1, 2)
        if mask_THW is not None:
            mask_THW = np.stack([_resize_mask(mask[_slices(crop)], size) for mask in mask_THW])
        if mask_THW is None or not mask_THW.any((1, 2)).all():
            # Without a mask the key is its own foreground; the pair takes no part in the attention loss.
            whole = np.ones((len(frames), size, size), np.bool_)
            return Sample(video.video_id, clip_TCHW, whole, False, draw_P, "")
        return Sample(video.video_id, clip_TCHW, mask_THW, True, draw_P, "")

    def _read_masks(self, video: IndexRecord, frames: list[int]) -> NDArray[np.bool_]:
        tube = tubes.read_tube(self.index.tubes_uri, video.shard, video.tube_offset, video.tube_size)
        return tube.masks(frames)


def _slices(crop: sampling.Crop) -> tuple[slice, slice]:
    left, top, right, bottom = crop
    return slice(top, bottom), slice(left, right)


def _resize(image_HWC: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    shrinks = min(image_HWC.shape[:2]) > size
    resized = cv2.resize(image_HWC, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


def _resize_mask(mask_HW: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Return a mask resized like its image: a pixel is the object's where at least half of it is."""
    return _resize(mask_HW.astype(np.uint8) * 255, size) >= 128


def collate(samples: list[tuple[int, Sample, Sample]], schedule: Schedule) -> Batch:
    """Stack the samples of a step."""
    step = samples[0][0]
    queries, keys = [query for _, query, _ in samples], [key for _, _, key in samples]
    damaged = {side.video_id: side.error for side in (*queries, *keys) if side.error}
    return Batch(_stack(queries), _stack(keys), torch.from_numpy(schedule.key_order(step)), sorted(damaged.items()))


def _stack(samples: list[Sample]) -> Side:
    usable = [not sample.error for sample in samples]
    # A damaged clip is stood in for by the next good one, for the sake of batch normalisation.
    rows = range(len(usable))
    source = [next((other for other in (*rows[row:], *rows[:row]) if usable[other]), row) for row in rows]
    return Side(
        torch.from_numpy(np.stack([samples[row].clip for row in source])),
        torch.from_numpy(np.stack([samples[row].mask for row in source])),
        torch.tensor([sample.masked for sample in samples]),
        torch.tensor(usable),
        torch.from_numpy(np.stack([samples[row].draw for row in source])),
        [sample.video_id for sample in samples],
    )


@dataclass(frozen=True)
class _Requests:
    """The requests of this process, one list a step."""

    schedule: Schedule
    first_step: int
    rank: int
    world_size: int

    def __iter__(self) -> Iterator[list[Request]]:
        share = self.schedule.batch_size // self.world_size
        rows = slice(self.rank * share, (self.rank + 1) * share)
        for step in range(self.first_step, self.schedule.total_steps):
            samples = self.schedule.samples(step)
            keys = samples[self.schedule.key_order(step)]
            epoch = self.schedule.epoch(step)
            yield [(step, epoch, int(query), int(key)) for query, key in zip(samples[rows], keys[rows], strict=True)]


@dataclass(frozen=True)
class _Collate:
    schedule: Schedule

    def __call__(self, samples: list[tuple[int, Sample, Sample]]) -> Batch:
        return collate(samples, self.schedule)


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)


def batches(
    dataset: PairDataset,
    schedule: Schedule,
    first_step: int,
    *,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Return the batches of a process from `first_step` to the end of the run.

    `workers` processes prepare them ahead, 0 prepares them when asked; the batches are the same.
    """
    loader: DataLoader[tuple[int, Sample, Sample]] = DataLoader(
        dataset,
        batch_sampler=_Requests(schedule, first_step, rank, world_size),
        collate_fn=_Collate(schedule),
        num_workers=workers,
        multiprocessing_context="forkserver" if workers else None,  # object-store clients do not survive a fork
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
        prefetch_factor=3 if workers else None,
    )
    return iter(loader)


def default_workers(device: torch.device, processes: int) -> int:
    """Return how many loader workers suit this machine: none on a CPU, which is busy with training itself."""
    if device.type == "cpu":
        return 0
    return max(1, min(12, len(os.sched_getaffinity(0)) // processes - 1))


class Damaged:
    """The damaged clips met so far, and the point at which there are too many."""

    def __init__(self, videos: int) -> None:
        self.reasons: dict[str, str] = {}
        self.allowed = max(min(DAMAGED_VIDEOS, videos // 8), math.floor(DAMAGED_FRACTION * videos))

    def count(self, damaged: list[tuple[str, str]]) -> None:
        """Add the damaged clips of a batch.

        Raises:
            InputError: If more than `allowed` videos are damaged.
        """
        self.reasons.update(damaged)
        if len(self.reasons) > self.allowed:
            listed = "; ".join(f"{video_id}: {reason}" for video_id, reason in list(self.reasons.items())[:3])
            raise InputError(
                f"{len(self.reasons)} clips of the corpus are damaged, {self.allowed} are tolerated ({listed}); "
                f"delete the tables of their shards and {storage.MANIFEST} there and run `previts download` again"
            )
