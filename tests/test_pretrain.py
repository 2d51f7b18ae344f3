import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from moving_squares import make_index, small_experiment
from torch.nn.parallel import DistributedDataParallel

from previts import checkpoint, dataset, distributed, pretrain
from previts.errors import InputError
from previts.moco import FIGURES, MoCo, Pairs
from previts.optim import build_optimizer

CPU = torch.device("cpu")
EVERY_STEP = pretrain.Conduct(workers=0, log_steps=1)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return make_index(tmp_path_factory.mktemp("corpus"), 10)


def state(folder, step):
    return torch.load(folder / f"step-{step:08d}.pt", weights_only=True)


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_equal_states(one, other):
    assert one["model"].keys() == other["model"].keys()
    for name, value in one["model"].items():
        assert torch.equal(value, other["model"][name]), name
    momenta = [[s["momentum_buffer"] for s in state["optimizer"]["state"].values()] for state in (one, other)]
    assert momenta[0]
    assert all(torch.equal(*both) for both in zip(*momenta, strict=True))


class Figures:
    """A figure log that remembers."""

    def __init__(self):
        self.seen = []

    def metrics(self, values, step):
        self.seen.append((step, values))


def test_two_steps_and_a_resume_are_four_straight(index, tmp_path):
    experiment = small_experiment()
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    figures = Figures()
    pretrain.train(experiment, index, str(straight), device=CPU, conduct=EVERY_STEP)
    pretrain.train(experiment, index, str(halves), device=CPU, conduct=replace(EVERY_STEP, stop_after=2))
    assert checkpoint.steps(str(halves)) == [2]
    # what a killed run wrote after its last state is not believed
    with (halves / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "loss": 99.0}) + "\n")
    summary = pretrain.train(experiment, index, str(halves), device=CPU, conduct=EVERY_STEP, run=figures)
    assert_equal_states(state(straight, 4), state(halves, 4))
    timeless = [
        [{k: v for k, v in line.items() if k not in ("pairs_per_second", "data_wait")} for line in log(f)]
        for f in (straight, halves)
    ]
    assert timeless[0] == timeless[1]
    assert [line["step"] for line in log(halves)] == [1, 2, 3, 4]
    assert [step for step, _ in figures.seen] == [3, 4]
    assert figures.seen[-1][1]["loss"] == log(halves)[-1]["loss"] == summary["loss"]
    assert (summary["steps"], summary["pairs"], summary["videos"]) == (4, 32, 10)


def test_a_finished_run_is_not_repeated(index, tmp_path):
    experiment = small_experiment(epochs=1)
    first = pretrain.train(experiment, index, str(tmp_path), device=CPU, conduct=EVERY_STEP)
    checkpoint.finish(str(tmp_path), experiment)
    written = (tmp_path / "model.pt").stat().st_mtime_ns
    again = pretrain.train(experiment, index, str(tmp_path), device=CPU, conduct=EVERY_STEP)
    assert again == first
    assert (tmp_path / "model.pt").stat().st_mtime_ns == written


def test_the_log_has_every_figure(index, tmp_path):
    pretrain.train(small_experiment(epochs=1), index, str(tmp_path), device=CPU, conduct=EVERY_STEP)
    (line,) = log(tmp_path)
    assert set(line) == {
        *("step", "epoch", "lr", "loss", "loss_contrastive", "loss_attention"),
        *("positive_similarity", "attention_iou", "pairs_per_second", "data_wait"),
    }
    assert line["loss"] == pytest.approx(line["loss_contrastive"] + 3 * line["loss_attention"], abs=1e-4)


def test_the_loss_falls_on_one_batch(index):
    experiment = small_experiment(lr=0.01)
    torch.manual_seed(0)
    model = MoCo(experiment).train()
    model.queue.copy_(model.embed_keys(torch.randn(50, 3, 64, 64)))
    optimizer = build_optimizer(model.parameters(), experiment.optim)
    plan = dataset.Schedule(10, 8, 1, 0)
    batch = next(dataset.batches(dataset.PairDataset(index, experiment), plan, 0))
    pairs = pretrain.prepare(batch, CPU)
    figures = []
    for _ in range(16):
        step = model(pairs)
        step.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        figures.append(dict(zip(FIGURES, step.figures.tolist(), strict=True)))  # the queue stays: the same task anew

    def last(name):
        return sum(figure[name] for figure in figures[-4:]) / 4

    assert last("loss_contrastive") < 0.1 * figures[0]["loss_contrastive"]
    assert last("loss_attention") < 0.6 * figures[0]["loss_attention"]


def test_a_loss_that_is_not_finite_names_step_and_videos(index, tmp_path):
    experiment = small_experiment(lr=1e30)
    with pytest.raises(FloatingPointError, match=r"the loss of step [234] is (nan|inf).*v00\d, v00\d"):
        pretrain.train(experiment, index, str(tmp_path), device=CPU, conduct=EVERY_STEP)
    assert checkpoint.steps(str(tmp_path)) == []


def test_states_are_saved_by_time(index, tmp_path):
    conduct = replace(EVERY_STEP, checkpoint_seconds=0.0, stop_after=3)
    pretrain.train(small_experiment(), index, str(tmp_path), device=CPU, conduct=conduct)
    assert checkpoint.steps(str(tmp_path)) == [2, 3]


def test_processes_must_divide_the_groups():
    with pytest.raises(InputError, match=r"batch_norm_groups = 2 .*processes, 3"):
        small_experiment().check_processes(3)


TRAIN = """
from previts import records
from previts.index import Index, IndexRecord

folder, uri = sys.argv[2:]
table = records.read_table(folder + "/index/index.parquet", IndexRecord)
index = Index(folder + "/index", folder + "/videos", folder + "/tubes", table)
with distributed.process_group():
    pretrain.train(small_experiment(epochs=500), index, uri, device=torch.device("cpu"), conduct=CONDUCT)
"""

# Float64, so that three steps of training do not blow rounding up to something that could hide a fault.
COMPARE = """
from test_pretrain import three_steps

with distributed.process_group():
    three_steps(sys.argv[2])
"""


def start(program, *arguments, **environment):
    head = """
import sys, torch
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
from moving_squares import small_experiment
from previts import distributed, pretrain
CONDUCT = pretrain.Conduct(workers=0, log_steps=1, stop_after=STOP)
"""
    head = head.replace("STOP", environment.pop("STOP", "None"))
    return subprocess.Popen(
        [sys.executable, "-c", head + program, str(Path(__file__).parent), *map(str, arguments)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(program, *arguments, **environment):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", **environment}
    return [start(program, *arguments, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]


def three_steps(path):
    """Train three steps on fixed pairs, this process on its share of the rows; the main one writes what came out."""
    torch.manual_seed(0)
    model = MoCo(small_experiment()).double().train()
    optimizer = build_optimizer(model.parameters(), model.experiment.optim)
    learner = model if distributed.world_size() == 1 else DistributedDataParallel(model, broadcast_buffers=False)
    share = 8 // distributed.world_size()
    rows = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    generator, losses = torch.Generator().manual_seed(1), []
    for _ in range(3):
        images = torch.randn(2, 8, 3, 64, 64, generator=generator, dtype=torch.float64)
        masks = torch.rand(2, 8, 64, 64, generator=generator) > 0.7
        flags = torch.rand(4, 8, generator=generator) > 0.2
        order = torch.randperm(8, generator=generator)
        query = (images[0], masks[0], flags[0], flags[1])
        key = (images[1][order], masks[1][order], flags[2][order], flags[3][order])
        step = learner(Pairs(*(part[rows] for part in (*query, *key)), order))
        step.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.enqueue(step.keys)
        figures = step.figures.clone()
        distributed.average_([figures])
        losses.append(figures)
    model.average_statistics()
    if distributed.is_main():
        torch.save({"figures": torch.stack(losses), **model.state_dict()}, path)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    two = start_two(COMPARE, tmp_path / "two.pt")
    three_steps(tmp_path / "one.pt")
    for process in two:
        assert process.wait(120) == 0, process.stderr.read()
    one, other = (torch.load(tmp_path / name, weights_only=True) for name in ("one.pt", "two.pt"))
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_as_one(index, tmp_path):
    two = start_two(TRAIN, Path(index.uri).parent, tmp_path, STOP="2")
    for process in two:
        assert process.wait(120) == 0, process.stderr.read()
    conduct = replace(EVERY_STEP, stop_after=1)
    pretrain.train(small_experiment(epochs=500), index, str(tmp_path / "one"), device=CPU, conduct=conduct)
    pretrain.train(small_experiment(epochs=500), index, str(tmp_path), device=CPU, conduct=conduct)
    lines = log(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3]
    # the same first batch and weights: only rounding apart
    for name in ("loss", "loss_contrastive", "loss_attention", "positive_similarity", "attention_iou"):
        assert lines[0][name] == pytest.approx(log(tmp_path / "one")[0][name], abs=1e-5), name


@pytest.mark.slow
def test_sigterm_finishes_the_step_saves_and_exits_143(index, tmp_path):
    process = start(TRAIN, Path(index.uri).parent, tmp_path)
    deadline = time.monotonic() + 60
    # the first line of the log is only written with a state; the bar tells that the loop has begun
    for line in process.stderr:
        if "pretrain" in line or time.monotonic() > deadline:
            break
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    (saved,) = checkpoint.steps(str(tmp_path))
    assert 0 < saved < 500
    assert [line["step"] for line in log(tmp_path)] == list(range(1, saved + 1))
