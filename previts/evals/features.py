"""Images in, features of a frozen encoder out: the functions that all benchmarks share.

PreViTS section 4.2. Images are streamed from any file system, a few batches at a time; only features stay in memory.
The encoder is never trained here: everything runs in eval mode and without gradients.

Shape suffixes: B N images, C channels, D features, H W pixels, h w cells of the encoder's last map.
"""

import hashlib
import io
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from previts import storage
from previts.augment import normalise
from previts.boxes import Box, draw_box
from previts.errors import InputError
from previts.gradcam import pool_masks
from previts.moco import MoCo
from previts.progress import progress

Item = TypeVar("Item")
Value = TypeVar("Value")
Pixels = NDArray[np.uint8]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# Threads, not processes: decoding releases Python's lock, and clients of object stores do not survive a fork.
THREADS = min(8, os.cpu_count() or 1)
CROP_ATTEMPTS = 10


@dataclass(frozen=True)
class LabelledImages:
    """Images of one split with their class numbers; `classes` are the sorted folder names."""

    classes: tuple[str, ...]
    uris: tuple[str, ...]
    labels: tuple[int, ...]


def read_image_folder(uri: str, classes: Sequence[str] | None = None) -> LabelledImages:
    """Return the images of `{uri}/{class}/...`, sorted by name.

    Args:
        uri: Folder of one split.
        classes: The numbered classes; by default the sorted classes of this folder.

    Raises:
        InputError: If there is no image, or a class that is not in `classes`.
    """
    fs, path = storage.open_fs(uri)
    root = path.rstrip("/") + "/"
    names = sorted(name.removeprefix(root) for name in fs.find(path))
    names = [name for name in names if name.lower().endswith(SUFFIXES) and "/" in name]
    if not names:
        raise InputError(
            f"there is no image at {storage.join(uri, '<class>', '<image>.jpg')}; expected a folder for each class"
        )
    folders = [name.split("/", 1)[0] for name in names]
    known = tuple(sorted(set(folders))) if classes is None else tuple(classes)
    numbers = {name: number for number, name in enumerate(known)}
    if unknown := sorted(set(folders) - set(known)):
        raise InputError(
            f"{storage.join(uri, unknown[0])} is not a class of the training split, which has {len(known)} classes; "
            "give both splits of one release"
        )
    return LabelledImages(
        known, tuple(storage.join(uri, name) for name in names), tuple(numbers[folder] for folder in folders)
    )


def evenly(count: int, limit: int) -> list[int]:
    """Return at most `limit` of the numbers below `count`, evenly spaced from the first to the last; 0 means all."""
    if not limit or count <= limit:
        return list(range(count))
    return [round(step * (count - 1) / max(1, limit - 1)) for step in range(limit)]


def limited(images: LabelledImages, limit: int) -> LabelledImages:
    """Return at most `limit` images, evenly spaced over the classes; 0 means all."""
    chosen = evenly(len(images.uris), limit)
    return LabelledImages(
        images.classes, tuple(images.uris[i] for i in chosen), tuple(images.labels[i] for i in chosen)
    )


def open_image(uri: str) -> Image.Image:
    """Return a decoded image.

    Raises:
        InputError: If the file is missing or is not an image.
    """
    try:
        image = Image.open(io.BytesIO(storage.read_bytes(uri)))
        image.load()
    except FileNotFoundError:
        raise InputError(f"{uri} is missing; the dataset must be complete and in its authors' layout") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # a broken PNG is a SyntaxError in Pillow
        raise InputError(f"{uri} cannot be read as an image ({error}); replace it by the original file") from None
    return image


def centre_crop(image: Image.Image, resize: int, crop: int) -> Pixels:
    """Return the centre of an image whose short side is scaled to `resize`, as CHW with H = W = `crop`."""
    scale = resize / min(image.size)
    width, height = (max(resize, int(side * scale)) for side in image.size)
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return _chw(resized.crop((left, top, left + crop, top + crop)))


def load_centre(uri: str, *, resize: int, crop: int) -> Pixels:
    """Return the centre crop of an image file."""
    return centre_crop(open_image(uri), resize, crop)


def load_whole(uri: str, *, size: int) -> Pixels:
    """Return the whole image of a file, squashed to a square."""
    return squash(open_image(uri), size)


def squash(image: Image.Image, size: int) -> Pixels:
    """Return the whole image, squashed to CHW with H = W = `size`; an image of that size is unchanged."""
    image = image.convert("RGB")
    return _chw(image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BILINEAR))


def random_crop(image: Image.Image, size: int, generator: np.random.Generator) -> Pixels:
    """Return a random crop of 8% to 100% of the area at a ratio of 3:4 to 4:3, mirrored half of the time (Inception).

    With a generator seeded by epoch and image, the crop does not depend on the order of the threads.
    """
    image = image.convert("RGB")
    box = random_box(*image.size, 0.08, generator)
    crop = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return _chw(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if generator.random() < 0.5 else crop)


def random_box(width: int, height: int, least_area: float, generator: np.random.Generator) -> Box:
    """Return left, top, right and bottom of a random part of `least_area` to all of the area, at 3:4 to 4:3."""
    if box := draw_box(height, width, (least_area, 1.0), (3 / 4, 4 / 3), CROP_ATTEMPTS, generator):
        return box
    # an extreme shape: the largest centre part within the ratios
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return (width - w) // 2, (height - h) // 2, (width - w) // 2 + w, (height - h) // 2 + h


def _chw(image: Image.Image) -> Pixels:
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))


def loaded(groups: Iterable[Sequence[Item]], load: Callable[[Item], Value], ahead: int = 2) -> Iterator[list[Value]]:
    """Yield the loaded items of each group, in order; threads load the next groups while the caller uses one."""
    pending: deque[list[Future[Value]]] = deque()
    coming = iter(groups)
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            while True:
                for group in itertools.islice(coming, ahead - len(pending)):
                    pending.append([pool.submit(load, item) for item in group])
                if not pending:
                    return
                yield [future.result() for future in pending.popleft()]
        finally:
            for future in itertools.chain(*pending):
                future.cancel()


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
