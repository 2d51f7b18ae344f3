"""Experiments and synthetic batches for benchmarks that time training steps."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from previts.config.experiment import Experiment
from previts.config.tables import PREVITS, VIDEO_PREVITS
from previts.models.moco import Clips, Pairs

PAPER = {"resnet50": PREVITS, "s3dg": VIDEO_PREVITS}
PEAK = {"A100": 312e12, "H100": 989e12, "H200": 989e12}  # dense bfloat16 operations per second


@dataclass(frozen=True)
class Size:
    """The size of a step, and how many rounds each variant is timed."""

    batch: int
    groups: int
    pixels: int
    rounds: int


def sized_experiment(kind: str, size: Size, **objective) -> Experiment:
    paper = PAPER[kind]
    return replace(
        paper,
        augment=replace(paper.augment, size=size.pixels),
        objective=replace(paper.objective, batch_norm_groups=size.groups, **objective),
        # A low rate, so that numbers stay finite: other numbers are computed at another speed.
        optim=replace(paper.optim, batch_size=size.batch, lr=1e-4),
    )


def synthetic_pairs(
    experiment: Experiment, device: torch.device, *, batch: int | None = None, order: Tensor | None = None
) -> Pairs:
    """Return a batch of one process: noise as clips, a square as mask. By default the process is the only one."""
    batch = batch or experiment.optim.batch_size
    frames, pixels = experiment.sampling.clip_frames, experiment.augment.size
    generator = torch.Generator(device).manual_seed(0)

    def side() -> Clips:
        # In the memory order of `augment`: frames first, then transposed.
        clips = torch.randn(batch, frames, 3, pixels, pixels, generator=generator, device=device).transpose(1, 2)
        mask = torch.zeros(batch, frames, pixels, pixels, dtype=torch.bool, device=device)
        mask[:, :, pixels // 4 : pixels * 3 // 4, pixels // 4 : pixels * 3 // 4] = True
        sure = torch.ones(batch, dtype=torch.bool, device=device)
        return Clips(clips, mask, sure, sure)

    other = side() if experiment.objective.speed_weight else None
    if order is None:
        order = torch.randperm(batch, generator=generator, device=device)
    return Pairs(side(), side(), other, order)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, one thread"


def peak_operations(device: torch.device) -> float | None:
    """Return the operations per second that a GPU can do at most, if they are known."""
    return next((rate for card, rate in PEAK.items() if card in device_name(device)), None)


def keep(name: str, figures: dict) -> None:
    """Print the results, and write them to the folder `PREVITS_BENCH_OUT` if it is set."""
    text = json.dumps(figures, indent=1)
    print(text)
    if folder := os.environ.get("PREVITS_BENCH_OUT"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.json").write_text(text)
