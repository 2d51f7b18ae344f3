"""Batches ahead of time: which samples a step takes, and the worker processes that prepare them.

PreViTS section 3.1. The batches are the same whatever the number of workers and training processes.
"""

import math
import multiprocessing.forkserver
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import torch
from torch.utils.data import DataLoader

from previts.config.experiment import Experiment
from previts.errors import InputError
from previts.pretraining.dataset import Batch, Item, PairDataset, Request, collate
from previts.pretraining.schedule import Schedule
from previts.storage import folders

# A few videos may be damaged; more than this share of the videos, and more than this many (of a small corpus, more than
# an eighth), is a broken corpus.
DAMAGED_FRACTION, DAMAGED_VIDEOS = 0.01, 8

SHARED = "/dev/shm"  # through which loader workers hand over batches; 64 MB in a container that is given no more
PREFETCHED = 3  # batches of each worker


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


def load_batches(
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
    """The damaged videos found so far, and the point at which there are too many."""

    def __init__(self, videos: int, reasons: dict[str, str] | None = None) -> None:
        self.reasons = dict(reasons or {})
        self.allowed = max(min(DAMAGED_VIDEOS, videos // 8), math.floor(DAMAGED_FRACTION * videos))

    def count(self, damaged: list[tuple[str, str]]) -> None:
        """Add the damaged videos of a batch, and say which ones are new.

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
                f"{len(self.reasons)} videos of the corpus are damaged, {self.allowed} are tolerated ({listed}); "
                f"delete the tables of their shards and {folders.MANIFEST} there and run `previts download`, or "
                "for tubes `previts track`, again"
            )
