"""Pretraining: one loop from an index to a checkpoint, on one process or on many.

PreViTS sections 3.3 and 4.1. The loop reads in the order of time. It resumes by itself, to the bit, from the newest
sound state in its folder: nothing is random but what is drawn from counters. It never evaluates.
"""

import contextlib
import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from previts.config.experiment import Experiment
from previts.corpus.index_table import Index
from previts.models import weight_formats
from previts.models.moco import Clips, MoCo, Pairs, Step, figure_names
from previts.pretraining import checkpoint
from previts.pretraining.augment import augment
from previts.pretraining.dataset import Batch, PairDataset, Side
from previts.pretraining.loader import Damaged, default_workers, fitting_workers, load_batches
from previts.pretraining.monitor import MetricLogger, Monitor
from previts.pretraining.optim import build_optimizer, learning_rate, set_learning_rate
from previts.pretraining.schedule import Schedule
from previts.processes import distributed
from previts.processes.conduct import Conduct
from previts.processes.progress import progress

CHECKPOINT_STEPS = 2000  # a state is saved every so many steps, if time has not saved one before


def run_pretraining(
    experiment: Experiment,
    index: Index,
    uri: str,
    *,
    device: torch.device,
    run: MetricLogger | None = None,
    conduct: Conduct | None = None,
) -> dict[str, int | float]:
    """Train a model on the videos of an index, from wherever `uri` stands, until its last step is saved there.

    Args:
        experiment: What is learnt.
        index: The videos.
        uri: Folder of the checkpoints and the log (`checkpoint.py`); `checkpoint.finish` turns it into a model.
        device: Where this process trains.
        run: Takes every logged line and picture too; on the main process only.
        conduct: How it is carried out; see `conduct.py` for the defaults.

    Returns:
        Counts and the last logged figures.

    Raises:
        InputError: If the experiment does not fit the processes, or the corpus has too many damaged videos.
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

    # What learns.
    model = build_model(experiment, device)
    optimizer = build_optimizer(model.parameters(), experiment.optim)
    first, found = checkpoint.restore(uri, model, optimizer, device)
    damaged = Damaged(len(dataset), found)
    if not first and experiment.model.weights:
        model.start_from(
            weight_formats.read_encoder(experiment.model.weights, experiment.model.encoder, experiment.model.width)
        )
    torch.backends.cudnn.benchmark = True  # all batches are of one size
    if conduct.compile:
        model.compile_encoders()
    learner = distributed.shared(model.train())  # queue and statistics are kept equal by the model itself
    share = experiment.optim.batch_size // distributed.world_size()
    parts = model.rows(share, conduct.accumulate)

    # From the first step that is missing to the last.
    last = 0 if experiment.model.frozen else schedule.total_steps
    workers = default_workers(device, distributed.world_size()) if conduct.workers is None else conduct.workers
    workers = fitting_workers(experiment, workers, chosen=conduct.workers is not None)
    coming = load_batches(
        dataset,
        schedule,
        first,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        workers=workers,
        pin_memory=device.type == "cuda",
    )
    monitor = Monitor(uri, first, schedule, experiment, run)
    monitor.damaged = len(damaged.reasons)
    saved_at, saved = time.monotonic(), first
    with distributed.sigterm() as terminated, checkpoint.Saver(uri, first) as saver:
        if not last and distributed.is_main():
            saver.save(0, model, optimizer)
        for step in _shown(first, last, monitor):
            waited = time.perf_counter()
            batch = next(coming)
            monitor.waited += time.perf_counter() - waited
            stopping, due, lacking = distributed.any_of(
                terminated.is_set(),
                distributed.is_main() and time.monotonic() - saved_at >= conduct.checkpoint_seconds,
                bool(batch.damaged),
            )
            if lacking:
                damaged.count(distributed.gather_lists(batch.damaged))
                monitor.damaged = len(damaged.reasons)

            set_learning_rate(optimizer, learning_rate(step, schedule.steps_per_epoch, experiment.optim))
            pairs = prepare(batch, device)
            figures, seen = _learn(model, learner, optimizer, pairs, parts)
            monitor.look(step, pairs, seen)
            monitor.add(step, figures, batch.query.video_ids)

            if stopping or due or step + 1 == last or (step + 1) % CHECKPOINT_STEPS == 0:
                monitor.drain()
                if distributed.is_main():
                    monitor.write()
                    saver.save(step + 1, model, optimizer, damaged.reasons)
                saved_at, saved = time.monotonic(), step + 1
            if stopping or step + 1 == last:
                saver.wait()
                distributed.barrier()  # a process that ends takes the others with it: not before the state is there
            if stopping:
                raise SystemExit(distributed.TERMINATED)
    return _summary(monitor.lines, saved, index, experiment, len(damaged.reasons))


def _learn(
    model: MoCo, learner: torch.nn.Module, optimizer: torch.optim.Optimizer, pairs: Pairs, parts: list[slice]
) -> tuple[Tensor, Step]:
    """Take one step; return its figures, and what its first part gave."""
    keys = model.encode_keys(pairs, len(parts))
    results: list[Step] = []
    for number, rows in enumerate(parts):
        model.begin_part(model.encoder_q, number, len(parts))
        query = Clips(*(value[rows] for value in pairs.query))
        # Gradients travel once a step, with those of the last part.
        with _unshared(learner) if number + 1 < len(parts) else contextlib.nullcontext():
            result: Step = learner(query, keys, rows.start)
            result.loss.backward()  # type: ignore[no-untyped-call]
        results.append(result._replace(loss=result.loss.detach()))
    if clip_norm := model.experiment.optim.clip_norm:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    optimizer.zero_grad()
    model.enqueue(keys)
    # In every step, not only before a save: how often a run is saved must not change a bit of it.
    model.average_statistics()
    return torch.stack([result.figures for result in results]).sum(0), results[0]


def build_model(experiment: Experiment, device: torch.device) -> MoCo:
    """Return a new model on a device, its weights decided by the experiment's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(experiment.seed)
        model = MoCo(experiment)
    return model.to(device)


def _unshared(learner: torch.nn.Module) -> contextlib.AbstractContextManager[None]:
    """Return a block in which gradients stay in this process."""
    return learner.no_sync() if isinstance(learner, DistributedDataParallel) else contextlib.nullcontext()


def prepare(batch: Batch, device: torch.device) -> Pairs:
    """Bring a batch to the training device, and augment it there."""

    def side(of: Side) -> Clips:
        clips, masks, *flags = (
            value.to(device, non_blocking=True) for value in (of.clips, of.masks, of.masked, of.usable)
        )
        # Matrices and draws stay on the CPU: what is to be done with which clip is known without asking the device.
        clips, masks = augment(clips, of.matrices, masks, of.draws)
        return Clips(clips.transpose(1, 2), masks, *flags)

    other = None if batch.other is None else side(batch.other)
    return Pairs(side(batch.query), side(batch.key), other, batch.key_order.to(device, non_blocking=True))


def _shown(first: int, last: int, monitor: Monitor) -> Iterator[int]:
    """Yield the steps, with a progress bar on the main process."""
    if not distributed.is_main() or first == last:
        yield from range(first, last)
        return
    with progress(range(first, last), "pretrain", unit="step", total=last - first) as bar:
        for step in bar:
            yield step
            if monitor.latest:
                shown = {
                    "loss": f"{monitor.latest['loss']:.3f}",
                    "pairs/s": f"{monitor.latest['pairs_per_second']:.1f}",
                }
                bar.set_postfix(shown, refresh=False)


def _summary(
    lines: list[dict[str, float]], steps: int, index: Index, experiment: Experiment, damaged: int
) -> dict[str, int | float]:
    last = lines[-1] if lines else {}
    wanted = (*figure_names(experiment.objective), "pairs_per_second")
    return {
        "videos": len(index),
        "steps": steps,
        "pairs": steps * experiment.optim.batch_size,
        "damaged_clips": damaged,
        **{name: value for name, value in last.items() if name in wanted},
    }
