"""Throughput of several training processes compared with one, at the same batch for each process (weak scaling).

Each process trains the paper's model on synthetic tensors as `loop.py` does: its keys are gathered from all processes,
DistributedDataParallel averages the gradients. There is no loader. Numbers of processes alternate. Each number is also
measured with processes that exchange nothing. What those lose against one process is due to the machine (shared cores,
memory, heat). What the joined ones lose against them is the cost of the exchange. Times are wall seconds of a step,
medians over steps, then over rounds.

On GPUs there is a process on each of 1, 2, 4, ... and all GPUs; on a CPU there are 1 and 2 processes of one thread. Run
it by `make bench`, or alone: `python -m pytest tests/bench/test_ddp.py -m bench -s`. `PREVITS_BENCH_DDP_PROCESSES`
(such as "1 2 4"), `_BATCH` (of a process), `_SIZE` (pixels), `_STEPS` and `_ROUNDS` change the sizes. Results are also
written to `ddp-resnet50.json` and `ddp-s3dg.json` in the folder `PREVITS_BENCH_OUT`. The benchmark fails only if a loss
is not finite.
"""

import json
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from training_steps import PAPER, Size, keep, sized_experiment, synthetic_pairs

from previts.pretraining import loop
from previts.pretraining.optim import build_optimizer
from previts.processes import distributed

GROUP = 16  # clips of a batch-norm group, as on each of the paper's GPUs
# Batch of a process, pixels, timed steps of a start, rounds.
SIZES = {
    ("cpu", "resnet50"): (16, 64, 4, 3),
    ("cpu", "s3dg"): (16, 64, 3, 2),
    ("cuda", "resnet50"): (64, 224, 30, 3),
    ("cuda", "s3dg"): (16, 224, 20, 3),
}
WARM_UP = {"cpu": 1, "cuda": 10}


def work(kind: str, batch: int, pixels: int, steps: int, together: int, folder: Path) -> None:
    """Take steps as one of the processes, start together with the others, and write the times."""
    with distributed.process_group() as device:
        processes = distributed.world_size()
        group = min(GROUP, batch)
        size = Size(batch * processes, batch // group * processes, pixels, 1)
        experiment = sized_experiment(kind, size)
        model = loop.build_model(experiment, device)
        optimizer = build_optimizer(model.parameters(), experiment.optim)
        learner = distributed.shared(model.train())
        order = torch.randperm(size.batch, generator=torch.Generator().manual_seed(0)).to(device)
        pairs = synthetic_pairs(experiment, device, batch=batch, order=order)
        loss = torch.zeros(())

        def step() -> float:
            nonlocal loss
            begun = time.perf_counter()
            keys = model.encode_keys(pairs)
            loss = learner(pairs.query, keys).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            model.enqueue(keys)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return time.perf_counter() - begun

        for _ in range(WARM_UP[device.type]):
            step()
        name = os.environ["LOCAL_RANK"]
        (folder / f"ready-{name}").touch()
        while len(list(folder.glob("ready-*"))) < together:
            time.sleep(0.01)
        taken = [step() for _ in range(steps)]
        (folder / f"taken-{name}.json").write_text(json.dumps({"seconds": taken, "loss": float(loss.detach())}))


def seconds_of(arguments: list[str], processes: int, joined: bool, folder: Path) -> float:
    """Start processes and return the median over the steps of all of them."""
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    places = [
        str(Path(__file__).parents[2]),
        str(Path(__file__).parents[1] / "support"),
        environment.get("PYTHONPATH", ""),
    ]
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, places))}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    started = []
    for rank in range(processes):
        own = {"LOCAL_RANK": str(rank)}
        if joined:
            own |= {**shared, "RANK": str(rank), "WORLD_SIZE": str(processes)}
        command = [sys.executable, __file__, *arguments, str(processes), str(folder)]
        started.append(subprocess.Popen(command, env=environment | own, stderr=subprocess.PIPE, text=True))
    try:
        for process in started:
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors
    finally:
        for process in started:
            process.kill()
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("taken-*.json"))]
    assert len(results) == processes
    assert all(math.isfinite(result["loss"]) for result in results), results
    return float(np.median([result["seconds"] for result in results]))


def counts() -> list[int]:
    if asked := os.environ.get("PREVITS_BENCH_DDP_PROCESSES"):
        return [int(count) for count in asked.split()]
    gpus = torch.cuda.device_count()
    return sorted({*(2**n for n in range(gpus.bit_length())), gpus}) if gpus else [1, 2]


@pytest.mark.bench
@pytest.mark.parametrize("kind", ["resnet50", "s3dg"])
def test_processes_together(kind: str, tmp_path: Path):
    place = "cuda" if torch.cuda.is_available() else "cpu"
    names = ("BATCH", "SIZE", "STEPS", "ROUNDS")
    batch, pixels, steps, rounds = (
        int(os.environ.get(f"PREVITS_BENCH_DDP_{name}") or value)
        for name, value in zip(names, SIZES[place, kind], strict=True)
    )
    ways = [(1, False), *((count, joined) for count in counts() if count > 1 for joined in (True, False))]
    measured: dict[tuple[int, bool], list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways[:: -1 if number % 2 else 1]:
            folder = tmp_path / f"{number}-{way[0]}-{way[1]}"
            measured[way].append(seconds_of([kind, str(batch), str(pixels), str(steps)], *way, folder))

    one = np.array(measured[1, False])
    rows = {}
    for (count, joined), row in measured.items():
        taken = np.array(row)
        line = {"seconds": float(np.median(taken)), "pairs/s": count * batch / float(np.median(taken))}
        line["efficiency"] = float(np.median(one / taken))
        if joined:
            line["to_apart"] = float(np.median(np.array(measured[count, False]) / taken))
        rows["1" if count == 1 else f"{count} {'joined' if joined else 'apart'}"] = line
    frames, device = PAPER[kind].sampling.clip_frames, torch.cuda.get_device_name() if place == "cuda" else "CPU"
    print(f"\n{kind}, {device}: {batch} pairs a process of {frames} x {pixels} x {pixels}, {rounds} rounds of {steps}")
    print("steps. Efficiency: throughput per process over that of one alone; to_apart: over that of processes apart")
    note = ""
    if place == "cpu":
        note = "two CPUs may be hardware threads of one core: the efficiency of processes apart is then the upper limit"
        print(note)
    columns = ("seconds", "pairs/s", "efficiency", "to_apart")
    print(f"{'processes':12}" + "".join(f"{column:>12}" for column in columns))
    for name, line in rows.items():
        print(f"{name:12}" + "".join(f"{line.get(column, float('nan')):12.3f}" for column in columns))
    head = {"kind": kind, "device": device, "note": note, "batch": batch, "frames": frames, "pixels": pixels}
    keep(f"ddp-{kind}", {**head, "steps": steps, "rounds": rounds, "processes": rows})


if __name__ == "__main__":
    work(sys.argv[1], *map(int, sys.argv[2:6]), Path(sys.argv[6]))
