"""Pretraining: one loop from an index to a checkpoint, on one process or on many.

PreViTS sections 3.3 and 4.1. The loop reads in the order of time. It resumes by itself, to the bit, from the newest
sound state in its folder: nothing is random but what is drawn from counters. It never evaluates.
"""

import contextlib
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

import torch
from torch.nn.parallel import DistributedDataParallel

from previts import checkpoint, distributed
from previts.augment import augment
from previts.dataset import Batch, Damaged, PairDataset, Schedule, Side, batches, default_workers
from previts.errors import InputError
from previts.experiment import Experiment
from previts.index import Index
from previts.moco import FIGURES, MoCo, Pairs, Step
from previts.optim import build_optimizer, learning_rate, set_learning_rate
from previts.progress import progress

TERMINATED = 143  # what a shell reports for SIGTERM


class FigureLog(Protocol):
    """Where figures go besides the folder's own log; `runlog.RunLog` is one."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Record figures of a step."""


def _whole_number(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    if text and not text.isdecimal():
        raise InputError(f"{variable} must be a whole number, got {text!r}")
    return int(text) if text else None


@dataclass(frozen=True)
class Conduct:
    """How a run is carried out. None of this changes what is learnt.

    `workers` are loader processes of each training process (default: PREVITS_WORKERS, else by machine). A state is
    saved every `checkpoint_steps` steps and every `checkpoint_seconds` seconds (default: PREVITS_CHECKPOINT_SECONDS,
    else 600). `log_steps` is the distance of log lines (default: about 200 lines a run, at most 50 steps apart).
    `stop_after` ends the call after so many steps.
    """

    workers: int | None = field(default_factory=lambda: _whole_number("PREVITS_WORKERS"))
    checkpoint_steps: int = 2000
    checkpoint_seconds: float = field(default_factory=lambda: _whole_number("PREVITS_CHECKPOINT_SECONDS") or 600)
    log_steps: int | None = None
    stop_after: int | None = None


def train(
    experiment: Experiment,
    index: Index,
    uri: str,
    *,
    device: torch.device,
    run: FigureLog | None = None,
    conduct: Conduct | None = None,
) -> dict[str, int | float]:
    """Train a model on the videos of an index, from wherever `uri` stands, until its last step is saved there.

    Args:
        experiment: What is learnt.
        index: The videos.
        uri: Folder of the checkpoints and the log (`checkpoint.py`); `checkpoint.finish` turns it into a model.
        device: Where this process trains.
        run: Takes every logged line too; on the main process only.
        conduct: How, if not by default.

    Returns:
        Counts and the last logged figures.

    Raises:
        InputError: If the experiment does not fit the processes, or the corpus has too many damaged clips.
        FloatingPointError: If the loss is not finite; names the step and the videos.
        SystemExit: With code 143 after SIGTERM, once the step is finished and saved.
    """
    conduct = conduct or Conduct()
    experiment.check_processes(distributed.world_size())
    if (finished := checkpoint.finished_steps(uri)) is not None:
        return _summary(checkpoint.read_log(uri, finished), finished, index, experiment, 0)

    # What is learnt from, and when.
    dataset = PairDataset(index, experiment)
    schedule = Schedule(len(dataset), experiment.optim.batch_size, experiment.optim.epochs, experiment.seed)
    damaged = Damaged(len(dataset))

    # What learns.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(experiment.seed)
        model = MoCo(experiment)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(model.parameters(), experiment.optim)
    first = checkpoint.restore(uri, model, optimizer, device)
    learner: torch.nn.Module = model.train()
    if distributed.world_size() > 1:
        # Queue and statistics are kept equal by the model itself.
        with warnings.catch_warnings():
            # torch 2.15 has a new name for it that older ones, which run here too, do not know.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
            learner = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)

    # From the first step that is missing to the last.
    last = schedule.total_steps if conduct.stop_after is None else min(schedule.total_steps, first + conduct.stop_after)
    workers = default_workers(device, distributed.world_size()) if conduct.workers is None else conduct.workers
    coming = batches(
        dataset,
        schedule,
        first,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        workers=workers,
        pin_memory=device.type == "cuda",
    )
    log = _Log(uri, first, schedule, experiment, run, conduct)
    saved_at, saved = time.monotonic(), first
    with _sigterm() as terminated:
        for step in _shown(first, last, log):
            waited = time.perf_counter()
            batch = next(coming)
            log.waited += time.perf_counter() - waited
            damaged.count(batch.damaged)

            set_learning_rate(optimizer, learning_rate(step, schedule.steps_per_epoch, experiment.optim))
            result: Step = learner(prepare(batch, device))
            result.loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            model.enqueue(result.keys)
            log.add(step, result.figures, batch)

            due = time.monotonic() - saved_at >= conduct.checkpoint_seconds
            stop, due = distributed.any_of(terminated.is_set(), due and distributed.is_main())
            if stop or due or step + 1 == last or (step + 1) % conduct.checkpoint_steps == 0:
                log.drain()
                _save(uri, step + 1, model, optimizer, log)
                saved_at, saved = time.monotonic(), step + 1
            if stop:
                raise SystemExit(TERMINATED)
    return _summary(log.lines, saved, index, experiment, len(damaged.reasons))


def prepare(batch: Batch, device: torch.device) -> Pairs:
    """Bring a batch to the training device and augment it there; the clips of an image model lose their time axis."""

    def side(of: Side) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        clips = of.clips.to(device, non_blocking=True)
        masks = of.masks.to(device, non_blocking=True)
        clips, masks = augment(clips, masks, of.draws)
        known = of.masked.to(device, non_blocking=True), of.usable.to(device, non_blocking=True)
        return clips.flatten(0, 1), masks.flatten(0, 1), *known

    return Pairs(*side(batch.query), *side(batch.key), batch.key_order.to(device, non_blocking=True))


def _shown(first: int, last: int, log: "_Log") -> Iterator[int]:
    """Yield the steps, with a progress bar on the main process."""
    if not distributed.is_main() or first == last:
        yield from range(first, last)
        return
    with progress(range(first, last), "pretrain", unit="step", total=last - first) as bar:
        for step in bar:
            yield step
            if log.latest:
                shown = {"loss": f"{log.latest['loss']:.3f}", "pairs/s": f"{log.latest['pairs_per_second']:.1f}"}
                bar.set_postfix(shown, refresh=False)


def _save(uri: str, step: int, model: MoCo, optimizer: torch.optim.Optimizer, log: "_Log") -> None:
    model.average_statistics()
    if distributed.is_main():
        log.write()
        checkpoint.save_step(uri, step, model, optimizer)
    distributed.barrier()


def _summary(
    lines: list[dict[str, float]], steps: int, index: Index, experiment: Experiment, damaged: int
) -> dict[str, int | float]:
    last = lines[-1] if lines else {}
    pairs = steps * experiment.optim.batch_size
    return {
        "videos": len(index),
        "steps": steps,
        "pairs": pairs,
        "damaged_clips": damaged,
        **{name: value for name, value in last.items() if name in FIGURES or name == "pairs_per_second"},
    }


class _Log:
    """The figures of a run: looked at every step, written down every few.

    On a GPU the figures of a step are read while the next one computes, so nothing waits for them.
    """

    def __init__(
        self,
        uri: str,
        first: int,
        schedule: Schedule,
        experiment: Experiment,
        run: FigureLog | None,
        conduct: Conduct,
    ) -> None:
        self.uri, self.schedule, self.experiment, self.run = uri, schedule, experiment, run
        self.every = conduct.log_steps or max(1, min(50, schedule.total_steps // 200))
        self.lines = checkpoint.read_log(uri, first)
        self.latest: dict[str, float] = {}
        self.waited = 0.0
        self._since, self._logged, self._written = time.perf_counter(), first, time.monotonic()
        self._pending: tuple[int, torch.Tensor, torch.cuda.Event | None, list[str]] | None = None

    def add(self, step: int, figures: torch.Tensor, batch: Batch) -> None:
        """Take the figures of a step that has been started."""
        event = None
        if figures.is_cuda:
            self.drain()
            on_host = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
            figures = on_host.copy_(figures, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._pending = (step, figures, event, batch.query.video_ids)
        if event is None:
            self.drain()

    def drain(self) -> None:
        """Look at the figures that have not been looked at yet."""
        if self._pending is None:
            return
        step, figures, event, video_ids = self._pending
        self._pending = None
        if event is not None:
            event.synchronize()
        if not math.isfinite(float(figures[0])):
            raise FloatingPointError(
                f"the loss of step {step + 1} is {float(figures[0])}; lower optim.lr, or look at the videos of the "
                f"batch ({', '.join(video_ids)}). States saved before this step are sound"
            )
        if (step + 1) % self.every == 0 or step + 1 == self.schedule.total_steps:
            self._line(step, figures)

    def _line(self, step: int, figures: torch.Tensor) -> None:
        distributed.average_([figures])
        if not distributed.is_main():
            return
        now, config = time.perf_counter(), self.experiment
        seconds = max(now - self._since, 1e-9)
        pairs = (step + 1 - self._logged) * config.optim.batch_size
        self.latest = {
            "step": step + 1,
            "epoch": self.schedule.epoch(step),
            # Without the attention term there are no figures of attention.
            **{name: round(float(value), 6) for name, value in zip(FIGURES, figures, strict=False)},
            "lr": learning_rate(step, self.schedule.steps_per_epoch, config.optim),
            "pairs_per_second": round(pairs / seconds, 3),
            "data_wait": round(min(1.0, self.waited / seconds), 4),
        }
        self._since, self._logged, self.waited = now, step + 1, 0.0
        self.lines.append(self.latest)
        if self.run is not None:
            self.run.metrics({name: value for name, value in self.latest.items() if name != "step"}, step + 1)
        if time.monotonic() - self._written > 15:
            self.write()

    def write(self) -> None:
        """Write the lines so far; on resuming, those after the restored state are dropped."""
        checkpoint.write_log(self.uri, self.lines)
        self._written = time.monotonic()


@contextlib.contextmanager
def _sigterm() -> Iterator[threading.Event]:
    """Yield a flag that SIGTERM sets instead of ending the process; only a main thread can ask for that."""
    flag = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        flag.set()

    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGTERM, before)
