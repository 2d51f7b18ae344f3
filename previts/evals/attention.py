"""Attention of a query to the foreground of a key, and the cells of the attention map that an object covers.

PreViTS sections 4.5 and 4.7. These are the maps that pretraining supervises (equations 3 and 4). Nothing is trained.

Shape suffixes: B queries, T frames, C channels, H W pixels, t h w cells of the map.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from previts.models.gradcam import pool_masks
from previts.models.moco import MoCo


@torch.no_grad()
def key_attention(model: MoCo, query_BTCHW: Tensor, key_TCHW: Tensor, key_mask_THW: Tensor) -> Tensor:
    """Return the non-negative attention of each query to the foreground of one key, B x t x h x w; clips normalised.

    The map of pretraining (equations 3 and 4) in closed form, without gradients. An image is a clip of one frame.
    """
    return model.attend(query_BTCHW.transpose(1, 2), key_TCHW.transpose(0, 1)[None], key_mask_THW[None])


def cell_shares(model: MoCo, masks_THW: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.float32]:
    """Return the share of each cell of the map's grid that the object covers, T x h x w, pooled as in pretraining."""
    pooled = pool_masks(torch.from_numpy(masks_THW)[:, None], (1, *grid), model.experiment.objective.mask_pooling)
    return np.asarray(pooled[:, 0].numpy())


def covered_cells(model: MoCo, masks_THW: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the cells of the grid that count as object, T x h x w: covered by more than half, or the most covered.

    Without the second rule an object smaller than a cell would have no cells, and an empty map would match it.
    """
    shares_Thw = cell_shares(model, masks_THW, grid)
    most_T11 = shares_Thw.max(axis=(1, 2), keepdims=True)
    return np.asarray((shares_Thw > 0.5) | ((shares_Thw == most_T11) & (most_T11 > 0)))
