"""Saliency network of Deep-USPS: a dilated residual network that classifies each pixel as salient or not.

PreViTS section 3.2. The network is DRN-D of Yu et al., "Dilated Residual Networks" (2017), with a 1 x 1 classifier and
fixed bilinear upsampling by 8. Pure functions of tensors: no I/O, no training.

Shape suffixes: B images, C channels, H W pixels.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

STRIDE = 8  # pixels of the image per cell of the last map
SALIENT = 0  # index of the salient one of the two logits, as in Deep-USPS
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels in [0, 1]; ImageNet's, as in the DRN's code

Inputs = Literal["rgb", "contrast"]
INPUT_CHANNELS = {"rgb": 3, "contrast": 10}
BORDER_STRIP = 0.1  # of the shorter side
COLOUR_NOISE = 1e-3  # variance added to each colour, so that the distance to an even border is finite
# Brightness and two opponent colours (BT.601); the opponent colours have twice the weight.
_OPPONENT = ((0.299, 0.587, 0.114), (-0.338, -0.662, 1.0), (1.0, -0.838, -0.162))

_CHANNELS = (16, 32, 64, 128, 256, 512, 512, 512)


def _conv_bn(before: int, after: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(before, after, kernel, stride, (kernel // 2) * dilation, dilation, bias=False)
    return [conv, nn.BatchNorm2d(after)]


class _Block(nn.Module):
    """Residual block of DRN-D: basic (two 3 x 3) or bottleneck (1 x 1, 3 x 3, 1 x 1 with four times the channels)."""

    def __init__(self, kind: Literal["basic", "bottleneck"], before: int, planes: int, stride: int, dilation: int):
        super().__init__()
        if kind == "basic":
            layers = [
                _conv_bn(before, planes, 3, stride=stride, dilation=dilation),
                _conv_bn(planes, planes, 3, dilation=dilation),
            ]
            self.channels = planes
        else:
            layers = [
                _conv_bn(before, planes, 1),
                _conv_bn(planes, planes, 3, stride=stride, dilation=dilation),
                _conv_bn(planes, planes * 4, 1),
            ]
            self.channels = planes * 4
        for number, (conv, norm) in enumerate(layers, start=1):
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", norm)
        self.depth = len(layers)
        self.relu = nn.ReLU(inplace=True)
        changes = stride != 1 or before != self.channels
        self.downsample = nn.Sequential(*_conv_bn(before, self.channels, 1, stride=stride)) if changes else None

    def forward(self, maps_BCHW: Tensor) -> Tensor:
        """Return the maps after the block."""
        shortcut = maps_BCHW if self.downsample is None else self.downsample(maps_BCHW)
        for number in range(1, self.depth + 1):
            maps_BCHW = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(maps_BCHW))
            if number < self.depth:
                maps_BCHW = self.relu(maps_BCHW)
        out: Tensor = self.relu(maps_BCHW + shortcut)
        return out


class SaliencyNetwork(nn.Module):
    """DRN-D-22 or DRN-D-105 with a classifier of two channels; layers have the names of the DRN's code.

    Args:
        kind: "drn_d_22" (basic blocks, 2 2 2 2) or "drn_d_105" (bottlenecks, 3 4 23 3).
        width: Share of the published channels; below 1 for machines without a GPU.
        inputs: How `encode` represents the images.
    """

    def __init__(self, kind: Literal["drn_d_22", "drn_d_105"], width: float = 1.0, inputs: Inputs = "rgb") -> None:
        super().__init__()
        self.inputs = inputs
        block: Literal["basic", "bottleneck"] = "basic" if kind == "drn_d_22" else "bottleneck"
        depths = (2, 2, 2, 2) if kind == "drn_d_22" else (3, 4, 23, 3)
        channels = [max(8, round(count * width)) for count in _CHANNELS]
        first, second, *levels = channels
        self.layer0 = nn.Sequential(*_conv_bn(INPUT_CHANNELS[inputs], first, 7), nn.ReLU(inplace=True))
        self.layer1 = nn.Sequential(*_conv_bn(first, first, 3), nn.ReLU(inplace=True))
        self.layer2 = nn.Sequential(*_conv_bn(first, second, 3, stride=2), nn.ReLU(inplace=True))
        before = second
        for number, planes, depth, stride, dilation in zip(
            (3, 4, 5, 6), levels, depths, (2, 2, 1, 1), (1, 1, 2, 4), strict=False
        ):
            blocks = []
            for place in range(depth):
                blocks.append(_Block(block, before, planes, stride if place == 0 else 1, dilation))
                before = blocks[-1].channels
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.layer7 = nn.Sequential(*_conv_bn(before, levels[4], 3, dilation=2), nn.ReLU(inplace=True))
        self.layer8 = nn.Sequential(*_conv_bn(levels[4], levels[5], 3), nn.ReLU(inplace=True))
        self.seg = nn.Conv2d(levels[5], 2, 1)
        # Fixed bilinear weights, 16 x 16 with stride 8, for each channel; not trained.
        self.up = nn.ConvTranspose2d(2, 2, 2 * STRIDE, STRIDE, STRIDE // 2, groups=2, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He initialisation by fan out, as in the DRN's code
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0, (2 / fan_out) ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # The published sqrt(2 / fan out) is 1 for a classifier of two channels. It is meant for trained features. With
        # random features the softmax would be saturated at the start, where the F-measure has no gradient.
        nn.init.normal_(self.seg.weight, 0, 0.01)
        ramp = 1 - (torch.arange(2 * STRIDE) + 0.5 - STRIDE).abs() / STRIDE
        with torch.no_grad():
            self.up.weight.copy_((ramp[:, None] * ramp[None, :]).expand_as(self.up.weight))
        self.up.weight.requires_grad_(False)

    def trunk(self, inputs_BCHW: Tensor) -> Tensor:
        """Return the maps of the last convolution, (B, C, H / 8, W / 8)."""
        maps = inputs_BCHW
        for number in range(9):
            maps = self.get_submodule(f"layer{number}")(maps)
        assert isinstance(maps, Tensor)
        return maps

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the saliency (B, H, W) in [0, 1] of normalised images whose sides are multiples of 8.

        Raises:
            ValueError: If a side is not a multiple of 8.
        """
        if images_BCHW.shape[2] % STRIDE or images_BCHW.shape[3] % STRIDE:
            raise ValueError(f"sides must be multiples of {STRIDE}, got {tuple(images_BCHW.shape[2:])}")
        logits = self.up(self.seg(self.trunk(images_BCHW)))
        saliency: Tensor = logits.float().softmax(dim=1)[:, SALIENT]
        return saliency


def encode(images_BHWC: Tensor, inputs: Inputs) -> Tensor:
    """Return the network's inputs (B, C, H, W) for RGB images with levels of 0 to 255.

    "rgb" are normalised pixels. "contrast" are ten maps of differences between a pixel and its image:
    - colour minus the mean colour of the image (3);
    - Mahalanobis distances to the colours of the four borders in ascending order, and to those of the image (5);
    - squared distances from the middle (2).
    The maps of a mirrored image are the mirrored maps.
    """
    pixels = images_BHWC.permute(0, 3, 1, 2).float().div(255)
    if inputs == "rgb":
        mean, std = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (MEAN, STD))
        return (pixels - mean) / std
    height, width = pixels.shape[2:]
    colour = torch.einsum("ij,bjhw->bihw", torch.tensor(_OPPONENT, device=pixels.device), pixels)
    strip = max(1, round(BORDER_STRIP * min(height, width)))
    borders = [colour[:, :, :strip], colour[:, :, -strip:], colour[:, :, :, :strip], colour[:, :, :, -strip:]]
    whole = colour.flatten(2)
    distance = _mahalanobis(whole, [*(border.flatten(2) for border in borders), whole])
    distance = torch.log1p(torch.cat([_ascending(distance[:, :4]), distance[:, 4:]], dim=1))
    distance = distance - distance.mean(2, keepdim=True)
    distance = distance / (distance.square().mean(2, keepdim=True).sqrt() + 0.05)
    colour = colour - colour.mean((2, 3), keepdim=True)
    colour = colour / (colour.square().mean((1, 2, 3), keepdim=True).sqrt() + 0.02)
    rows, columns = (torch.linspace(-1, 1, side, device=pixels.device).square() for side in (height, width))
    place = torch.stack([rows[:, None].expand(height, width), columns[None, :].expand(height, width)])
    return torch.cat(
        [colour, distance.view(*distance.shape[:2], height, width), place.expand(len(pixels), -1, -1, -1)], dim=1
    )


def _ascending(values_B4N: Tensor) -> Tensor:
    """Return four values in ascending order, by exchanges: torch.sort of a short dimension costs more than the stem."""
    rows = list(values_B4N.unbind(1))
    for low, high in ((0, 1), (2, 3), (0, 2), (1, 3), (1, 2)):
        rows[low], rows[high] = torch.minimum(rows[low], rows[high]), torch.maximum(rows[low], rows[high])
    return torch.stack(rows, dim=1)


def _mahalanobis(colour_B3N: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """Return the Mahalanobis distance (B, groups, N) of colours to each group of colours (B, 3, M)."""
    # (c - m)' P (c - m) is computed as one product with the monomials of c: 3 x 3 products for each pixel are slow.
    products = (colour_B3N[:, :, None] * colour_B3N[:, None]).flatten(1, 2)
    monomials = torch.cat([products, colour_B3N, torch.ones_like(colour_B3N[:, :1])], dim=1)
    rows = []
    for group in groups:
        mean = group.mean(2, keepdim=True)
        spread = group - mean
        covariance = spread @ spread.transpose(1, 2) / spread.shape[2]
        precision = torch.linalg.inv(covariance + COLOUR_NOISE * torch.eye(3, device=covariance.device))
        pulled = (precision @ mean)[:, :, 0]
        constant = (pulled * mean[:, :, 0]).sum(1, keepdim=True)
        rows.append(torch.cat([precision.flatten(1), -2 * pulled, constant], dim=1))
    return (torch.stack(rows, dim=1) @ monomials).clamp_min(0).sqrt()


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the memory format of maps on a device: channels last on a GPU, contiguous on a CPU.

    Channels last is not faster on a CPU here. With it, torch 2.15 crashes in the gradient of a strided 1 x 1
    convolution from 8 to 16 channels.
    """
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def load_weights(network: SaliencyNetwork, weights: dict[str, Tensor]) -> int:
    """Load every tensor of a state dict whose name and shape fit the network, and return their number.

    The names may be those of the DRN (`layer3.0.conv1.weight`) or of its segmentation model (`base.3.0...`). They may
    also be those of a ResNet, whose four levels are the DRN's levels 3 to 6. The classifier is not loaded.

    Raises:
        ValueError: If no weight of a convolution fits.
    """
    own = network.state_dict()
    resnet = "conv1.weight" in weights and "layer1.0.conv1.weight" in weights
    taken = {}
    for name, tensor in weights.items():
        place = _own_name(name, resnet)
        if place not in own or place.startswith(("seg.", "up.")):
            continue
        if (own[place].shape, own[place].is_floating_point()) == (tensor.shape, tensor.is_floating_point()):
            taken[place] = tensor
    if not any(tensor.ndim == 4 for tensor in taken.values()):
        raise ValueError(f"none of the {len(weights)} tensors fits the network (first names: {list(weights)[:3]})")
    network.load_state_dict({**own, **taken})
    return len(taken)


def _own_name(name: str, resnet: bool) -> str:
    head, _, rest = name.partition(".")
    if head == "base":  # the segmentation model numbers the layers
        number, _, rest = rest.partition(".")
        return f"layer{number}.{rest}"
    if resnet:
        level = head.removeprefix("layer")
        return f"layer{int(level) + 2}.{rest}" if head.startswith("layer") and level in "1234" else ""
    return name
