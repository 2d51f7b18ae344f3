"""ResNet encoders with torchvision's layers and names, and batch normalisation over groups of a batch.

PreViTS section 4.1 (ResNet-50; ResNet-18 for small runs) on 16 GPUs: each GPU normalises over its own share of the
batch. `GroupedBatchNorm2d` does the same on fewer devices, so results do not depend on how many there are.
"""

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that takes each run of `group_size` samples as a batch of its own while training.

    The running statistics move once a call, by the mean over the groups, which is what averaging the statistics of as
    many devices gives. Parameters, buffers and inference are those of `nn.BatchNorm2d`.
    """

    def __init__(self, num_features: int, group_size: int | None = None) -> None:
        super().__init__(num_features)
        self.group_size = group_size

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the normalised batch; its size must be a multiple of `group_size` while training."""
        if not self.training or self.group_size is None or self.group_size == len(images_BCHW):
            return super().forward(images_BCHW)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        groups = torch.split(images_BCHW, self.group_size)
        # With momentum 1 the "running" statistics of a group are those of the group.
        means = self.running_mean.new_zeros(len(groups), self.num_features)
        variances = torch.zeros_like(means)
        normalised = [
            F.batch_norm(group, mean, variance, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps)
            for group, mean, variance in zip(groups, means, variances, strict=True)
        ]
        with torch.no_grad():
            self.running_mean.lerp_(means.mean(0), self.momentum)
            self.running_var.lerp_(variances.mean(0), self.momentum)
            self.num_batches_tracked.add_(1)
        return torch.cat(normalised)


class Encoder(ResNet):  # type: ignore[misc]  # torchvision has no types
    """torchvision's ResNet without its classifier; `state_dict` loads into torchvision's model (all but `fc`)."""

    def __init__(self, kind: Literal["resnet18", "resnet50"], group_size: int | None) -> None:
        block, layers = (BasicBlock, [2, 2, 2, 2]) if kind == "resnet18" else (Bottleneck, [3, 4, 6, 3])
        super().__init__(block, layers, norm_layer=partial(GroupedBatchNorm2d, group_size=group_size))
        self.channels = int(self.fc.in_features)  # type: ignore[has-type]
        self.fc = nn.Identity()

    def features(self, images_BCHW: Tensor) -> Tensor:
        """Return the maps of the last convolution, (B, C, H/32, W/32): the paper's `conv5`."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images_BCHW))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        assert isinstance(maps, Tensor)
        return maps


def build_encoder(kind: Literal["resnet18", "resnet50"], group_size: int | None = None) -> Encoder:
    """Return a new encoder with torchvision's random weights; calling it gives the pooled features (B, C)."""
    return Encoder(kind, group_size)
