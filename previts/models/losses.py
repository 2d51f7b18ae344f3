"""The terms of the loss: contrastive (equation 1), speed (2), attention (5), and the mean over chosen pairs.

PreViTS sections 3.1 and 3.3. Pure tensor code: no I/O, no randomness.

Shape suffixes: B pairs, K keys of the queue, D embedding, T H W grid cells.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-6


def info_nce(query_BD: Tensor, key_BD: Tensor, queue_KD: Tensor, temperature: float) -> Tensor:
    """Return the contrastive loss of each pair, (B,) (equation 1).

    Args:
        query_BD: Unit-length embeddings.
        key_BD: The positive of each query, unit length.
        queue_KD: Negatives shared by all queries, unit length.
        temperature: tau.
    """
    positive_B = (query_BD * key_BD).sum(1) / temperature
    negative_BK = query_BD @ queue_KD.T / temperature
    # -log(e^p / (e^p + sum e^n)) without concatenating both into one tensor of B x (1 + K).
    return torch.logaddexp(positive_B, torch.logsumexp(negative_BK, dim=1)) - positive_B


def relative_speed(query_BD: Tensor, key_BD: Tensor, other_BD: Tensor, margin: float) -> Tensor:
    """Return the speed loss of each pair, (B,) (equation 2).

    The paper calls `pair` a distance, and it should be larger for clips of one speed: it is the cosine.

    Args:
        query_BD: Unit-length embeddings of the head for speed.
        key_BD: Of clips at the speed of the query, unit length.
        other_BD: Of clips at the other speed, unit length.
        margin: gamma, in units of cosine.
    """
    same_B, different_B = (query_BD * key_BD).sum(1), (query_BD * other_BD).sum(1)
    return F.relu(margin - (same_B - different_B))


def attention_distance(cam_BTHW: Tensor, mask_BTHW: Tensor) -> Tensor:
    """Return the attention loss (equation 5): cosine distance of attention and mask of each query, (B,), in [0, 1].

    A map or a mask that is zero everywhere has no direction: its distance is 1 and its gradient 0.

    Args:
        cam_BTHW: Output of `gradcam.attention_map`, not negative.
        mask_BTHW: Share of each cell that the object covers, from `gradcam.pool_masks`.

    Raises:
        ValueError: If the two have different grids.
    """
    if cam_BTHW.shape != mask_BTHW.shape:
        raise ValueError(f"map and mask must share a grid, got {tuple(cam_BTHW.shape)} and {tuple(mask_BTHW.shape)}")
    cam, mask = cam_BTHW.flatten(1), mask_BTHW.flatten(1).to(cam_BTHW.dtype)
    # In the graph, the gradient of a map without direction would grow with the inverse of its norm.
    directed = torch.linalg.vector_norm(cam.detach(), dim=1, keepdim=True) > EPSILON
    cam = torch.where(directed, cam, torch.zeros_like(cam))
    return 1 - F.cosine_similarity(cam, mask, dim=1, eps=EPSILON)


def mean_over(values_B: Tensor, chosen_B: Tensor, total: Tensor | None = None) -> Tensor:
    """Return the sum of the chosen values over `total` (by default their number; at least 1), a scalar.

    Values that are not chosen may be anything, even not finite: they change neither the result nor its gradient.
    """
    chosen = chosen_B.to(torch.bool)
    kept = torch.where(chosen, values_B, torch.zeros_like(values_B))
    number = chosen.sum() if total is None else total
    return kept.sum() / number.clamp(min=1)
