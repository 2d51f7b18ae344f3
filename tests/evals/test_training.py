"""Oracles: permutations, the same loop written out, and the same training without an interruption."""

import os
import signal
from itertools import count, islice, repeat
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from previts.evals import training


@pytest.mark.parametrize(("count", "batch_size"), [(10, 3), (9, 3), (2, 5)])
def test_every_epoch_has_each_item_once_in_its_own_order(count: int, batch_size: int):
    steps = training.steps_an_epoch(count, batch_size)
    assert steps == -(-count // batch_size)
    taken = list(islice(training.shares(count, batch_size, 7, 0), 3 * steps))
    assert [epoch for epoch, _ in taken] == [epoch for epoch in range(3) for _ in range(steps)]
    epochs = [[item for epoch, chosen in taken if epoch == number for item in chosen] for number in range(3)]
    assert all(sorted(items) == list(range(count)) for items in epochs)
    assert count < 9 or len(set(map(tuple, epochs))) == 3
    for first in range(3 * steps):
        assert next(training.shares(count, batch_size, 7, first)) == taken[first]


INPUTS, TARGETS = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0)), torch.arange(24.0).reshape(6, 4, 1)


def small_training(folder: str, *, steps: int = 6, stop: int | None = None) -> nn.Linear:
    """Train a linear layer on one batch per step; SIGTERM comes while the batch of step `stop` is loaded."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 1)

    def batches(first: int):
        for step in range(first, steps):
            if step == stop:
                os.kill(os.getpid(), signal.SIGTERM)
            yield INPUTS[step], TARGETS[step]

    training.run_steps(
        layer,
        torch.optim.SGD(layer.parameters(), lr=1.0, momentum=0.9),
        steps=steps,
        batches=batches,
        loss_of=lambda learner, batch: F.mse_loss(learner(batch[0]), batch[1]),
        rate_at=lambda step: 0.01 / (step + 1),
        folder=folder,
        what="test",
    )
    return layer


def test_steps_equal_the_same_loop_written_out():
    torch.manual_seed(0)
    oracle = nn.Linear(3, 1)
    velocity = [torch.zeros_like(parameter) for parameter in oracle.parameters()]
    for step in range(6):
        loss = ((oracle(INPUTS[step]) - TARGETS[step]) ** 2).mean()
        gradients = torch.autograd.grad(loss, list(oracle.parameters()))
        velocity = [0.9 * old + new for old, new in zip(velocity, gradients, strict=True)]
        with torch.no_grad():
            for parameter, change in zip(oracle.parameters(), velocity, strict=True):
                parameter -= 0.01 / (step + 1) * change
    torch.testing.assert_close(small_training("").state_dict(), oracle.state_dict())


def test_a_stopped_training_resumes_with_the_next_step_and_a_finished_one_is_not_repeated(tmp_path: Path):
    straight = small_training("").state_dict()
    with pytest.raises(SystemExit) as stopped:
        small_training(str(tmp_path), stop=3)
    assert stopped.value.code == 143
    assert training.states_of(str(tmp_path)).numbers() == [4]
    for _ in range(2):
        torch.testing.assert_close(small_training(str(tmp_path)).state_dict(), straight, rtol=0, atol=0)
        assert training.states_of(str(tmp_path)).numbers() == [6]


def test_the_environment_sets_the_time_between_two_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PREVITS_CHECKPOINT_SECONDS", "1")
    clock = count(0.0, 0.4)  # each look at the clock is 0.4 s after the last one
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    steps: list[list[int]] = []

    def batches(first: int):
        for step in range(first, 6):
            steps.append(training.states_of(str(tmp_path)).numbers())
            yield INPUTS[step], TARGETS[step]

    layer = nn.Linear(3, 1)
    training.run_steps(
        layer,
        torch.optim.SGD(layer.parameters(), lr=0.01),
        steps=6,
        batches=batches,
        loss_of=lambda learner, batch: F.mse_loss(learner(batch[0]), batch[1]),
        rate_at=lambda step: 0.01,
        folder=str(tmp_path),
        what="test",
    )
    assert steps == [[], [], [], [3], [3], [3]]


def test_a_loss_that_is_not_finite_stops_the_training():
    layer = nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match=r"test: the loss of step 0 is nan; use a lower learning rate"):
        training.run_steps(
            layer,
            torch.optim.SGD(layer.parameters(), lr=1.0),
            steps=3,
            batches=lambda first: repeat(torch.full((1, 1), float("nan"))),
            loss_of=lambda learner, batch: learner(batch).sum(),
            rate_at=lambda step: 1.0,
            folder="",
            what="test",
        )
