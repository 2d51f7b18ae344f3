"""The optimiser and its learning-rate schedule.

PreViTS section 4.1: SGD, batches of 256, 200 epochs, cosine schedule from 0.03 (image model).
"""

import math
from collections.abc import Iterable

import torch

from previts.config.experiment import OptimConfig


def learning_rate(step: int, steps_per_epoch: int, config: OptimConfig) -> float:
    """Return the rate of a step (from 0): half a cosine from `lr` to `lr * final_lr_fraction` (section 4.1).

    With `lr_update="epoch"` it is constant within an epoch.
    """
    epoch = step / steps_per_epoch if config.lr_update == "step" else step // steps_per_epoch
    cosine = (1 + math.cos(math.pi * epoch / config.epochs)) / 2
    return config.lr * (config.final_lr_fraction + (1 - config.final_lr_fraction) * cosine)


def build_optimizer(parameters: Iterable[torch.nn.Parameter], config: OptimConfig) -> torch.optim.SGD:
    """Return SGD over the trainable parameters, in the fused form (one kernel for all of them)."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    return torch.optim.SGD(
        learning, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use `rate` from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate
