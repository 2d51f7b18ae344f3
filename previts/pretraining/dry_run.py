"""Operations and GPU memory of a training step, found on any machine without computing the step.

The code of the training runs on tensors that have shapes but no values. The operations are those that torch counts, and
the memory is the sum of all tensors that exist at once. It does not contain the context of the GPU (about 0.5 GiB), the
working memory of its kernels, and the gaps between tensors. `ALLOWANCE` is left for these.
"""

import copy
import weakref
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from previts.config.experiment import Experiment
from previts.models.moco import MoCo, Pairs
from previts.pretraining.augment import draw
from previts.pretraining.dataset import Batch, Side
from previts.pretraining.loop import build_model, prepare, take_step
from previts.pretraining.optim import build_optimizer

CARDS = {"40 GB": 39.4 * 2**30, "80 GB": 79.2 * 2**30, "141 GB": 139.8 * 2**30}  # bytes that programs can use
ALLOWANCE = 0.1  # share of a card
PROCESSES = PARTS = (1, 2, 4, 8, 16)
_BLOCK = 512  # torch allocates multiples of this many bytes on a GPU


class Memory(NamedTuple):
    """Bytes on the GPU of one process: `between` two steps (weights, momenta, queue), and at the `peak` of a step."""

    between: int
    peak: int


def step_memory(experiment: Experiment, processes: int = 1, parts: int = 1) -> Memory:
    """Return the memory of a step that some processes take together, each computing its share of the batch in parts.

    Raises:
        InputError: If the processes or the parts cannot divide the batch.
    """
    experiment.check_processes(processes)
    share = _with_groups(experiment, experiment.objective.batch_norm_groups // processes)
    pairs, preparing = _prepare(share)
    mode = FakeTensorMode()
    model, optimizer = _model(share, mode)
    rows = model.rows(share.optim.batch_size, parts)
    learning = [value for value in model.parameters() if value.requires_grad]
    with mode, _Alive("cpu") as alive:
        alive.add([*model.parameters(), *model.buffers()])
        for value in learning:  # as after a first step
            optimizer.state[value]["momentum_buffer"] = torch.zeros_like(value)
        take_step(model, model, optimizer, pairs=_like(pairs), parts=rows)
    # Several processes exchange their gradients in buffers that exist all the time.
    exchanged = sum(value.nbytes for value in learning) if processes > 1 else 0
    between = alive.now + exchanged
    return Memory(between, max(alive.peak + exchanged, between + preparing))


def operations(experiment: Experiment) -> int:
    """Return the operations of a pair, forward and backward; a multiplication and its addition count as two."""
    group = _with_groups(experiment, 1)
    pairs, _ = _prepare(group)
    mode = FakeTensorMode()
    model, optimizer = _model(group, mode)
    with mode, FlopCounterMode(display=False) as counter:
        take_step(model, model, optimizer, pairs=_like(pairs), parts=model.rows(model.group_size, 1))
    return int(counter.get_total_flops()) // model.group_size


def describe(experiment: Experiment) -> str:
    """Return a table of the memory of a step by the number of GPUs, and the parts with which it fits on a card."""
    if experiment.model.frozen:
        return "a training step: none, since model.frozen=true"
    batch, groups = experiment.optim.batch_size, experiment.objective.batch_norm_groups
    lines = [
        f"a training step of {batch} pairs, {operations(experiment) / 1e9:.1f} GFLOP each:",
        f"  {'GPUs':>4} {'pairs each':>10} {'PREVITS_ACCUMULATE':>18} {'GiB between':>11} {'GiB at peak':>11}   card",
    ]
    for processes in (number for number in PROCESSES if groups % number == 0):
        for parts in (number for number in PARTS if groups // processes % number == 0):
            between, peak = step_memory(experiment, processes, parts)
            cards = [card for card, size in CARDS.items() if peak <= size * (1 - ALLOWANCE)]
            lines.append(
                f"  {processes:>4} {batch // processes:>10} {parts:>18} {between / 2**30:>11.2f} {peak / 2**30:>11.1f}"
                f"   {cards[0] if cards else 'none'}"
            )
            if len(cards) == len(CARDS):
                break
    return "\n".join(lines)


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums the bytes of the tensors of one device that were made in a block and still exist: `now`, and the `peak`."""

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.now, self.peak = device, 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.add(value for value in tree_leaves(made) if isinstance(value, Tensor))
        return made

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors until they are deleted; views of one storage count once."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, -(-storage.nbytes() // _BLOCK) * _BLOCK
            if tensor.device.type != self.device or key in self._known:
                continue
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._remove, key, size).atexit = False

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _with_groups(experiment: Experiment, groups: int) -> Experiment:
    """Return the experiment with a batch of that many groups of batch normalisation, of the same size."""
    optim, objective = experiment.optim, experiment.objective
    size = optim.batch_size // objective.batch_norm_groups
    return replace(
        experiment,
        objective=replace(objective, batch_norm_groups=groups),
        optim=replace(optim, batch_size=groups * size),
    )


def _model(experiment: Experiment, mode: FakeTensorMode) -> tuple[MoCo, torch.optim.Optimizer]:
    """Return a model without values, and its optimiser."""
    whole = build_model(experiment, torch.device("cpu")).train()
    whole.as_on_gpu = True
    with FakeCopyMode(mode):
        model = copy.deepcopy(whole)
    return model, build_optimizer(model.parameters(), experiment.optim)


def _prepare(experiment: Experiment) -> tuple[Pairs, int]:
    """Return a batch of one process without values, and the bytes on a GPU while it is copied and augmented."""
    batch, frames, size = experiment.optim.batch_size, experiment.sampling.clip_frames, experiment.augment.size
    numbers = np.random.default_rng(0)

    def side() -> Side:
        sure = torch.ones(batch, dtype=torch.bool)
        return Side(
            clips=torch.zeros((), dtype=torch.uint8).expand(batch, frames, size * 3 // 2, size),
            matrices=torch.ones(batch, dtype=torch.int64),
            masks=torch.ones((), dtype=torch.bool).expand(batch, frames, size, size),
            masked=sure,
            usable=sure,
            draws=torch.from_numpy(np.stack([draw(experiment.augment, numbers) for _ in range(batch)])),
            video_ids=[],
        )

    other = side() if experiment.objective.speed_weight else None
    with _Alive("meta") as alive:
        pairs = prepare(Batch(side(), side(), other, torch.arange(batch), []), torch.device("meta"))
    return pairs, alive.peak


def _like(pairs: Pairs) -> Pairs:
    def made(value: Tensor) -> Tensor:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)

    like: Pairs = tree_map_only(Tensor, made, pairs)
    return like
