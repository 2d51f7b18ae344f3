"""S3D-G, the encoder of clips: inception blocks of separable convolutions, each followed by a gate.

PreViTS section 4.1 takes the video encoder of RSPNet: S3D with gating (Xie et al. 2018, "Rethinking Spatiotemporal
Feature Learning"). Order of layers, strides and the constants of batch normalisation are those of RSPNet's released
model, so its checkpoints can be loaded (`weight_formats.py`).

The plain `state_dict` of `S3DG` is the file format of a trained encoder (`encoder.pt`). Its names are `conv_1a`,
`conv_2b`, `conv_2c`, `mixed_3b` ... `mixed_5c`; in a separable convolution `spatial`, `temporal` and `gate`; in every
convolution except the gate `conv` and `norm`.

Shape suffixes: B clips, C channels, T frames, H W rows and columns.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from previts.models.norm import GroupedBatchNorm

# Channels of each inception block: alone; reduced and wide of branch a; reduced and wide of branch b; pooled.
Sizes = tuple[int, int, int, int, int, int]
MIXED: dict[str, Sizes] = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}


class Unit(nn.Module):
    """Convolution without bias, batch normalisation, ReLU; the output size is the input size divided by the stride."""

    def __init__(
        self, before: int, after: int, kernel: tuple[int, int, int], stride: int = 1, *, group_size: int | None
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        # not stated; torch's default initialisation, as in RSPNet's code
        self.conv = nn.Conv3d(before, after, kernel, stride, padding, bias=False)
        self.norm = GroupedBatchNorm(after, group_size, eps=1e-3, momentum=0.001)  # not stated; RSPNet's code

    def forward(self, maps_BCTHW: Tensor) -> Tensor:
        """Return the new maps, (B, C', T', H', W')."""
        return F.relu(self.norm(self.conv(maps_BCTHW)), inplace=True)


class Separable(nn.Module):
    """A k x k convolution in space, one of length k in time, and a gate. The first one has the whole stride."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, *, group_size: int | None) -> None:
        super().__init__()
        self.spatial = Unit(before, after, (1, kernel, kernel), stride, group_size=group_size)
        self.temporal = Unit(after, after, (kernel, 1, 1), group_size=group_size)
        self.gate = nn.Conv3d(after, after, 1)

    def forward(self, maps_BCTHW: Tensor) -> Tensor:
        """Return the new maps, (B, C', T', H', W'), each channel weighted by a gate that depends on the whole clip."""
        maps = self.temporal(self.spatial(maps_BCTHW))
        gated: Tensor = maps * torch.sigmoid(self.gate(maps.mean((2, 3, 4), keepdim=True)))
        return gated


class Inception(nn.Module):
    """Four parallel branches; two of them are separable convolutions after a reduction of the channels."""

    def __init__(self, before: int, sizes: Sizes, *, group_size: int | None) -> None:
        super().__init__()
        alone, reduced_a, wide_a, reduced_b, wide_b, pooled = sizes
        self.alone = Unit(before, alone, (1, 1, 1), group_size=group_size)
        self.reduced_a = Unit(before, reduced_a, (1, 1, 1), group_size=group_size)
        self.wide_a = Separable(reduced_a, wide_a, 3, group_size=group_size)
        self.reduced_b = Unit(before, reduced_b, (1, 1, 1), group_size=group_size)
        self.wide_b = Separable(reduced_b, wide_b, 3, group_size=group_size)
        self.pooled = Unit(before, pooled, (1, 1, 1), group_size=group_size)
        self.channels = alone + wide_a + wide_b + pooled

    def forward(self, maps_BCTHW: Tensor) -> Tensor:
        """Return the concatenated channels of all branches, (B, C', T, H, W)."""
        pooled = self.pooled(F.max_pool3d(maps_BCTHW, 3, stride=1, padding=1))
        wide_a, wide_b = self.wide_a(self.reduced_a(maps_BCTHW)), self.wide_b(self.reduced_b(maps_BCTHW))
        return torch.cat([self.alone(maps_BCTHW), wide_a, wide_b, pooled], dim=1)


class S3DG(nn.Module):
    """S3D-G without a classifier. Clips have at least 8 frames and at least 32 pixels a side.

    Args:
        width: Share of the channels of every layer, rounded, at least 1 channel. At 1 there are 8,675,744 parameters.
        group_size: Samples in a group of batch normalisation; None is the whole batch.
    """

    def __init__(self, width: float = 1.0, group_size: int | None = None) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return max(1, round(channels * width))

        self.conv_1a = Separable(3, scaled(64), 7, 2, group_size=group_size)
        self.conv_2b = Unit(scaled(64), scaled(64), (1, 1, 1), group_size=group_size)
        self.conv_2c = Separable(scaled(64), scaled(192), 3, group_size=group_size)
        self.channels = scaled(192)
        for name, (alone, reduced_a, wide_a, reduced_b, wide_b, pooled) in MIXED.items():
            sizes = scaled(alone), scaled(reduced_a), scaled(wide_a), scaled(reduced_b), scaled(wide_b), scaled(pooled)
            mixed = Inception(self.channels, sizes, group_size=group_size)
            self.add_module(f"mixed_{name}", mixed)
            self.channels = mixed.channels

    def features(self, clips_BCTHW: Tensor) -> Tensor:
        """Return the maps of the last inception block, (B, C, T/8, H/32, W/32) rounded down, of RGB clips."""
        maps = F.max_pool3d(self.conv_1a(clips_BCTHW), (1, 3, 3), (1, 2, 2), (0, 1, 1))
        maps = F.max_pool3d(self.conv_2c(self.conv_2b(maps)), (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for name in MIXED:
            if name == "4b":
                maps = F.max_pool3d(maps, 3, stride=2, padding=1)
            elif name == "5b":
                maps = F.max_pool3d(maps, 2, stride=2)
            maps = self.get_submodule(f"mixed_{name}")(maps)
        return maps

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        """Return the pooled features, (B, C)."""
        return self.features(clips_BCTHW).mean((2, 3, 4))
