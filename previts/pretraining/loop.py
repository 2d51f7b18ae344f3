"""The training loop of pretraining: from an index to a checkpoint, on one process or on many.

PreViTS sections 3.3 and 4.1. The code is in order of time. A run resumes, to the bit, from the newest sound state in
its folder, because all random numbers are drawn from counters. It never evaluates.
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
from previts.models.moco import Clips, MoCo, Pairs, Step, metric_names
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

CHECKPOINT_STEPS = 2000  # a state is saved after this many steps, or earlier by time


def run_pretraining(
    experiment: Experiment,
    index: Index,
    uri: str,
    *,
    device: torch.device,
    run: MetricLogger | None = None,
    conduct: Conduct | None = None,
    previous: str = "",
) -> dict[str, int | float]:
    """Train a model on the videos of an index, from the newest state in `uri` until the last step is saved there.

    Args:
        experiment: What is learned.
        index: The videos.
        uri: Folder of the states and the log (`checkpoint.py`); `checkpoint.finish` turns it into a model.
        device: Where this process trains.
        run: Also gets each line of the log and each image; used on the main process only.
        conduct: How the training is carried out; see `processes/conduct.py` for the defaults.
        previous: URI of a finished checkpoint whose model is continued, with its heads and queue.

    Returns:
        Counts and the last logged metrics.

    Raises:
        InputError: If the experiment does not fit the number of processes, or the corpus has too many damaged videos.
        FloatingPointError: If the loss is not finite; names the step and the videos.
        SystemExit: With code 143 after SIGTERM, once the step is finished and saved.
    """
    conduct = conduct or Conduct()
    experiment.check_processes(distributed.world_size())
    if (finished := checkpoint.finished_steps(uri)) is not None:
        return _summary(checkpoint.read_log(uri, finished), finished, index, experiment, damaged=0)

    # The data, and its order.
    dataset = PairDataset(index, experiment, conduct.cache)
    schedule = Schedule(len(dataset), experiment.optim.batch_size, experiment.optim.epochs, experiment.seed)

    # The model, its optimiser and the state to resume from.
    model = build_model(experiment, device)
    optimizer = build_optimizer(model.parameters(), experiment.optim)
    first, found = checkpoint.restore(uri, model, optimizer, device)
    damaged = Damaged(len(dataset), found)
    if not first and previous:
        model.load_state_dict(checkpoint.load_model(previous, device).state_dict())
    elif not first and experiment.model.weights:
        model.start_from(
            weight_formats.read_encoder(experiment.model.weights, experiment.model.encoder, experiment.model.width)
        )
    torch.backends.cudnn.benchmark = True  # all batches have one size
    if conduct.compile:
        model.compile_encoders()
    learner = distributed.shared(model.train())  # the model keeps queue and statistics equal itself
    share = experiment.optim.batch_size // distributed.world_size()
    parts = model.rows(share, conduct.accumulate)

    # The steps, from the first one that is not done yet.
    last = 0 if experiment.model.frozen else schedule.total_steps
    workers = default_workers(device, distributed.world_size()) if conduct.workers is None else conduct.workers
    workers = fitting_workers(experiment, workers, chosen=conduct.workers is not None)
    batches = load_batches(
        dataset,
        schedule,
        first,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        workers=workers,
        pin_memory=device.type == "cuda",
    )
    monitor = Monitor(uri, first, schedule, experiment, run=run)
    monitor.damaged = len(damaged.reasons)
    saved_at, saved = time.monotonic(), first
    with distributed.sigterm() as terminated, checkpoint.Saver(uri, first) as saver:
        if not last and distributed.is_main():
            saver.save(0, model, optimizer)
        for step in _with_progress(first, last, monitor):
            waited = time.perf_counter()
            batch = next(batches)
            monitor.waited += time.perf_counter() - waited
            stopping, due, any_damaged = distributed.any_of(
                terminated.is_set(),
                distributed.is_main() and time.monotonic() - saved_at >= conduct.checkpoint_seconds,
                bool(batch.damaged),
            )
            if any_damaged:
                damaged.count(distributed.gather_lists(batch.damaged))
                monitor.damaged = len(damaged.reasons)

            set_learning_rate(optimizer, learning_rate(step, schedule.steps_per_epoch, experiment.optim))
            pairs = prepare(batch, device)
            metrics, first_part = take_step(model, learner, optimizer, pairs=pairs, parts=parts)
            monitor.save_sheet(step, pairs, first_part)
            monitor.add(step, metrics, batch.query.video_ids)
            del pairs, first_part  # else they are in memory while the next batch is prepared

            if stopping or due or step + 1 == last or (step + 1) % CHECKPOINT_STEPS == 0:
                monitor.log_pending()
                if distributed.is_main():
                    monitor.write()
                    saver.save(step + 1, model, optimizer, damaged.reasons)
                saved_at, saved = time.monotonic(), step + 1
            if stopping or step + 1 == last:
                saver.wait()
                distributed.barrier()  # torchrun ends all processes with the first: wait until the state is saved
            if stopping:
                raise SystemExit(distributed.TERMINATED)
    return _summary(monitor.lines, saved, index, experiment, damaged=len(damaged.reasons))


def take_step(
    model: MoCo, learner: torch.nn.Module, optimizer: torch.optim.Optimizer, *, pairs: Pairs, parts: list[slice]
) -> tuple[Tensor, Step]:
    """Take one training step; return its metrics, and the result of its first part."""
    keys = model.encode_keys(pairs, len(parts))
    results: list[Step] = []
    for number, rows in enumerate(parts):
        model.begin_part(model.encoder_q, number, len(parts))
        query = Clips(*(value[rows] for value in pairs.query))
        # Gradients are exchanged once a step, in the backward pass of the last part.
        with _without_sync(learner) if number + 1 < len(parts) else contextlib.nullcontext():
            result: Step = learner(query, keys, rows.start)
            result.loss.backward()  # type: ignore[no-untyped-call]
        results.append(result._replace(loss=result.loss.detach()))
    if clip_norm := model.experiment.optim.clip_norm:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    optimizer.zero_grad()
    model.enqueue(keys)
    # In every step, not only before a save: the result must not depend on how often it is saved.
    model.average_statistics()
    return torch.stack([result.metrics for result in results]).sum(0), results[0]


def build_model(experiment: Experiment, device: torch.device) -> MoCo:
    """Return a new model on a device, with weights that depend on the experiment's seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(experiment.seed)
        model = MoCo(experiment)
    return model.to(device)


def _without_sync(learner: torch.nn.Module) -> contextlib.AbstractContextManager[None]:
    """Return a block in which gradients are not exchanged between processes."""
    return learner.no_sync() if isinstance(learner, DistributedDataParallel) else contextlib.nullcontext()


def prepare(batch: Batch, device: torch.device) -> Pairs:
    """Copy a batch to the training device, and augment it there."""

    def side(of: Side) -> Clips:
        clips, masks, *flags = (
            value.to(device, non_blocking=True) for value in (of.clips, of.masks, of.masked, of.usable)
        )
        # Matrices and draws stay on the CPU, so that the device is not asked which clips a transform changes.
        clips, masks = augment(clips, of.matrices, masks, of.draws)
        return Clips(clips.transpose(1, 2), masks, *flags)

    other = None if batch.other is None else side(batch.other)
    return Pairs(side(batch.query), side(batch.key), other, batch.key_order.to(device, non_blocking=True))


def _with_progress(first: int, last: int, monitor: Monitor) -> Iterator[int]:
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
    lines: list[dict[str, float]], steps: int, index: Index, experiment: Experiment, *, damaged: int
) -> dict[str, int | float]:
    last = lines[-1] if lines else {}
    wanted = (*metric_names(experiment.objective), "pairs_per_second")
    return {
        "videos": len(index),
        "steps": steps,
        "pairs": steps * experiment.optim.batch_size,
        "damaged_clips": damaged,
        **{name: value for name, value in last.items() if name in wanted},
    }
