"""Labelled images of a benchmark: folders, decoding and crops.

Shape suffixes: C channels, H W pixels.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from previts.errors import InputError
from previts.media.boxes import Box, draw_box
from previts.storage import file_names, files, listings
from previts.storage.file_names import LeftAside

Pixels = NDArray[np.uint8]

CROP_ATTEMPTS = 10


@dataclass(frozen=True)
class LabelledImages:
    """Images of one split with their class numbers; `classes` are the sorted folder names.

    `left_aside` counts the files of the folder that are not used.
    """

    classes: tuple[str, ...]
    uris: tuple[str, ...]
    labels: tuple[int, ...]
    left_aside: LeftAside = field(default_factory=LeftAside)


def read_image_folder(uri: str, classes: Sequence[str] | None = None) -> LabelledImages:
    """Return the images of `{uri}/{class}/...`, sorted by name. Hidden and other files are left aside and reported.

    Args:
        uri: Folder of one split.
        classes: The numbered classes; by default the sorted classes of this folder.

    Raises:
        InputError: If there is no image, or a class that is not in `classes`.
    """
    listed = listings.below(uri, file_names.IMAGE_SUFFIXES, in_classes=True)
    names = listed.names
    if not names:
        aside = f" (left aside: {listed.left_aside})" if listed.left_aside else ""
        raise InputError(
            f"there is no image at {files.join(uri, '<class>', '<image>.jpg')}{aside}; expected a folder for each "
            f"class, and files with a suffix of {', '.join(file_names.IMAGE_SUFFIXES)}"
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
        known,
        tuple(files.join(uri, name) for name in names),
        tuple(numbers[folder] for folder in folders),
        listed.left_aside,
    )


def evenly(count: int, limit: int) -> list[int]:
    """Return at most `limit` of the numbers below `count`, evenly spaced from the first to the last; 0 means all."""
    if not limit or count <= limit:
        return list(range(count))
    return [round(step * (count - 1) / max(1, limit - 1)) for step in range(limit)]


def limited(images: LabelledImages, limit: int) -> LabelledImages:
    """Return at most `limit` images, evenly spaced over the classes; 0 means all."""
    chosen = evenly(len(images.uris), limit)
    uris, labels = tuple(images.uris[i] for i in chosen), tuple(images.labels[i] for i in chosen)
    return replace(images, uris=uris, labels=labels)


def left_aside(splits: Mapping[str, LabelledImages]) -> dict[str, dict[str, str]]:
    """Return the entry `left_aside` of an outcome's protocol by split; nothing if all files are used."""
    said = {name: str(images.left_aside) for name, images in splits.items() if images.left_aside}
    return {"left_aside": said} if said else {}


def open_image(uri: str) -> Image.Image:
    """Return a decoded image.

    Raises:
        InputError: If the file is missing or is not an image.
    """
    try:
        data = files.read_regular(uri)
    except FileNotFoundError:
        raise InputError(f"{uri} is missing; the dataset must be complete and in its authors' layout") from None
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Exception as error:  # Pillow raises many types for a damaged file: OSError, SyntaxError, ValueError, ...
        # Its text for an unknown format has the address of the bytes in memory.
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
        raise InputError(f"{uri} cannot be read as an image ({reason}); replace it by the original file") from None
    if image.mode == "F":
        raise InputError(f"{uri} has floating-point pixels, whose white is not known; convert it to 8 bits")
    return image


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image as RGB: grey is repeated, 16 bits become 8, transparency is ignored as by torchvision."""
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey, so that all but the darkest pixels would become white.
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def centre_crop(image: Image.Image, resize: int, crop: int) -> Pixels:
    """Return the centre of an image whose short side is scaled to `resize`, as CHW with H = W = `crop`."""
    scale = resize / min(image.size)
    width, height = (max(resize, int(side * scale)) for side in image.size)
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    resized = as_rgb(image).resize((width, height), Image.Resampling.BILINEAR)
    return _chw(resized.crop((left, top, left + crop, top + crop)))


def load_centre(uri: str, *, resize: int, crop: int) -> Pixels:
    """Return the centre crop of an image file."""
    return centre_crop(open_image(uri), resize, crop)


def load_whole(uri: str, *, size: int) -> Pixels:
    """Return the whole image of a file, squashed to a square."""
    return squash(open_image(uri), size)


def squash(image: Image.Image, size: int) -> Pixels:
    """Return the whole image, squashed to CHW with H = W = `size`; an image of that size is unchanged."""
    image = as_rgb(image)
    return _chw(image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BILINEAR))


def random_crop(image: Image.Image, size: int, generator: np.random.Generator) -> Pixels:
    """Return a random crop of 8% to 100% of the area at a ratio of 3:4 to 4:3, mirrored half of the time (Inception).

    With a generator seeded by epoch and image, the crop does not depend on the order of the threads.
    """
    image = as_rgb(image)
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
