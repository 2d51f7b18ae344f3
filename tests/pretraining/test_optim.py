import math
from dataclasses import replace

import pytest
import torch

from previts.config.experiment import OptimConfig
from previts.pretraining import optim

CONFIG = OptimConfig(epochs=10)


def test_the_rate_is_constant_within_an_epoch_as_in_moco():
    rates = [optim.learning_rate(step, 7, CONFIG) for step in range(70)]
    for epoch in range(10):
        cosine = 0.5 * (1 + math.cos(math.pi * epoch / 10))
        assert rates[epoch * 7 : epoch * 7 + 7] == pytest.approx([0.03 * (0.001 + 0.999 * cosine)] * 7)


def test_the_rate_is_that_of_torch_by_step():
    config = replace(CONFIG, lr_update="step")
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=config.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=70, eta_min=config.lr / 1000)
    for step in range(70):
        assert optim.learning_rate(step, 7, config) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()


def test_steps_follow_the_formula_of_sgd_and_leave_frozen_weights():
    learning, frozen = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3), requires_grad=False)
    optimizer = optim.build_optimizer([learning, frozen], CONFIG)
    optim.set_learning_rate(optimizer, 0.1)
    weight, momentum = 1.0, 0.0
    for _ in range(3):
        learning.grad = torch.full((3,), 0.5)
        optimizer.step()
        momentum = 0.9 * momentum + (0.5 + 1e-4 * weight)
        weight -= 0.1 * momentum
    torch.testing.assert_close(learning.data, torch.full((3,), weight))
    assert torch.equal(frozen, torch.ones(3))
