"""Builds an encoder from its name in an experiment (`ModelConfig.encoder`).

Every encoder has `features`, which returns the maps of the last layer, and `channels`. A call returns the pooled
features (B, C). Images are BCHW, clips BCTHW.
"""

from typing import Literal

import torch
from torch import Tensor

from previts.models.resnet import ResNetEncoder
from previts.models.s3dg import S3DG

Kind = Literal["resnet18", "resnet50", "s3dg"]
Encoder = ResNetEncoder | S3DG


def build_encoder(kind: Kind, group_size: int | None = None, width: float = 1.0) -> Encoder:
    """Return a new encoder with random weights; batch normalisation takes `group_size` samples at a time, or all.

    Raises:
        ValueError: If a ResNet is requested with a width other than 1.
    """
    match kind:
        case "s3dg":
            return S3DG(width, group_size)
        case "resnet18" | "resnet50":
            if width != 1:
                raise ValueError(f"only s3dg has a width, got {kind = }, {width = }")
            # Convolutions of images are fast in this memory layout; those of clips need no change of the weights.
            encoder: ResNetEncoder = ResNetEncoder(kind, group_size).to(memory_format=torch.channels_last)
            return encoder


def last_maps(encoder: Encoder, clips_BCTHW: Tensor) -> Tensor:
    """Return the maps of the last layer, (B, C, T, H, W), computed in the memory layout that suits the encoder.

    An image encoder takes clips of one frame.
    """
    if isinstance(encoder, S3DG):
        return encoder.features(clips_BCTHW.contiguous(memory_format=torch.channels_last_3d))
    assert clips_BCTHW.shape[2] == 1, "an image encoder takes single frames"
    images_BCHW = clips_BCTHW[:, :, 0].contiguous(memory_format=torch.channels_last)
    return encoder.features(images_BCHW)[:, :, None]
