"""Labelled images of a benchmark: folders, decoding and crops.

Shape suffixes: C channels, H W pixels.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from previts.errors import InputError
from previts.media.boxes import Box, draw_box
from previts.storage import files

Pixels = NDArray[np.uint8]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
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
    fs, path = files.open_fs(uri)
    root = path.rstrip("/") + "/"
    names = sorted(name.removeprefix(root) for name in fs.find(path))
    names = [name for name in names if name.lower().endswith(SUFFIXES) and "/" in name]
    if not names:
        raise InputError(
            f"there is no image at {files.join(uri, '<class>', '<image>.jpg')}; expected a folder for each class"
        )
    folders = [name.split("/", 1)[0] for name in names]
    known = tuple(sorted(set(folders))) if classes is None else tuple(classes)
    numbers = {name: number for number, name in enumerate(known)}
    if unknown := sorted(set(folders) - set(known)):
        raise InputError(
            f"{files.join(uri, unknown[0])} is not a class of the training split, which has {len(known)} classes; "
            "give both splits of one release"
        )
    return LabelledImages(
        known, tuple(files.join(uri, name) for name in names), tuple(numbers[folder] for folder in folders)
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
        image = Image.open(io.BytesIO(files.read_bytes(uri)))
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
