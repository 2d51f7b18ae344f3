"""Features of a frozen encoder: images in, one vector per image out.

PreViTS section 4.2. Images are streamed from any file system, a few batches at a time; only features stay in memory.
The encoder is never trained here: everything runs in eval mode and without gradients.

Shape suffixes: B N images, C channels, D features, H W pixels.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from previts.evals.labelled_images import Pixels
from previts.models.moco import MoCo
from previts.models.pixels import normalise
from previts.processes.prefetch import Item, loaded
from previts.processes.progress import progress

Features = NDArray[np.float32]  # N D
Labels = NDArray[np.int64]


def image_batches(items: Sequence[Item], load: Callable[[Item], Pixels], batch_size: int) -> Iterator[Pixels]:
    """Yield the loaded items in stacked batches, in order; the next batch loads while the caller uses one."""
    groups = (items[start : start + batch_size] for start in range(0, len(items), batch_size))
    return map(np.stack, loaded(groups, load))


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a module, all parts of which are on one device."""
    return next(module.parameters()).device


def normalised(images_BCHW: Pixels, device: torch.device) -> Tensor:
    """Return uint8 RGB images in the encoder's input format: float, on the device, with ImageNet's normalisation."""
    return normalise(torch.from_numpy(images_BCHW).to(device).float() / 255)


@torch.no_grad()
def pooled_features(model: MoCo, images_BCHW: Tensor) -> Tensor:
    """Return the features of normalised images, B x D: the encoder's last map averaged over its cells."""
    maps = model.encoder.features(images_BCHW.contiguous(memory_format=torch.channels_last))
    return maps.mean(dim=(2, 3))


def extract(
    model: MoCo, items: Sequence[Item], load: Callable[[Item], Pixels], *, batch_size: int, what: str
) -> Features:
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
