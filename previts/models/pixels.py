"""Normalisation of the pixels that encoders take, by ImageNet's mean and standard deviation."""

import torch
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, RGB in [0, 1]


def normalise(clips: Tensor) -> Tensor:
    """Subtract ImageNet's mean colour and divide by its deviation; channels are third from last, RGB in [0, 1]."""
    return (clips - colour(MEAN, clips.device)) / colour(STD, clips.device)


def colour(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """Return one number a channel, (3, 1, 1), on a device, without waiting for the device."""
    # torch.tensor(values, device=device) waits until a GPU has finished everything before it.
    return torch.tensor(values).view(3, 1, 1).to(device, non_blocking=True)
