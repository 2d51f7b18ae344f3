"""Speed of a whole training on this machine, for a run on a GPU: loader, augmentation and all parts of a step.

It trains the rows `1/vgg/previts` (ResNet-50) and `2/vgg/previts` (S3D-g), each on one process, on synthetic videos of
256 px. It prints:

- pairs per second, and the share of the device's peak operations (MFU);
- the stall: the share of the time in which the device waits for the loader;
- pairs per second of a second training that repeats one batch, so that no loader takes time or cores from it;
- the memory at the peak of a step, as measured and as `previts show ROW --cost` predicts it;
- the share of each phase of a step. On a GPU these are times between events of the GPU. A wait of the program that the
  GPU spends with work of earlier phases does not count. On a CPU these are CPU seconds of this process.

Run it by `make bench`, or alone: `python -m pytest tests/bench/test_training.py -m bench -s`. On a GPU the batch has
256 pairs in 16 groups. It is computed in as few parts as fit; `PREVITS_ACCUMULATE`, `PREVITS_WORKERS` and
`PREVITS_COMPILE` mean the same as for `previts pretrain`. `PREVITS_BENCH_TRAINING_BATCH`, `_GROUPS`, `_SIZE` (pixels)
and `_STEPS` change the sizes. Results are also written to `training-resnet50.json` and `training-s3dg.json` in the
folder `PREVITS_BENCH_OUT`. Losses that are not finite fail the benchmark, but no time does.
"""

import itertools
import math
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from long_videos import make_index, write_drifting
from training_steps import Size, device_name, keep, peak_operations, sized_experiment

from previts.config.experiment import Experiment
from previts.corpus.index_table import Index
from previts.pretraining import dry_run, loop
from previts.pretraining.dataset import Batch, PairDataset
from previts.pretraining.loader import default_workers, fitting_workers, load_batches
from previts.pretraining.monitor import peak_memory
from previts.pretraining.optim import build_optimizer
from previts.pretraining.schedule import Schedule
from previts.processes.conduct import ACCUMULATE, Conduct, read_conduct
from previts.processes.distributed import best_device

# `rounds` are timed steps. On a GPU, the steps before them use up what the loader has prepared in advance.
SIZES = {"cpu": Size(16, 2, 64, 2), "cuda": Size(256, 16, 224, 60)}
WARM_UP = {"cpu": 1, "cuda": 40}
WAIT, COPY, KEYS, QUERY, BACKWARD, UPDATE, QUEUE = (
    "wait for the loader", "copy and augment", "keys", "query", "backward", "optimiser", "queue",
)  # fmt: skip


class Phases:
    """The time of each phase of the steps: from its beginning to that of the next one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.begun: list[tuple[str, torch.cuda.Event | float]] = []

    def begin(self, name: str) -> None:
        if self.device.type == "cpu":
            self.begun.append((name, time.process_time()))
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self.begun.append((name, event))

    def seconds(self) -> Counter[str]:
        """Return the sums; the last phase that began has none."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        sums: Counter[str] = Counter()
        for (name, start), (_, end) in itertools.pairwise(self.begun):
            sums[name] += end - start if isinstance(start, float) else start.elapsed_time(end) / 1000
        return sums


class Training:
    """A model that takes steps as `loop.py` does, and the times of its phases."""

    def __init__(self, experiment: Experiment, device: torch.device, conduct: Conduct) -> None:
        torch.backends.cudnn.benchmark = True
        self.device = device
        self.model = loop.build_model(experiment, device).train()
        self.optimizer = build_optimizer(self.model.parameters(), experiment.optim)
        if conduct.compile:
            self.model.compile_encoders()
        self.parts = self.model.rows(experiment.optim.batch_size, conduct.accumulate)
        self.model.register_forward_pre_hook(lambda *_: self.phases.begin(QUERY))
        self.model.register_forward_hook(lambda *_: self.phases.begin(BACKWARD))
        self.optimizer.register_step_pre_hook(lambda *_: self.phases.begin(UPDATE))
        self.optimizer.register_step_post_hook(lambda *_: self.phases.begin(QUEUE))

    def run(self, batches: Iterator[Batch], steps: int, warm_up: int) -> Counter[str]:
        """Take steps, and return the seconds of each phase of those after the warm-up."""
        for number in range(warm_up + steps):
            if number in (0, warm_up):
                self.phases = Phases(self.device)
            self.phases.begin(WAIT)
            batch = next(batches)
            self.phases.begin(COPY)
            pairs = loop.prepare(batch, self.device)
            self.phases.begin(KEYS)
            metrics, _ = loop.take_step(self.model, self.model, self.optimizer, pairs=pairs, parts=self.parts)
            del pairs
        self.phases.begin(WAIT)
        seconds = self.phases.seconds()
        assert math.isfinite(float(metrics[0]))
        return seconds


def fitting_parts(experiment: Experiment, device: torch.device) -> int:
    """Return the least number of parts with which a step should fit on the device."""
    if device.type == "cpu":
        return 1
    room = torch.cuda.mem_get_info(device)[1] * (1 - dry_run.ALLOWANCE)
    groups = experiment.objective.batch_norm_groups
    possible = [parts for parts in dry_run.PARTS if groups % parts == 0]
    return next((n for n in possible if dry_run.step_memory(experiment, parts=n).peak <= room), possible[-1])


def measure(kind: str, size: Size, index: Index, workers: int | None = None) -> dict:
    """Train, print the figures, and return them."""
    device, warm_up = best_device(), WARM_UP[best_device().type]
    experiment = sized_experiment(kind, size)
    conduct = read_conduct(os.environ)
    if ACCUMULATE not in os.environ:
        conduct = replace(conduct, accumulate=fitting_parts(experiment, device))
    workers = next(n for n in (workers, conduct.workers, default_workers(device, 1)) if n is not None)
    workers = fitting_workers(experiment, workers, chosen=False)
    predicted = dry_run.step_memory(experiment, parts=conduct.accumulate).peak
    training = Training(experiment, device, conduct)
    dataset = PairDataset(index, experiment)
    schedule = Schedule(len(dataset), size.batch, warm_up + size.rounds, 0)
    batches = load_batches(dataset, schedule, 0, workers=workers, pin_memory=device.type == "cuda")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    phases = training.run(batches, size.rounds, warm_up)
    one = next(load_batches(dataset, schedule, 0, pin_memory=device.type == "cuda"))
    alone = training.run(itertools.repeat(one), size.rounds, 1).total()

    seconds, gflop = phases.total(), dry_run.operations(experiment) / 1e9
    rate, peak_rate = size.batch * size.rounds / seconds, peak_operations(device)
    figures = {
        "kind": kind, "device": device_name(device), "torch": torch.__version__, "workers": workers, **vars(size),
        "accumulate": conduct.accumulate, "compile": conduct.compile,
        "pairs/s": rate, "GFLOP a pair": gflop, "TFLOP/s": rate * gflop / 1e3,
        "mfu": rate * gflop * 1e9 / peak_rate if peak_rate else None,
        "stall": phases[WAIT] / seconds, "pairs/s of one batch": size.batch * size.rounds / alone,
        "peak_gib": peak_memory() / 2**30, "predicted_gib": predicted / 2**30,
        "phases": {name: value / seconds for name, value in phases.items()},
    }  # fmt: skip
    mfu = "unknown" if peak_rate is None else f"{figures['mfu']:.1%}"
    print(
        f"\n{kind}, {figures['device']}, torch {torch.__version__}: {size.batch} pairs a step in {conduct.accumulate}"
    )
    print(f"parts, {size.pixels} px, {workers} loader workers, {size.rounds} steps")
    print(f"{rate:.1f} pairs/s, {figures['TFLOP/s']:.2f} TFLOP/s, MFU {mfu}, stall {figures['stall']:.1%}")
    print(f"with one batch repeated: {figures['pairs/s of one batch']:.1f} pairs/s")
    print(f"memory at peak {figures['peak_gib']:.2f} GiB, predicted for a GPU {figures['predicted_gib']:.2f} GiB")
    for name, share in figures["phases"].items():
        print(f"  {name:22}{share:8.1%}{1e3 * share * seconds / size.rounds:12.1f} ms a step")
    keep(f"training-{kind}", figures)
    return figures


def make_videos(folder: Path, videos: int, height: int, frames: int) -> Index:
    sources = [folder / f"v{number:03d}.mp4" for number in range(videos)]
    for number, path in enumerate(sources):
        write_drifting(path, number, height, frames)
    return make_index(folder, sources, frames)[0]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return make_videos(tmp_path_factory.mktemp("training"), 12, 256, 150)


@pytest.mark.bench
@pytest.mark.parametrize("kind", ["resnet50", "s3dg"])
def test_the_speed_of_a_training(kind: str, index: Index):
    size = SIZES[best_device().type]
    names = {"batch": "BATCH", "groups": "GROUPS", "pixels": "SIZE", "rounds": "STEPS"}
    asked = {field: os.environ.get(f"PREVITS_BENCH_TRAINING_{name}") for field, name in names.items()}
    measure(kind, replace(size, **{field: int(value) for field, value in asked.items() if value}), index)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resnet50", "s3dg"])
def test_the_benchmark_runs(kind: str, tmp_path: Path):
    figures = measure(kind, Size(4, 2, 32, 1), make_videos(tmp_path, 2, 64, 40), workers=0)
    assert list(figures["phases"]) == [WAIT, COPY, KEYS, QUERY, BACKWARD, UPDATE, QUEUE]
    assert sum(figures["phases"].values()) == pytest.approx(1)
    assert min(figures["phases"].values()) > 0
    assert figures["pairs/s"] > 0
