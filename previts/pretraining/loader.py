"""Batches prepared in advance: the requests of each step, and the worker processes that load them.

PreViTS section 3.1. The batches do not depend on the number of workers or of training processes.
"""

import contextlib
import math
import multiprocessing.forkserver
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from previts.config.experiment import Experiment
from previts.errors import InputError
from previts.pretraining.dataset import Batch, PairDataset, Request, collate
from previts.pretraining.schedule import Schedule
from previts.storage import folders

# A few videos may be damaged. Training stops if there are more than this share of the videos, and more than this number
# (in a small corpus: more than an eighth).
DAMAGED_FRACTION, DAMAGED_VIDEOS = 0.01, 8

SHARED = "/dev/shm"  # loader workers pass batches through it; a container has 64 MB unless more is requested
PREFETCHED = 3  # batches of each worker


@dataclass(frozen=True)
class _Steps(IterableDataset[Batch]):
    """The batches of a process from `first_step` on; each of W workers makes every W-th of them."""

    dataset: PairDataset
    schedule: Schedule
    first_step: int
    rank: int
    world_size: int

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        steps = range(self.first_step + first, self.schedule.total_steps, stride)
        return (collate(*loaded, self.schedule) for loaded in self.dataset.load(map(self._requests, steps)))

    def _requests(self, step: int) -> list[Request]:
        share = self.schedule.batch_size // self.world_size
        rows = slice(self.rank * share, (self.rank + 1) * share)
        samples = self.schedule.samples(step)
        keys = samples[self.schedule.key_order(step)]
        epoch = self.schedule.epoch(step)
        return [(step, epoch, int(query), int(key)) for query, key in zip(samples[rows], keys[rows], strict=True)]


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)
    # SIGTERM to the whole process group reaches this worker too: ignore it once, so that training can save its state.
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _start_server() -> None:
    """Start the server that forks the workers; it ignores SIGTERM, because its workers die with it."""
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

    `workers` processes prepare them in advance. With 0 workers each batch is prepared when it is requested. The batches
    are the same.

    Raises:
        InputError: If a worker raises it, such as for a missing file; without the traceback.
        OSError: If a worker raises it, such as for a lost connection; without the traceback.
    """
    with dataset.mapped() if workers else contextlib.nullcontext(dataset) as shared:
        yield from _load(_Steps(shared, schedule, first_step, rank, world_size), workers, pin_memory)


def _load(steps: _Steps, workers: int, pin_memory: bool) -> Iterator[Batch]:
    loader: DataLoader[Batch] = DataLoader(
        steps,
        batch_size=None,
        collate_fn=_as_it_is,
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
    except OSError as error:  # from a worker, with its whole traceback in the message
        raise OSError(str(error).strip().rpartition("\n")[2]) from None
    except InputError as error:
        # torch puts the traceback of the worker into the message.
        raise InputError(str(error).strip().rpartition("previts.errors.InputError: ")[2]) from None


def default_workers(device: torch.device, processes: int) -> int:
    """Return the number of loader workers for this machine: none on a CPU, because training uses all of it."""
    if device.type == "cpu":
        return 0
    return max(1, min(12, len(os.sched_getaffinity(0)) // processes - 1))


def fitting_workers(experiment: Experiment, workers: int, chosen: bool) -> int:
    """Return the number of workers whose prepared batches fit into shared memory; without room torch waits forever.

    Args:
        experiment: Decides the size of a batch.
        workers: Of each training process.
        chosen: Whether the user has set the number, which is then not lowered.

    Raises:
        InputError: If the batches do not fit and the user has set the number.
    """
    if not workers or not os.path.isdir(SHARED):
        return workers
    size, roles = experiment.augment.size, 2 + (experiment.objective.speed_weight > 0)
    clip = experiment.sampling.clip_frames * size * size * 5 // 2  # an I420 image and a mask of each frame
    needed = experiment.optim.batch_size * roles * clip * PREFETCHED * workers  # of all processes
    free = shutil.disk_usage(SHARED).free
    if needed <= free:
        return workers
    fitting = workers * free // needed
    if chosen:
        raise InputError(
            f"{workers} loader workers for each process prepare {needed >> 20} MiB in advance, and {SHARED} has only "
            f"{free >> 20} MiB: set PREVITS_WORKERS={fitting}, or give the container more shared memory "
            "(docker run --shm-size, a volume of Kubernetes with medium: Memory)"
        )
    print(f"using {fitting} loader workers instead of {workers}: {SHARED} has only {free >> 20} MiB", file=sys.stderr)
    return fitting


class Damaged:
    """The damaged videos found so far, and how many are allowed."""

    def __init__(self, videos: int, reasons: dict[str, str] | None = None) -> None:
        self.reasons = dict(reasons or {})
        self.allowed = max(min(DAMAGED_VIDEOS, videos // 8), math.floor(DAMAGED_FRACTION * videos))

    def count(self, damaged: list[tuple[str, str]]) -> None:
        """Add the damaged videos of a batch, and report the new ones.

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
                f"delete the tables of their shards and {folders.MANIFEST} there, then run `previts download` again, "
                "or `previts track` if the tubes are damaged"
            )
