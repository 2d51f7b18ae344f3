"""Grad-CAM of a contrastive match: the places in the query that make it similar to a key.

PreViTS section 3.3, equations 3 and 4, and the pooling of masks to the grid of the maps. Pure, differentiable tensor
code.

The paper takes the gradient of q . k with respect to the last maps A of the query encoder, by a backward pass inside
the forward pass. But A reaches q only through the mean over the grid and the head, so that gradient is the same in
every cell. Its sum over the grid is the gradient at the pooled features: a product with the head's weights
(`channel_weights`). It is an ordinary expression. Its own gradient, which also moves the head, needs no second-order
graph.

q has unit length, so a change of the embedding along q has no effect: the pull-back starts from the part of k at right
angles to q. Without the head's bias the weighted sum of a map is then zero. Hence a ReLU map always has evidence for
and against, whatever the sign of q . k.

An image is a clip of one frame: T = 1.

Shape suffixes: B pairs, C channels, D embedding, T H W grid cells, or frames and pixels.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from previts.models.heads import Head
from previts.models.losses import EPSILON


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


def channel_weights_by_autograd(activations_BCTHW: Tensor, score_B: Tensor) -> Tensor:
    """Return the gradient of each score summed over the grid, (B, C), for any model between maps and score.

    The general form of equation 3, by a backward pass whose result can be differentiated again. For a model that is a
    mean and a head, `channel_weights` returns the same.
    """
    (gradient_BCTHW,) = torch.autograd.grad(score_B.sum(), activations_BCTHW, create_graph=True)
    return gradient_BCTHW.flatten(2).sum(2)


def attention_map(activations_BCTHW: Tensor, weights_BC: Tensor, form: Literal["relu", "minmax"]) -> Tensor:
    """Return the weighted sum of the maps, made non-negative, (B, T, H, W).

    `relu` is equation 4. `minmax` is the released code: each map is shifted and scaled to [0, 1], so evidence against
    is kept as low values instead of cut off.
    """
    raw_BTHW = torch.einsum("bcthw,bc->bthw", activations_BCTHW, weights_BC)
    if form == "relu":
        return F.relu(raw_BTHW)
    return scaled(raw_BTHW)


def scaled(map_BTHW: Tensor) -> Tensor:
    """Return each map shifted and scaled to [0, 1], over all its cells; a constant map becomes zero."""
    cells = tuple(range(1, map_BTHW.ndim))
    low, high = map_BTHW.amin(cells, keepdim=True), map_BTHW.amax(cells, keepdim=True)
    # A range up to EPSILON of the largest value counts as constant, so the result does not depend on the map's scale.
    least = EPSILON * torch.maximum(low.abs(), high.abs()).clamp(min=1e-12)
    return (map_BTHW - low) / torch.maximum(high - low, least)


def pool_masks(mask_BTHW: Tensor, grid: Sequence[int], form: Literal["area", "bilinear"]) -> Tensor:
    """Return masks on the grid (T, H, W) of the maps, float in [0, 1].

    `area` is the share of each cell, in time and space, that the object covers. `bilinear` samples four pixels around
    each grid point, with aligned corners, as the released code does; it can miss small objects.
    """
    mask_BTHW = mask_BTHW.to(torch.float32)
    if form == "bilinear":
        mask_BTHW = F.interpolate(mask_BTHW, (grid[1], grid[2]), mode="bilinear", align_corners=True)
    return F.adaptive_avg_pool3d(mask_BTHW, (grid[0], grid[1], grid[2]))


def attention_iou(cam_BTHW: Tensor, mask_BTHW: Tensor) -> Tensor:
    """Return the intersection over union of attention and mask, (B,).

    It compares the cells above half of each map's range with the cells above half of each mask's maximum. It is a
    metric, not a loss: it has no gradient.
    """
    with torch.no_grad():
        attended, mask_BN = (scaled(cam_BTHW) >= 0.5).flatten(1), mask_BTHW.flatten(1)
        covered = (mask_BN > 0) & (mask_BN >= 0.5 * mask_BN.amax(1, keepdim=True))
        union = (attended | covered).sum(1)
        return (attended & covered).sum(1).to(cam_BTHW.dtype) / union.clamp(min=1)
