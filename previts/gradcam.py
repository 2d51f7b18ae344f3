"""Grad-CAM of a contrastive match: where in the query the likeness to a key comes from.

PreViTS section 3.3, equations 3 and 4, and how masks come to the grid of the maps. Pure tensor code, differentiable.

The paper takes the gradient of q . k with respect to the last maps A of the query encoder by a backward pass inside the
forward pass. But A reaches q only through the mean over the grid and the head, so that gradient is the same in every
cell, and its sum over the grid is the gradient at the pooled features: a product with the head's weights
(`channel_weights`). It is an ordinary expression; its own gradient, which also moves the head, needs no second-order
graph.

q has unit length, so a change of the embedding along q counts for nothing: the pull-back starts from the part of k at
right angles to q. Without the head's bias the weighted sum of a map is then zero, hence a ReLU map always has evidence
for and against, whatever the sign of q . k.

Shape suffixes: B pairs, C channels, D embedding, H W grid cells or pixels.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from previts.losses import EPSILON
from previts.models.heads import Head


def channel_weights(pooled_BC: Tensor, head: Head, key_BD: Tensor) -> Tensor:
    """Return d(q . k) / d(pooled), (B, C), with q the normalised output of the head: alpha of equation 3.

    Args:
        pooled_BC: Mean of the maps over the grid.
        head: The head of the query encoder.
        key_BD: Unit-length embeddings of the foreground keys.
    """
    embedding_BD = head(pooled_BC)
    length_B1 = torch.linalg.vector_norm(embedding_BD, dim=1, keepdim=True).clamp(min=1e-12)
    query_BD = embedding_BD / length_B1
    across_BD = (key_BD - (query_BD * key_BD).sum(1, keepdim=True) * query_BD) / length_B1
    return head.pull_back(pooled_BC, across_BD)


def channel_weights_by_autograd(activations_BCHW: Tensor, score_B: Tensor) -> Tensor:
    """Return the gradient of each score summed over the grid, (B, C), for any model between maps and score.

    The general form of equation 3, by a backward pass whose result can be differentiated again. `channel_weights` is
    the same for models of a mean and a head, at a fraction of the cost.
    """
    (gradient_BCHW,) = torch.autograd.grad(score_B.sum(), activations_BCHW, create_graph=True)
    return gradient_BCHW.sum(dim=(2, 3))


def attention_map(activations_BCHW: Tensor, weights_BC: Tensor, form: Literal["relu", "minmax"]) -> Tensor:
    """Return the weighted sum of the maps, made non-negative, (B, H, W).

    `relu` is equation 4. `minmax` is the released code: each map shifted and scaled to [0, 1], so that evidence against
    is moved up instead of cut off.
    """
    raw_BHW = torch.einsum("bchw,bc->bhw", activations_BCHW, weights_BC)
    if form == "relu":
        return F.relu(raw_BHW)
    return scaled(raw_BHW)


def scaled(map_BHW: Tensor) -> Tensor:
    """Return each map shifted and scaled to [0, 1]; a constant map becomes zero."""
    low, high = map_BHW.amin((1, 2), keepdim=True), map_BHW.amax((1, 2), keepdim=True)
    # No more than EPSILON of the scale of the map counts as constant; maps of any size are treated alike.
    least = EPSILON * torch.maximum(low.abs(), high.abs()).clamp(min=1e-12)
    return (map_BHW - low) / torch.maximum(high - low, least)


def pool_masks(mask_BHW: Tensor, height: int, width: int, form: Literal["area", "bilinear"]) -> Tensor:
    """Return masks on the grid of the maps, float in [0, 1], (B, height, width).

    `area` is the share of each cell that the object covers. `bilinear` samples four pixels around each grid point, with
    the corners aligned, as the released code does; it can miss small objects.
    """
    mask_B1HW = mask_BHW.to(torch.float32)[:, None]
    if form == "area":
        return F.adaptive_avg_pool2d(mask_B1HW, (height, width))[:, 0]
    return F.interpolate(mask_B1HW, (height, width), mode="bilinear", align_corners=True)[:, 0]


def attention_iou(cam_BHW: Tensor, mask_BHW: Tensor) -> Tensor:
    """Return intersection over union, (B,), of the cells above half of each map's range and half of each mask's top.

    A figure to watch, not a loss: it has no gradient.
    """
    with torch.no_grad():
        attended = scaled(cam_BHW) >= 0.5
        covered = (mask_BHW > 0) & (mask_BHW >= 0.5 * mask_BHW.amax((1, 2), keepdim=True))
        union = (attended | covered).sum((1, 2))
        return (attended & covered).sum((1, 2)).to(cam_BHW.dtype) / union.clamp(min=1)
