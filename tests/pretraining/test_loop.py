import functools
import json
import os
import random
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import moving_squares
import pytest
import torch
from forked_processes import Forks
from moving_squares import small_experiment, small_video_experiment
from torch.nn.parallel import DistributedDataParallel
from training_runs import Recorder, Stop, log

from previts.errors import InputError
from previts.models.moco import Clips, MoCo, Pairs, metric_names
from previts.pretraining import checkpoint, dataset, loader, loop
from previts.pretraining.optim import build_optimizer
from previts.pretraining.schedule import Schedule
from previts.processes import distributed
from previts.processes.conduct import Conduct

CPU = torch.device("cpu")
HERE = Conduct(workers=0)


def state(folder, step):
    return torch.load(folder / f"step-{step:08d}.pt", weights_only=True)


def assert_equal_states(one, other):
    assert one["model"].keys() == other["model"].keys()
    for name, value in one["model"].items():
        assert torch.equal(value, other["model"][name]), name
    momenta = [[s["momentum_buffer"] for s in state["optimizer"]["state"].values()] for state in (one, other)]
    assert momenta[0]
    assert all(torch.equal(*both) for both in zip(*momenta, strict=True))


@pytest.mark.parametrize("make", [small_experiment, small_video_experiment])
def test_two_steps_and_a_resume_equal_four_straight_steps(index, tmp_path, make):
    experiment = make()
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    recorder = Recorder()
    loop.run_pretraining(experiment, index, str(straight), device=CPU, conduct=HERE)
    with pytest.raises(SystemExit):
        loop.run_pretraining(experiment, index, str(halves), device=CPU, conduct=HERE, run=Stop(2))
    assert checkpoint.steps(str(halves)) == [2]
    # lines that a killed run wrote after its last state are dropped
    with (halves / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "loss": 99.0}) + "\n")
    summary = loop.run_pretraining(experiment, index, str(halves), device=CPU, conduct=HERE, run=recorder)
    assert_equal_states(state(straight, 4), state(halves, 4))
    timeless = [
        [{k: v for k, v in line.items() if k not in ("pairs_per_second", "data_wait", "memory_gib")} for line in log(f)]
        for f in (straight, halves)
    ]
    assert timeless[0] == timeless[1]
    assert [line["step"] for line in log(halves)] == [1, 2, 3, 4]
    assert [step for step, _ in recorder.lines] == [3, 4]
    assert recorder.lines[-1][1]["loss"] == log(halves)[-1]["loss"] == summary["loss"]
    assert (summary["steps"], summary["pairs"], summary["videos"]) == (4, 32, 10)


def test_a_finished_run_is_not_repeated(index, tmp_path):
    experiment = small_experiment(epochs=1)
    first = loop.run_pretraining(experiment, index, str(tmp_path), device=CPU, conduct=HERE)
    checkpoint.finish(str(tmp_path), experiment)
    written = (tmp_path / "model.pt").stat().st_mtime_ns
    again = loop.run_pretraining(experiment, index, str(tmp_path), device=CPU, conduct=HERE)
    assert again == first
    assert (tmp_path / "model.pt").stat().st_mtime_ns == written


@pytest.mark.parametrize("make", [small_experiment, small_video_experiment])
def test_a_batch_in_parts_trains_like_the_whole_batch(index, tmp_path, make):
    for parts in (1, 2):
        conduct = replace(HERE, accumulate=parts)
        loop.run_pretraining(make(lr=1e-6, epochs=2), index, str(tmp_path / str(parts)), device=CPU, conduct=conduct)
    one, two = log(tmp_path / "1"), log(tmp_path / "2")
    for name in metric_names(make().objective):
        assert [line[name] for line in one] == pytest.approx([line[name] for line in two], abs=2e-3), name


def test_gradients_are_clipped_to_a_norm(index, tmp_path):
    moved = {}
    for norm in (0.0, 1e-3):
        folder = tmp_path / str(norm)
        experiment = small_experiment(clip_norm=norm, weight_decay=0.0, epochs=1)
        loop.run_pretraining(experiment, index, str(folder), device=CPU, conduct=HERE)
        after, start = state(folder, 1)["model"], loop.build_model(experiment, CPU).state_dict()
        names = [name for name in start if name.startswith(("encoder_q", "head_q")) and "running" not in name]
        change = torch.cat([(after[name] - start[name]).flatten() for name in names if "num_batches" not in name])
        moved[norm] = change.norm().item()
    # The first step of SGD is the rate times the gradient.
    assert moved[1e-3] == pytest.approx(0.03 * 1e-3, rel=1e-2)
    assert moved[0.0] > 10 * moved[1e-3]


def test_training_starts_from_given_weights(index, tmp_path):
    experiment = small_experiment(epochs=1)
    loop.run_pretraining(experiment, index, str(tmp_path / "first"), device=CPU, conduct=HERE)
    checkpoint.finish(str(tmp_path / "first"), experiment)
    weights = str(tmp_path / "first" / "encoder.pt")
    warm = replace(
        experiment, model=replace(experiment.model, weights=weights), optim=replace(experiment.optim, lr=1e-9)
    )
    loop.run_pretraining(warm, index, str(tmp_path / "warm"), device=CPU, conduct=HERE)
    after, given = state(tmp_path / "warm", 1)["model"], torch.load(weights, weights_only=True)
    for name, value in given.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(after[f"encoder_q.{name}"], value, rtol=0, atol=1e-6)


def test_the_loss_falls_on_one_batch(index):
    experiment = small_experiment(lr=0.01)
    torch.manual_seed(0)
    model = MoCo(experiment).train()
    optimizer = build_optimizer(model.parameters(), experiment.optim)
    plan = Schedule(10, 8, 1, 0)
    batch = next(loader.load_batches(dataset.PairDataset(index, experiment), plan, 0))
    pairs = loop.prepare(batch, CPU)
    metrics = []
    names = metric_names(experiment.objective)
    for _ in range(16):
        step = model(pairs.query, model.encode_keys(pairs))
        step.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        # The queue does not change, so the task is the same.
        metrics.append(dict(zip(names, step.metrics.tolist(), strict=True)))

    def last(name):
        return sum(line[name] for line in metrics[-4:]) / 4

    assert last("loss_contrastive") < 0.1 * metrics[0]["loss_contrastive"]
    assert last("loss_attention") < 0.6 * metrics[0]["loss_attention"]


def test_a_loss_that_is_not_finite_names_step_and_videos(index, tmp_path):
    experiment = small_experiment(lr=1e30)
    with pytest.raises(FloatingPointError, match=r"the loss of step [234] is (nan|inf).*v00\d, v00\d"):
        loop.run_pretraining(experiment, index, str(tmp_path), device=CPU, conduct=HERE)
    assert checkpoint.steps(str(tmp_path)) == []


def test_states_are_saved_by_time(index, tmp_path):
    conduct = replace(HERE, checkpoint_seconds=0.0)
    loop.run_pretraining(small_experiment(epochs=3), index, str(tmp_path), device=CPU, conduct=conduct)
    assert checkpoint.steps(str(tmp_path)) == [2, 3]


def test_processes_must_divide_the_groups():
    with pytest.raises(InputError, match=r"batch_norm_groups = 2 .*processes, 3"):
        small_experiment().check_processes(3)


TRAIN = """
from previts.corpus.index_table import Crawl, Index, IndexRecord
from previts.storage import tables

kind, folder, uri = sys.argv[1:]
table = tables.read_table(folder + "/index/index.parquet", IndexRecord)
index = Index(folder + "/index", (Crawl(folder + "/videos", folder + "/tubes"),), table)
with distributed.process_group():
    experiment = getattr(moving_squares, kind)(epochs=EPOCHS)
    run = Stop(STOP) if STOP and distributed.is_main() else None
    conduct = Conduct(workers=WORKERS, checkpoint_seconds=SAVE)
    loop.run_pretraining(experiment, index, uri, device=torch.device("cpu"), conduct=conduct, run=run)
"""

# Float64, because three steps of training in float32 would amplify rounding so far that it could hide a fault.
COMPARE = """
with distributed.process_group():
    test_loop.three_steps(*sys.argv[1:])
"""


# Of runs of up to 399 steps every step has its line in the log.
DEFAULTS = (("EPOCHS", "399"), ("SAVE", "600"), ("STOP", "0"), ("WORKERS", "0"))


PATHS = [str(Path(__file__).parent), str(Path(moving_squares.__file__).parent)]
HEAD = """
import sys
import torch
torch.set_num_threads(1)
import moving_squares, test_loop
from training_runs import Stop
from previts.pretraining import loop
from previts.processes import distributed
from previts.processes.conduct import Conduct
EPOCHS, SAVE, STOP, WORKERS = EVERY
"""


@functools.cache
def forks():
    return Forks(PATHS, ["test_loop"])


def start(program, *arguments, **environment):
    head = HEAD.replace("EVERY", ", ".join(environment.pop(*both) for both in DEFAULTS))
    return forks().start(head + program, *arguments, **{"CUDA_VISIBLE_DEVICES": "", **environment})


def start_several(processes, program, *arguments, **environment):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
    shared |= environment
    return [start(program, *arguments, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(processes)]


def four_groups(kind):
    # Smaller steps on clips: with their small maps, rounding grows a thousandfold in a step of 0.03.
    experiment = small_experiment() if kind == "image" else small_video_experiment(lr=0.003)
    return replace(experiment, objective=replace(experiment.objective, batch_norm_groups=4))


def three_steps(kind, path):
    """Train three steps on fixed pairs, this process on its share of the rows; the main process writes the result."""
    torch.manual_seed(0)
    model = MoCo(four_groups(kind)).double().train()
    optimizer = build_optimizer(model.parameters(), model.experiment.optim)
    learner = model if distributed.world_size() == 1 else DistributedDataParallel(model, broadcast_buffers=False)
    share, frames = 8 // distributed.world_size(), model.experiment.sampling.clip_frames
    rows = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    generator, losses = torch.Generator().manual_seed(1), []
    for _ in range(3):
        images = torch.randn(3, 8, 3, frames, 64, 64, generator=generator, dtype=torch.float64)
        masks = torch.rand(3, 8, frames, 64, 64, generator=generator) > 0.7
        flags = torch.rand(6, 8, generator=generator) > 0.2
        order = torch.randperm(8, generator=generator)
        query = Clips(*(part[rows] for part in (images[0], masks[0], flags[0], flags[1])))
        key, other = (
            Clips(*(part[order][rows] for part in (images[n], masks[n], flags[2 * n], flags[2 * n + 1])))
            for n in (1, 2)
        )
        batch = Pairs(query, key, other if kind == "video" else None, order)
        keys = model.encode_keys(batch)
        step = learner(query, keys)
        step.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.enqueue(keys)
        metrics = step.metrics.clone()
        distributed.average_([metrics])
        losses.append(metrics)
    model.average_statistics()
    if distributed.is_main():
        torch.save({"metrics": torch.stack(losses), **model.state_dict()}, path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "processes"), [pytest.param("image", 2, marks=pytest.mark.long), ("image", 4), ("video", 2)]
)
def test_several_processes_train_as_one(tmp_path, kind, processes):
    several = start_several(processes, COMPARE, kind, tmp_path / "several.pt")
    three_steps(kind, tmp_path / "one.pt")
    for process in several:
        assert process.wait(180) == 0, process.stderr.read()
    one, other = (torch.load(tmp_path / name, weights_only=True) for name in ("one.pt", "several.pt"))
    assert one.keys() == other.keys()
    # Exact in the first step; rounding grows in each later one, on clips two hundredfold.
    torch.testing.assert_close(one["metrics"][0], other["metrics"][0], rtol=1e-12, atol=1e-13)
    rtol, atol = (1e-9, 1e-11) if kind == "image" else (1e-6, 1e-8)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=rtol, atol=atol, msg=name)


@pytest.mark.slow
def test_a_run_of_two_processes_resumes_on_one(index, tmp_path):
    two = start_several(2, TRAIN, "small_experiment", Path(index.uri).parent, tmp_path, STOP="2")
    for process in two:
        assert process.wait(120) == distributed.TERMINATED, process.stderr.read()
    assert checkpoint.steps(str(tmp_path)) == [2]
    for folder in (tmp_path / "one", tmp_path):
        with pytest.raises(SystemExit):
            loop.run_pretraining(
                small_experiment(epochs=399), index, str(folder), device=CPU, conduct=HERE, run=Stop(2)
            )
    lines = log(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    # The first batch and the weights are the same to the bit. Only rounding differs; batch normalisation of 4 rows
    # amplifies it.
    for name in ("loss", "loss_contrastive", "loss_attention", "positive_similarity", "attention_iou"):
        assert lines[0][name] == pytest.approx(log(tmp_path / "one")[0][name], abs=1e-4), name


@pytest.mark.slow
def test_sigterm_finishes_the_step_saves_and_exits_143(index, tmp_path):
    process = start(TRAIN, "small_experiment", Path(index.uri).parent, tmp_path)
    deadline = time.monotonic() + 60
    # the first line of the log is only written with a state; the progress bar shows that the loop has started
    for line in process.stderr:
        if "pretrain" in line or time.monotonic() > deadline:
            break
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    (saved,) = checkpoint.steps(str(tmp_path))
    assert 0 < saved < 399
    assert [line["step"] for line in log(tmp_path)] == list(range(1, saved + 1))


@pytest.mark.slow
def test_sigterm_to_the_whole_group_finishes_the_step_that_needs_a_worker(index, tmp_path):
    process = start(TRAIN, "small_experiment", Path(index.uri).parent, tmp_path, WORKERS="1")
    for line in process.stderr:
        if "pretrain" in line:
            break
    time.sleep(2.0)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 143, process.stderr.read()
    assert len(checkpoint.steps(str(tmp_path))) == 1


# Number of kills in the next test; ten are on request only.
KILLS = int(os.environ.get("PREVITS_KILLS", "2"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "processes"),
    [
        ("small_experiment", 2),
        ("small_video_experiment", 1),
        pytest.param("small_experiment", 1, marks=pytest.mark.long),
        pytest.param("small_video_experiment", 2, marks=pytest.mark.long),
    ],
)
def test_a_run_that_is_killed_several_times_ends_in_the_same_state(index, tmp_path, kind, processes):
    folder, chance = Path(index.uri).parent, random.Random(f"{kind} {processes}")
    steps = 8 if KILLS < 10 else 40
    arguments = (processes, TRAIN, kind, folder)
    straight = start_several(*arguments, tmp_path / "straight", EPOCHS=str(steps))
    for process in straight:
        assert process.wait(300) == 0, process.stderr.read()
    killed = 0
    while killed < KILLS:
        run = start_several(*arguments, tmp_path / "killed", EPOCHS=str(steps), SAVE="0")
        before = max(checkpoint.steps(str(tmp_path / "killed")), default=0)
        wanted = before + chance.randint(1, max(1, (steps - before) // max(1, KILLS - killed)))
        while max(checkpoint.steps(str(tmp_path / "killed")), default=0) < min(wanted, steps - 1):
            time.sleep(0.02)
            if run[0].poll() is not None:
                break
        time.sleep(chance.random() * 0.3)  # anywhere in a step, or in the writing of its state
        for process in run:
            process.kill()
        for process in run:
            process.wait(60)
        killed += 1
    run = start_several(*arguments, tmp_path / "killed", EPOCHS=str(steps))
    for process in run:
        assert process.wait(300) == 0, process.stderr.read()
    assert_equal_states(state(tmp_path / "straight", steps), state(tmp_path / "killed", steps))
    assert [line["step"] for line in log(tmp_path / "killed")] == list(range(1, steps + 1))
