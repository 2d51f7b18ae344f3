"""Images in, features of a frozen encoder out: the functions that all benchmarks share.

PreViTS section 4.2. Images are streamed from any file system, a few batches at a time; only features stay in memory.
The encoder is never trained here: everything runs in eval mode and without gradients.

Shape suffixes: B N images, C channels, D features, H W pixels, h w cells of the encoder's last map.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from previts.evals.labelled_images import Pixels
from previts.models.gradcam import pool_masks
from previts.models.moco import MoCo
from previts.models.pixels import normalise
from previts.processes.prefetch import Item, loaded
from previts.processes.progress import progress


def image_batches(items: Sequence[Item], load: Callable[[Item], Pixels], batch_size: int) -> Iterator[Pixels]:
    """Yield the loaded items in stacked batches, in order; the next batch loads while the caller uses one."""
    groups = (items[start : start + batch_size] for start in range(0, len(items), batch_size))
    return map(np.stack, loaded(groups, load))


def device_of(model: MoCo) -> torch.device:
    """Return the device of the encoder."""
    device: torch.device = next(model.encoder.parameters()).device
    return device


def normalised(images_BCHW: Pixels, device: torch.device) -> Tensor:
    """Return uint8 RGB images in the encoder's input format: float, on the device, with ImageNet's normalisation."""
    return normalise(torch.from_numpy(images_BCHW).to(device).float() / 255)


@torch.no_grad()
def pooled_features(model: MoCo, images_BCHW: Tensor) -> Tensor:
    """Return the features of normalised images, B x D: the encoder's last map averaged over its cells."""
    maps = model.encoder.features(images_BCHW.contiguous(memory_format=torch.channels_last))
    return maps.mean(dim=(2, 3))


def extract(
    model: MoCo, items: Sequence[Item], load: Callable[[Item], Pixels], batch_size: int, what: str
) -> NDArray[np.float32]:
    """Return the pooled features of all items, N x D.

    Args:
        model: In eval mode.
        items: The arguments of `load`.
        load: Returns CHW uint8 RGB, all of one size; called from several threads.
        batch_size: Images per forward pass.
        what: Text of the progress line.
    """
    device, features_ND, done = device_of(model), np.empty((0, 0), np.float32), 0
    with progress(range(len(items)), what, unit="image") as shown:
        for images in image_batches(items, load, batch_size):
            found = pooled_features(model, normalised(images, device)).cpu().numpy()
            if not done:
                features_ND = np.empty((len(items), found.shape[1]), np.float32)
            features_ND[done : done + len(found)] = found
            done += len(found)
            shown.update(len(found))
    return features_ND


@torch.no_grad()
def attention(model: MoCo, query_BTCHW: Tensor, key_TCHW: Tensor, key_mask_THW: Tensor) -> Tensor:
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


def weights_digest(model: MoCo) -> str:
    """Return 12 hex digits of all weights and statistics of a model; they differ if the model was trained."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def unchanged(model: MoCo, before: str) -> dict[str, str]:
    """Return the digests of a model before and after an evaluation, which must be equal, for an outcome's protocol."""
    after = weights_digest(model)
    assert after == before, "an evaluation changed the model"
    return {"weights_before": before, "weights_after": after}


Features = NDArray[np.float32]


Labels = NDArray[np.int64]
