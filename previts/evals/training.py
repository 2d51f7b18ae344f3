"""Training on labelled datasets: one loop from the first missing step to the last, on one or several processes.

PreViTS sections 4.2 to 4.4 (fine-tuning). The caller provides the batches and the loss. A step must depend only on its
number, so that a resumed run equals an uninterrupted one.
"""

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from previts.processes import distributed
from previts.processes.conduct import read_conduct
from previts.processes.progress import progress
from previts.storage.states import States

CHECKED_EVERY = 20  # steps between checks of the loss, each of which waits for the device
Batch = TypeVar("Batch")


def run_steps(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    batches: Callable[[int], Iterator[Batch]],
    loss_of: Callable[[nn.Module, Batch], Tensor],
    rate_at: Callable[[int], float],
    folder: str,
    what: str,
    unit: str = "step",
    before_saving: Callable[[], None] = lambda: None,
) -> None:
    """Train `module` in place, from the newest intact state of `folder`; the last step is saved there too.

    Args:
        module: On its device; the caller sets the training mode.
        optimizer: Of its parameters; each group may have a `lr_scale`.
        steps: Number of steps.
        batches: Called with the first step; yields this process's share of the batch of every step from that step on.
        loss_of: Returns the mean loss of such a share. Its first argument is the module to call, which is a wrapper of
            `module` with several processes.
        rate_at: Returns the learning rate of a step.
        folder: URI for the states; "" stores none.
        what: Text of the progress line.
        unit: Name of a step on the progress line.
        before_saving: Called by every process before a state is saved, and after the last step.

    Raises:
        FloatingPointError: If the loss is not finite.
        SystemExit: With code 143 after SIGTERM, once the step is finished and saved.
    """
    device = next(module.parameters()).device
    states = states_of(folder) if folder else None
    first = 0
    if states is not None and (found := states.newest(device)):
        first, state = found
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
    learner = distributed.shared(module)
    every = read_conduct(os.environ).checkpoint_seconds
    saved_at = time.monotonic()
    shown_at_all = distributed.is_main() and first < steps
    bar = progress(range(first, steps), what, unit=unit, total=steps - first) if shown_at_all else nullcontext()
    stream = batches(first) if first < steps else iter(())
    with distributed.sigterm() as terminated, bar as shown:
        for step in range(first, steps):
            batch = next(stream)
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step) * group.get("lr_scale", 1.0)
            loss = loss_of(learner, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            last = step + 1 == steps
            if shown is not None:
                shown.update(1)
            if last or step % CHECKED_EVERY == 0:
                value = float(loss.detach())
                if not torch.isfinite(loss.detach()):
                    raise FloatingPointError(f"{what}: the loss of step {step} is {value}; use a lower learning rate")
                if shown is not None:
                    shown.set_postfix({"loss": f"{value:.3f}"}, refresh=False)
            due = distributed.is_main() and time.monotonic() - saved_at >= every
            stopping, saving = distributed.any_of(terminated.is_set(), due)
            if stopping or saving or last:
                before_saving()
                if distributed.is_main() and states is not None:
                    states.save(step + 1, {"module": module.state_dict(), "optimizer": optimizer.state_dict()})
                saved_at = time.monotonic()
                distributed.barrier()  # the end of one process ends the others: wait until the state is saved
            if stopping and not last:
                raise SystemExit(distributed.TERMINATED)


def steps_an_epoch(count: int, batch_size: int) -> int:
    """Return the number of batches of `count` items; the last may be smaller."""
    return math.ceil(count / batch_size)


def shares(count: int, batch_size: int, seed: int, first: int) -> Iterator[tuple[int, list[int]]]:
    """Yield the epoch and this process's part of the numbers below `count` of every step from `first` on, without end.

    Each epoch has its own order. If the last batch cannot be shared evenly, items of the first batch fill it up.
    """
    world, epoch_steps, current = distributed.world_size(), steps_an_epoch(count, batch_size), -1
    order = np.arange(count)
    for step in itertools.count(first):
        epoch, place = divmod(step, epoch_steps)
        if epoch != current:
            current, order = epoch, np.random.default_rng((seed, epoch)).permutation(count)
        chosen = order[place * batch_size : (place + 1) * batch_size]
        if lacking := -len(chosen) % world:
            chosen = np.concatenate([chosen, np.resize(order, lacking)])
        yield epoch, chosen[distributed.rank() :: world].tolist()


def states_of(folder: str) -> States:
    """Return the store of the states of a training in a folder."""
    return States(folder, "state-{:08d}.pt")
