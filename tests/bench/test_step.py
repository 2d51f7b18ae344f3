"""Cost of one training step on synthetic tensors: ours compared with plain MoCo or RSPNet, in one interleaved run.

A step is what `loop.py` does with a batch: keys, forward and backward pass of the query, SGD, queue. All variants have
the same batch, groups of batch normalisation and modules:

- plain: MoCo (ResNet-50) or RSPNet (S3D-g), without the attention term;
- ours: the query is encoded once for all terms, alpha in closed form (`gradcam.channel_weights`);
- graph of a graph: the same, but alpha by a backward pass that is differentiated again;
- twice: the order of the released code. A second forward pass of the query and the masked key serves the attention
  term; with clips, also of the masked third clip.
- compiled: ours, with the encoders through torch.compile, if that works.

On a CPU one thread computes and its CPU seconds count, because other processes affect them least. On a GPU the time
between synchronisations counts. Ratios are medians over rounds of the ratio within a round. `forwards` are the counted
operations of a step and pair, in forward passes of one clip (F). Memory is the rise of its peak above the memory
between steps (weights, queue). On a GPU the batch is the largest of 256, 128, ... that fits for every variant. The
share of the card's peak (MFU) and the GPU-hours of the paper's runs are reported too.

Run it by `make bench`, or alone: `python -m pytest tests/bench/test_step.py -m bench -s`. `PREVITS_BENCH_STEP_BATCH`,
`_GROUPS`, `_SIZE` (pixels) and `_ROUNDS` change the sizes, and `PREVITS_BENCH_COMPILE=1` compiles on a CPU too. Results
are also written to `step-resnet50.json` and `step-s3dg.json` in the folder `PREVITS_BENCH_OUT`. The benchmark fails if
losses differ, but not if times do.
"""

import contextlib
import ctypes
import gc
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from one_core import one_thread
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from training_steps import PAPER, Size, device_name, keep, peak_operations, sized_experiment, synthetic_pairs

from previts.config.tables import PREVITS
from previts.models.encoders import build_encoder
from previts.models.gradcam import attention_map, channel_weights_by_autograd, pool_masks
from previts.models.losses import attention_distance, info_nce, relative_speed
from previts.models.moco import Clips, Keys, MoCo, Pairs
from previts.pretraining.loop import build_model
from previts.pretraining.optim import build_optimizer
from previts.processes.distributed import best_device

CORPORA = {"VGG-Sound": 200_000, "K400": 240_000}  # videos
# GFLOP of a forward pass of one clip at 224 px; a multiplication and its addition count as two.
KNOWN_GFLOP = {"resnet50": 8.17, "s3dg": 34.07}
# For a pair; the backward pass of the query counts as two forward passes.
FORWARDS = {"resnet50": {"plain": 4, "ours": 5, "twice": 8}, "s3dg": {"plain": 5, "ours": 6, "twice": 10}}
GOALS = {
    "resnet50": "ours <= 1.27x plain (floor 1.25), >= 1.55x faster than twice",
    "s3dg": "ours <= 1.25x plain (floor 1.20)",
}

Variant = Callable[[MoCo, Pairs], tuple[Tensor, Keys]]


SIZES = {
    # With one thread and fewer than 16 clips torch uses slow kernels instead of oneDNN, which lose the memory layout.
    ("cpu", "resnet50"): Size(16, 2, 128, 9),
    ("cpu", "s3dg"): Size(16, 2, 64, 9),
    ("cuda", "resnet50"): Size(256, 16, 224, 20),
    ("cuda", "s3dg"): Size(256, 16, 224, 20),
}


def asked_size(device: torch.device, kind: str) -> Size:
    size = SIZES[device.type, kind]
    names = {"batch": "BATCH", "groups": "GROUPS", "pixels": "SIZE", "rounds": "ROUNDS"}
    asked = {field: os.environ.get(f"PREVITS_BENCH_STEP_{name}") for field, name in names.items()}
    return replace(size, **{field: int(value) for field, value in asked.items() if value})


def shared_query(model: MoCo, pairs: Pairs) -> tuple[Tensor, Keys]:
    """Take a step of `plain` or `ours`, depending on the model."""
    keys = model.encode_keys(pairs)
    return model(pairs.query, keys).loss, keys


def attention_by_graph(model: MoCo, maps_BCTHW: Tensor, foreground_BD: Tensor, mask_BTHW: Tensor) -> Tensor:
    query_BD = F.normalize(model.head_q(maps_BCTHW.flatten(2).mean(2)), dim=1)
    weights_BC = channel_weights_by_autograd(maps_BCTHW, (query_BD * foreground_BD).sum(1))
    cam_BTHW = attention_map(maps_BCTHW, weights_BC, "relu")
    return attention_distance(cam_BTHW, pool_masks(mask_BTHW, cam_BTHW.shape[1:], "area")).mean()


def graph_of_a_graph(model: MoCo, pairs: Pairs) -> tuple[Tensor, Keys]:
    objective, keys = model.experiment.objective, model.encode_keys(pairs)
    maps_BCTHW = model._maps(model.encoder_q, pairs.query.clips)
    pooled_BC = maps_BCTHW.flatten(2).mean(2)
    query_BD = F.normalize(model.head_q(pooled_BC), dim=1)
    loss = info_nce(query_BD, keys.key, model.queue, objective.temperature).mean()
    loss = loss + objective.attention_weight * attention_by_graph(model, maps_BCTHW, keys.foreground, pairs.query.mask)
    if objective.speed_weight:
        motion_BD = F.normalize(model.speed_head_q(pooled_BC), dim=1)
        speed_B = relative_speed(motion_BD, keys.speed_key, keys.speed_other, objective.speed_margin)
        loss = loss + objective.speed_weight * speed_B.mean()
    return loss, keys


def query_twice(model: MoCo, pairs: Pairs) -> tuple[Tensor, Keys]:
    """Take a step in the order of the released code, on a model without attention; each pass moves the key encoder."""
    first, keys = shared_query(model, pairs)

    def foreground(clips: Clips) -> Clips:
        return clips._replace(clips=clips.clips * clips.mask[:, None])

    other = None if pairs.other is None else foreground(pairs.other)
    masked = model.encode_keys(pairs._replace(key=foreground(pairs.key), other=other))
    maps_BCTHW = model._maps(model.encoder_q, pairs.query.clips)
    attention = attention_by_graph(model, maps_BCTHW, masked.key, pairs.query.mask)
    return first + PREVITS.objective.attention_weight * attention, keys


class Learner:
    """A model and its optimiser, which repeat one variant of a step on one batch."""

    def __init__(self, model: MoCo, variant: Variant, pairs: Pairs) -> None:
        self.model, self.variant, self.pairs = model.train(), variant, pairs
        self.optimizer = build_optimizer(model.parameters(), model.experiment.optim)

    def step(self) -> None:
        loss, keys = self.variant(self.model, self.pairs)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.model.enqueue(keys)

    def count(self) -> tuple[float, int]:
        """Return the loss and the number of operations of a step that changes no weights."""
        with FlopCounterMode(display=False) as counter:
            loss, _ = self.variant(self.model, self.pairs)
            loss.backward()
        self.optimizer.zero_grad()
        return float(loss.detach()), counter.get_total_flops()


def learners(kind: str, size: Size, device: torch.device) -> dict[str, Learner]:
    ours = sized_experiment(kind, size)
    plain = sized_experiment(kind, size, attention_weight=0.0)
    pairs = synthetic_pairs(ours, device)
    # Variants with the same modules share weights, because times do not depend on their values.
    with_attention, without = build_model(ours, device), build_model(plain, device)
    return {
        "plain": Learner(without, shared_query, pairs),
        "ours": Learner(with_attention, shared_query, pairs),
        "graph of a graph": Learner(with_attention, graph_of_a_graph, pairs),
        "twice": Learner(without, query_twice, pairs),
    }


def compiled(kind: str, size: Size, device: torch.device) -> Learner | None:
    """Return ours with compiled encoders, or None if that is not requested or does not work."""
    if device.type == "cpu" and os.environ.get("PREVITS_BENCH_COMPILE") != "1":
        return None
    experiment = sized_experiment(kind, size)
    model = build_model(experiment, device)
    model.compile_encoders()
    learner = Learner(model, shared_query, synthetic_pairs(experiment, device))
    try:
        learner.step()
    except Exception as error:  # on any error of the compiler this variant is left out
        print(f"{kind} does not compile: {type(error).__name__}: {str(error).splitlines()[0]}")
        return None
    return learner


def fits(kind: str, size: Size, device: torch.device) -> bool:
    try:
        for learner in learners(kind, size, device).values():
            learner.step()
    except torch.OutOfMemoryError:
        return False
    return True


def fitting(kind: str, size: Size, device: torch.device) -> Size:
    """Return the size with the largest batch that fits for all variants; the group size does not change."""
    while size.batch > 2 and not fits(kind, size, device):
        gc.collect()
        torch.cuda.empty_cache()
        size = replace(size, batch=size.batch // 2, groups=max(1, size.groups // 2))
    return size


def forward_flops(kind: str, pixels: int) -> int:
    """Return the number of operations of a forward pass of one clip, counted without computing it."""
    frames = PAPER[kind].sampling.clip_frames
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder = build_encoder(kind).eval()
        encoder(torch.empty(1, 3, *((frames,) if frames > 1 else ()), pixels, pixels))
    return counter.get_total_flops()


def seconds(step: Callable[[], None], device: torch.device) -> float:
    if device.type == "cpu":
        begun = time.process_time()
        step()
        return time.process_time() - begun
    torch.cuda.synchronize(device)
    begun = time.perf_counter()
    step()
    torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def status_bytes(name: str) -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return 1024 * int(line.split()[1])


def peak_bytes(step: Callable[[], None], device: torch.device) -> float:
    """Return the rise of the memory peak in a step above the memory before it; NaN if the system does not report it."""
    if device.type == "cuda":
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - held
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak of this process
        held = status_bytes("VmRSS")
    except OSError:
        return float("nan")
    step()
    return status_bytes("VmHWM") - held


def measure(taking: dict[str, Learner], rounds: int, device: torch.device) -> dict[str, np.ndarray]:
    """Return the seconds of each variant by round; every second round has the reverse order."""
    measured: dict[str, list[float]] = {name: [] for name in taking}
    for number in range(rounds):
        for name in list(taking)[:: -1 if number % 2 else 1]:
            measured[name].append(seconds(taking[name].step, device))
    return {name: np.array(row) for name, row in measured.items()}


@pytest.mark.bench
@pytest.mark.parametrize("kind", ["resnet50", "s3dg"])
def test_a_training_step(kind: str):
    device = best_device()
    assert forward_flops(kind, 224) / 1e9 == pytest.approx(KNOWN_GFLOP[kind], rel=0.01)
    size = asked_size(device, kind)
    with one_thread() if device.type == "cpu" else contextlib.nullcontext():
        if device.type == "cuda":
            size = fitting(kind, size, device)
        taking = learners(kind, size, device)
        counted = {name: learner.count() for name, learner in taking.items()}
        losses = {name: loss for name, (loss, _) in counted.items()}
        near = 1e-5 if device.type == "cpu" else 1e-3  # a GPU computes in bfloat16
        assert losses["graph of a graph"] == pytest.approx(losses["ours"], rel=near)
        assert losses["twice"] == pytest.approx(losses["ours"], rel=near)  # the key encoder has not moved yet

        if learner := compiled(kind, size, device):
            taking["compiled"] = learner
        for learner in taking.values():
            learner.step()  # warm-up: memory and kernels are chosen at first use
        peaks = {name: peak_bytes(learner.step, device) for name, learner in taking.items()}
        measured = measure(taking, size.rounds, device)

    per_clip = forward_flops(kind, size.pixels)
    peak_rate = peak_operations(device)
    rows: dict[str, dict[str, float]] = {}
    for name, row in measured.items():
        rate = size.batch / float(np.median(row))
        known = FORWARDS[kind].get(name, FORWARDS[kind]["ours"])
        rows[name] = {
            "seconds": float(np.median(row)),
            "to_plain": float(np.median(row / measured["plain"])),
            "twice_over": float(np.median(measured["twice"] / row)),
            "pairs/s": rate,
            "peak_gib": peaks[name] / 2**30,
            "paper_F": known,
        }
        if name in counted:
            rows[name]["forwards"] = counted[name][1] / size.batch / per_clip
        if device.type == "cuda":
            if peak_rate:
                rows[name]["mfu"] = known * per_clip * rate / peak_rate
            if size.pixels == PAPER[kind].augment.size:
                epochs = PAPER[kind].optim.epochs
                rows[name] |= {f"h {corpus}": epochs * n / rate / 3600 for corpus, n in CORPORA.items()}
    frames = PAPER[kind].sampling.clip_frames
    print(f"\n{kind}, {device_name(device)}: {size.batch} pairs of {frames} x {size.pixels} x {size.pixels} in")
    print(f"{size.groups} groups, {size.rounds} rounds; one forward pass of a clip {per_clip / 1e9:.2f} GFLOP.")
    print("Medians: seconds a step, over plain, how many times faster than twice; goal: " + GOALS[kind])
    columns = list(rows["plain"])
    print(f"{'':18}" + "".join(f"{column:>12}" for column in columns))
    for name, line in rows.items():
        print(f"{name:18}" + "".join(f"{line.get(column, float('nan')):12.3f}" for column in columns))
    head = {"kind": kind, "device": device_name(device), "gflop": per_clip / 1e9, "goal": GOALS[kind]}
    keep(f"step-{kind}", {**head, **vars(size), "frames": frames, "losses": losses, "variants": rows})
