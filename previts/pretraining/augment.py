"""Conversion of stored clips to RGB, and their random colour, blur and flip, in batches on the training device.

PreViTS section 4.1: "standard data augmentation ... random Gaussian blur, and random color jitter". The random numbers
are drawn on the CPU, one row a clip (`draw`). They are applied on any device (`augment`). So a clip does not depend on
the device, on the rest of its batch or on the number of processes, except for rounding. Cropping is not done here
(`crop_sampling.py`, `crop_cutting.py`).

Shape suffixes: B clips, T frames, C channels, S pixels of a side, R = 3 S / 2 rows of an I420 image (S rows of luma,
then the two chroma planes one after the other), P numbers of a draw.
"""

import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from previts.config.experiment import AugmentConfig
from previts.models.pixels import colour, normalise

GREY = (0.2989, 0.587, 0.114)  # ITU-R 601 luma
# Weights of red and blue in luma, by H.264's code of the colour matrix. Other codes count as BT.601, as in players.
_WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
BLACK = 16  # luma in limited range; white is 235
_ORDERS = tuple(itertools.permutations(range(4)))
# Columns of a draw.
_FLIP, _BRIGHTNESS, _CONTRAST, _SATURATION, _HUE, _ORDER, _GREY, _SIGMA = range(8)
DRAW_SIZE = 8


def draw(config: AugmentConfig, generator: np.random.Generator) -> NDArray[np.float32]:
    """Draw the random numbers for one clip: (P,) numbers for `augment`."""
    numbers = np.zeros(DRAW_SIZE, np.float32)
    brightness, contrast, saturation, hue = config.jitter
    # Every number is drawn whether or not it is used, so turning one transform off does not change the others.
    flip, grey, jitter, blur = generator.random(4)
    factors = [generator.uniform(max(0.0, 1 - s), 1 + s) for s in (brightness, contrast, saturation)]
    turn = generator.uniform(-hue, hue)
    order = generator.integers(len(_ORDERS))
    sigma = generator.uniform(*config.blur_sigma)
    jittered = jitter < config.jitter_probability
    numbers[_FLIP] = flip < config.flip_probability
    numbers[_BRIGHTNESS : _HUE + 1] = [*factors, turn] if jittered else [1, 1, 1, 0]
    numbers[_ORDER] = order
    numbers[_GREY] = grey < config.grey_probability
    numbers[_SIGMA] = sigma if blur < config.blur_probability else 0
    return numbers


def augment(clips_BTRS: Tensor, matrices_B: Tensor, masks_BTSS: Tensor, draws_BP: Tensor) -> tuple[Tensor, Tensor]:
    """Return normalised, augmented clips (B, T, C, S, S) and their masks on the device of the clips.

    Args:
        clips_BTRS: uint8 images as I420, limited range.
        matrices_B: H.264's code of each clip's colour matrix, **on the CPU**.
        masks_BTSS: bool; flipped with the clip, otherwise unchanged.
        draws_BP: One `draw` a clip, **on the CPU**, so that the clips of each transform are known without waiting for
            the device.
    """
    device = clips_BTRS.device
    clips = _jitter(to_rgb(clips_BTRS, matrices_B), draws_BP)
    _apply(clips, draws_BP[:, _GREY] > 0, lambda some, _: _luma(some).expand_as(some), draws_BP[:, _GREY])
    reach = math.ceil(3 * float(draws_BP[:, _SIGMA].max()))
    _apply(clips, draws_BP[:, _SIGMA] > 0, partial(blur, reach=reach), draws_BP[:, _SIGMA])
    masks = masks_BTSS.clone()
    flipped = draws_BP[:, _FLIP] > 0
    _apply(clips, flipped, lambda some, _: some.flip(-1), draws_BP[:, _FLIP])
    _apply(masks, flipped, lambda some, _: some.flip(-1), draws_BP[:, _FLIP])
    return normalise(clips), masks.to(device)


def to_rgb(clips_BTRS: Tensor, matrices_B: Tensor) -> Tensor:
    """Return RGB in [0, 1], (B, T, C, S, S), of I420 images in limited range, each clip by its own colour matrix.

    Chroma is upsampled bilinearly around the centres of its pixels. `matrices_B` contains H.264's codes, on the CPU.
    """
    batch, frames, _, size = clips_BTRS.shape
    luma = clips_BTRS[:, :, None, :size].to(torch.float32).sub_(BLACK).mul_(1 / 219)
    halves = clips_BTRS[:, :, size:].reshape(-1, 2, size // 2, size // 2).to(torch.float32).sub_(128)
    chroma = F.interpolate(halves, scale_factor=2.0, mode="bilinear", align_corners=False)
    blue, red = chroma.view(batch, frames, 2, 1, size, size).unbind(2)
    shares = _CHROMA[matrices_B].to(clips_BTRS.device, non_blocking=True)
    of_blue, of_red = shares.view(batch, 1, 3, 2, 1, 1).unbind(3)
    # Sums of products, not a matrix product, because a clip must not depend on its batch.
    return luma.addcmul(blue, of_blue).addcmul_(red, of_red).clamp_(0, 1)


def _chroma_shares(code: int) -> list[list[float]]:
    """Return the weights of Cb and Cr in red, green and blue, from limited range to [0, 1] (ITU-T H.273, 8.3)."""
    red, blue = _WEIGHTS.get(code, _WEIGHTS[6])
    green = 1 - red - blue
    return [
        [0.0, (1 - red) * 2 / 224],
        [-(1 - blue) * blue / green * 2 / 224, -(1 - red) * red / green * 2 / 224],
        [(1 - blue) * 2 / 224, 0.0],
    ]


_CHROMA = torch.tensor([_chroma_shares(code) for code in range(256)])


def _apply(clips: Tensor, chosen_B: Tensor, change: Callable[[Tensor, Tensor], Tensor], amounts_B: Tensor) -> None:
    """Replace the chosen clips by `change(clips, amounts)`, in place."""
    rows = chosen_B.nonzero().flatten()
    if len(rows):
        amounts = amounts_B[rows].to(clips.device, non_blocking=True)
        rows = rows.to(clips.device, non_blocking=True)
        clips.index_copy_(0, rows, change(clips.index_select(0, rows), amounts).to(clips.dtype))


def _jitter(clips: Tensor, draws_BP: Tensor) -> Tensor:
    """Apply the four colour changes, to each clip in its own order."""
    orders = torch.tensor(_ORDERS)[draws_BP[:, _ORDER].long()]
    for place in range(4):
        for change, (function, neutral) in enumerate(_COLOUR):
            amounts = draws_BP[:, _BRIGHTNESS + change]
            _apply(clips, (orders[:, place] == change) & (amounts != neutral), function, amounts)
    return clips


def _blend(clips: Tensor, others: Tensor, amounts_B: Tensor) -> Tensor:
    share = amounts_B.view(-1, 1, 1, 1, 1)
    return (clips * share + others * (1 - share)).clamp_(0, 1)


def _luma(clips: Tensor) -> Tensor:
    return (clips * colour(GREY, clips.device)).sum(-3, keepdim=True)


def adjust_brightness(clips: Tensor, amounts_B: Tensor) -> Tensor:
    """Scale the brightness of each clip (1: unchanged)."""
    return (clips * amounts_B.view(-1, 1, 1, 1, 1)).clamp_(0, 1)


def adjust_contrast(clips: Tensor, amounts_B: Tensor) -> Tensor:
    """Blend each frame with its mean grey (1: unchanged)."""
    return _blend(clips, _luma(clips).mean((-3, -2, -1), keepdim=True), amounts_B)


def adjust_saturation(clips: Tensor, amounts_B: Tensor) -> Tensor:
    """Blend each frame with its grey version (1: unchanged)."""
    return _blend(clips, _luma(clips), amounts_B)


def adjust_hue(clips: Tensor, amounts_B: Tensor) -> Tensor:
    """Shift the hue of each clip by a share of the circle (0: unchanged), through HSV as torchvision does."""
    red, green, blue = clips.unbind(-3)
    value, low = clips.amax(-3), clips.amin(-3)
    chroma = value - low
    safe = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    sextant = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sextant = (sextant + 6 * amounts_B.view(-1, 1, 1, 1)) % 6
    # Each channel is `value` minus a share of the chroma, which depends on its distance on the hue circle.
    channels = []
    for offset in (5, 3, 1):
        distance = (offset + sextant) % 6
        channels.append(value - chroma * torch.minimum(distance, 4 - distance).clamp_(0, 1))
    return torch.stack(channels, dim=-3)


_COLOUR: tuple[tuple[Callable[[Tensor, Tensor], Tensor], float], ...] = (
    (adjust_brightness, 1.0),
    (adjust_contrast, 1.0),
    (adjust_saturation, 1.0),
    (adjust_hue, 0.0),
)


def blur(clips: Tensor, sigmas_B: Tensor, reach: int) -> Tensor:
    """Blur each clip with its own Gaussian (deviation in pixels, cut off at three deviations), edges reflected.

    `reach` is the largest radius in pixels in the whole batch, which is known without asking the device. The two
    one-dimensional filters are matrices, so the whole batch takes two batched products.
    """
    height, width = clips.shape[-2:]
    rows, columns = _blur_matrix(height, sigmas_B, reach), _blur_matrix(width, sigmas_B, reach)
    return rows[:, None, None] @ clips @ columns[:, None, None].transpose(-1, -2)


def _blur_matrix(size: int, sigmas_B: Tensor, reach: int) -> Tensor:
    """Return (B, size, size): row i contains the weights of the source pixels of pixel i."""
    radius = min(reach, size - 1)
    offsets = torch.arange(-radius, radius + 1, device=sigmas_B.device)
    within = offsets.abs() <= (3 * sigmas_B[:, None]).ceil()
    weights = torch.exp(-0.5 * (offsets / sigmas_B[:, None]) ** 2) * within
    weights = weights / weights.sum(1, keepdim=True)
    source = (torch.arange(size, device=sigmas_B.device)[:, None] + offsets).abs()
    source = torch.where(source >= size, 2 * (size - 1) - source, source)  # reflect without repeating the edge
    matrix = torch.zeros(len(sigmas_B), size, size, device=sigmas_B.device)
    return matrix.scatter_add_(
        2, source.expand(len(sigmas_B), -1, -1), weights[:, None, :].expand(-1, size, -1).contiguous()
    )
