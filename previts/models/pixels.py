"""Normalisation of the pixels that encoders take, by ImageNet's mean and standard deviation."""

import torch
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, RGB in [0, 1]


def normalise(clips: Tensor) -> Tensor:
    """Subtract ImageNet's mean colour and divide by its deviation; channels are third from last, RGB in [0, 1]."""
    mean = torch.tensor(MEAN, device=clips.device).view(3, 1, 1)
    std = torch.tensor(STD, device=clips.device).view(3, 1, 1)
    return (clips - mean) / std
