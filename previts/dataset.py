"""Pairs from an index: which samples a step takes, and how their crops come from the shards to a batch.

PreViTS sections 3.1 and 3.2. Everything random is drawn from a counter (seed, epoch, sample, purpose), so a sample is
the same whatever the number of loader workers and processes, and a run can start at any step. Colours are not touched
here, not even turned into RGB (`augment.py` does that on the training device; only its numbers are drawn here).

Shape suffixes: B pairs of this process, N pairs of all processes, T frames, S pixels of a side of a crop, R = 3 S / 2
rows of an I420 picture (`crops.py`).
"""

import math
import multiprocessing.forkserver
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from previts import augment, crops, sampling, shards, storage, tubes
from previts.errors import InputError
from previts.experiment import Experiment
from previts.index import Index, IndexRecord
from previts.schedule import Purpose, Schedule, generator
from previts.video import VideoError

Role = Literal["query", "key", "other"]
_ROLES: dict[Role, int] = {"query": 0, "key": 1, "other": 2}

_UNKNOWN_MATRIX = 2  # H.264's code

# A few clips may be damaged; more than this share of the videos, and more than this many (of a small corpus, more than
# an eighth), is a broken corpus.
DAMAGED_FRACTION, DAMAGED_VIDEOS = 0.01, 8

SHARED = "/dev/shm"  # through which loader workers hand over batches; 64 MB in a container that is given no more
PREFETCHED = 3  # batches of each worker


class Sample(NamedTuple):
    """One clip of a pair: pictures (T, R, S) as I420, the mask of the object (T, S, S), the `draw` for `augment`.

    `matrix` is H.264's code of the colour matrix.
    """

    video_id: str
    clip: NDArray[np.uint8]
    matrix: int
    mask: NDArray[np.bool_]
    masked: bool
    draw: NDArray[np.float32]
    error: str


class Side(NamedTuple):
    """The queries, the keys or the other clips of a batch, on the CPU. Where not `usable`, the clip is a stand-in.

    Clips are (B, T, R, S) uint8 as I420, masks (B, T, S, S), draws (B, P), the rest (B,). `matrices` holds H.264's
    codes of the colour matrices. A mask that is not known (`masked` is False) is all True.
    """

    clips: Tensor
    matrices: Tensor
    masks: Tensor
    masked: Tensor
    usable: Tensor
    draws: Tensor
    video_ids: list[str]


class Batch(NamedTuple):
    """What one step of this process takes; `damaged` lists (video id, reason).

    Row b holds the query of pair b, and the key of pair `key_order[b]` with the `other` clip of the same pair, if there
    is a speed task.
    """

    query: Side
    key: Side
    other: Side | None
    key_order: Tensor
    damaged: list[tuple[str, str]]


Request = tuple[int, int, int, int]
"""Step, epoch, sample of the query, sample of the key."""

Item = tuple[int, list[Sample]]
"""Step; the query of one sample, then the key of another and, with the speed task, that one's other clip."""


class PairDataset(Dataset[Item]):
    """The chosen videos of an index as clips of pairs; asked by `Request`s, which `batches` makes."""

    def __init__(self, index: Index, experiment: Experiment) -> None:
        columns = index.table.select(["video_id", "split"]).to_pydict()
        self.index, self.experiment = index, experiment
        self.numbers = sampling.choose_videos(columns["video_id"], columns["split"], experiment.sampling)
        self.speed_task = experiment.objective.speed_weight > 0
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

    def __getitem__(self, request: Request) -> Item:
        """Return the step, the query of one sample and what goes with the key of another."""
        step, epoch, query, key = request
        beside: tuple[Role, ...] = ("key", "other") if self.speed_task else ("key",)
        return step, [*self.samples(epoch, query, ("query",)), *self.samples(epoch, key, beside)]

    def samples(self, epoch: int, sample: int, roles: Sequence[Role]) -> list[Sample]:
        """Return clips of a sample. Where one of them is damaged, all are grey with `error` set."""
        config, seed, size = self.experiment.sampling, self.experiment.seed, self.experiment.augment.size
        video = self.index[self.numbers[sample % len(self.numbers)]]
        pair = sampling.sample_pair(
            video, config, generator(seed, epoch, sample, Purpose.PAIR), speed_task=self.speed_task
        )
        frames = self._frames(pair, epoch, sample, video.num_frames, roles)
        draws = {
            role: augment.draw(self.experiment.augment, generator(seed, epoch, sample, Purpose.AUGMENT, _ROLES[role]))
            for role in roles
        }
        mask_frames = {role: self._mask_frames(pair, role, taken, video.num_frames) for role, taken in frames.items()}
        wanted = sorted(set().union(*frames.values()))
        try:
            planes = dict(zip(wanted, shards.read_planes(self.index.videos_uri, video, wanted), strict=True))
            masks = self._read_masks(video, mask_frames) if pair.constrained else {}
        except (VideoError, tubes.DamagedTubeError) as error:
            return [_stand_in(video.video_id, config.clip_frames, size, draws[role], str(error)) for role in roles]
        made = []
        for role in roles:
            reference = masks[mask_frames[role][config.clip_frames // 2]] if pair.constrained else None
            numbers = generator(seed, epoch, sample, Purpose.CROP, _ROLES[role])
            crop = crops.even_crop(sampling.sample_crop(reference, video.height, video.width, config, numbers))
            pictures = [planes[frame] for frame in frames[role]]
            clip_TRS = crops.crop_pictures(pictures, crop, size)
            mask_TSS = (
                crops.crop_masks([masks[frame] for frame in mask_frames[role]], crop, size)
                if pair.constrained
                else None
            )
            # Without a mask the key is its own foreground; the pair takes no part in the attention loss.
            masked = mask_TSS is not None and bool(mask_TSS.any())
            if mask_TSS is None or not masked:
                mask_TSS = np.ones((config.clip_frames, size, size), np.bool_)
            made.append(Sample(video.video_id, clip_TRS, pictures[0].matrix, mask_TSS, masked, draws[role], ""))
        return made

    def sample(self, epoch: int, sample: int, role: Role) -> Sample:
        """Return one clip of a sample; see `samples`."""
        return self.samples(epoch, sample, (role,))[0]

    def _frames(
        self, pair: sampling.Pair, epoch: int, sample: int, num_frames: int, roles: Sequence[Role]
    ) -> dict[Role, list[int]]:
        """Return which frames of the video each clip takes."""
        config, seed = self.experiment.sampling, self.experiment.seed
        speeds = sampling.Speeds(1, 1)
        if self.speed_task:
            speeds = sampling.draw_speeds(config, generator(seed, epoch, sample, Purpose.SPEED))
        return {
            role: sampling.clip_indices(
                _start(pair, role), num_frames, config, speeds.other if role == "other" else speeds.pair
            )
            for role in roles
        }

    def _mask_frames(self, pair: sampling.Pair, role: Role, frames: list[int], num_frames: int) -> list[int]:
        """Return for each frame of a clip the frame whose mask it has."""
        config = self.experiment.sampling
        if config.visible == "clip":
            return frames
        reference = _start(pair, role) + sampling.reference_offset(config, self.speed_task)
        return [reference % num_frames] * len(frames)

    def _read_masks(self, video: IndexRecord, frames: dict[Role, list[int]]) -> dict[int, NDArray[np.bool_]]:
        wanted = sorted(set().union(*frames.values()))
        masks = tubes.read_masks(self.index.tubes_uri, video.shard, video.tube_offset, video.tube_size, wanted)
        return dict(zip(wanted, masks, strict=True))


def _start(pair: sampling.Pair, role: Role) -> int:
    start = {"query": pair.query, "key": pair.key, "other": pair.other}[role]
    if start is None:
        raise ValueError("there is no other clip without the speed task")
    return start


def _stand_in(video_id: str, frames: int, size: int, draw_P: NDArray[np.float32], error: str) -> Sample:
    whole = np.ones((frames, size, size), np.bool_)
    return Sample(video_id, crops.grey(frames, size), _UNKNOWN_MATRIX, whole, False, draw_P, error)


def collate(items: list[Item], schedule: Schedule) -> Batch:
    """Stack the samples of a step."""
    step = items[0][0]
    sides = list(zip(*(samples for _, samples in items), strict=True))
    damaged = {sample.video_id: sample.error for side in sides for sample in side if sample.error}
    query, key, *other = (_stack(side) for side in sides)
    key_order = torch.from_numpy(schedule.key_order(step))
    return Batch(query, key, other[0] if other else None, key_order, sorted(damaged.items()))


def _stack(samples: Sequence[Sample]) -> Side:
    usable = [not sample.error for sample in samples]
    # A damaged clip is stood in for by the next good one, for the sake of batch normalisation.
    rows = range(len(usable))
    source = [next((other for other in (*rows[row:], *rows[:row]) if usable[other]), row) for row in rows]
    return Side(
        torch.from_numpy(np.stack([samples[row].clip for row in source])),
        torch.tensor([samples[row].matrix for row in source]),
        torch.from_numpy(np.stack([sample.mask for sample in samples])),
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

    def __call__(self, items: list[Item]) -> Batch:
        return collate(items, self.schedule)


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)
    # Whoever tells a whole process group to end tells this worker too: it goes on until training has saved its state.
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _start_server() -> None:
    """Start what forks the workers, deaf to SIGTERM: with its end theirs would come."""
    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGTERM, before)


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
    """Yield the batches of a process from `first_step` to the end of the run.

    `workers` processes prepare them ahead, 0 prepares them when asked; the batches are the same.
    """
    loader: DataLoader[Item] = DataLoader(
        dataset,
        batch_sampler=_Requests(schedule, first_step, rank, world_size),
        collate_fn=_Collate(schedule),
        num_workers=workers,
        multiprocessing_context="forkserver" if workers else None,  # object-store clients do not survive a fork
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
        prefetch_factor=PREFETCHED if workers else None,
    )
    if workers:
        _start_server()
    try:
        yield from loader
    except OSError as error:  # of a worker, whose whole traceback is in it
        raise OSError(str(error).strip().rpartition("\n")[2]) from None
    except InputError as error:
        # torch puts the traceback of a worker into the message.
        raise InputError(str(error).strip().rpartition("previts.errors.InputError: ")[2]) from None


def default_workers(device: torch.device, processes: int) -> int:
    """Return how many loader workers suit this machine: none on a CPU, which is busy with training itself."""
    if device.type == "cpu":
        return 0
    return max(1, min(12, len(os.sched_getaffinity(0)) // processes - 1))


def fitting_workers(experiment: Experiment, workers: int, chosen: bool) -> int:
    """Return how many workers can hand over what they prepare ahead: without shared memory torch waits for ever.

    Args:
        experiment: What a batch holds.
        workers: Of each training process.
        chosen: Whether a person wants so many, who then has to know that they do not fit.

    Raises:
        InputError: If they do not, and a person wants them.
    """
    if not workers or not os.path.isdir(SHARED):
        return workers
    size, roles = experiment.augment.size, 2 + (experiment.objective.speed_weight > 0)
    clip = experiment.sampling.clip_frames * size * size * 5 // 2  # an I420 picture and a mask of each frame
    needed = experiment.optim.batch_size * roles * clip * PREFETCHED * workers  # of all processes
    free = shutil.disk_usage(SHARED).free
    if needed <= free:
        return workers
    fitting = workers * free // needed
    if chosen:
        raise InputError(
            f"{workers} loader workers a process prepare {needed >> 20} MiB ahead, and {SHARED} has {free >> 20} MiB: "
            f"set PREVITS_WORKERS={fitting}, or give the container more (docker run --shm-size, a volume of "
            "Kubernetes with medium: Memory)"
        )
    print(f"{fitting} loader workers instead of {workers}: {SHARED} has only {free >> 20} MiB", file=sys.stderr)
    return fitting


class Damaged:
    """The damaged clips met so far, and the point at which there are too many."""

    def __init__(self, videos: int, reasons: dict[str, str] | None = None) -> None:
        self.reasons = dict(reasons or {})
        self.allowed = max(min(DAMAGED_VIDEOS, videos // 8), math.floor(DAMAGED_FRACTION * videos))

    def count(self, damaged: list[tuple[str, str]]) -> None:
        """Add the damaged clips of a batch, and say which ones are new.

        Raises:
            InputError: If more than `allowed` videos are damaged.
        """
        for video_id, reason in damaged:
            if video_id not in self.reasons:
                print(f"skipped: {video_id}: {reason}", file=sys.stderr)
        self.reasons.update(damaged)
        if len(self.reasons) > self.allowed:
            listed = "; ".join(f"{video_id}: {reason}" for video_id, reason in list(self.reasons.items())[:3])
            raise InputError(
                f"{len(self.reasons)} clips of the corpus are damaged, {self.allowed} are tolerated ({listed}); "
                f"delete the tables of their shards and {storage.MANIFEST} there and run `previts download`, or "
                "for tubes `previts track`, again"
            )
