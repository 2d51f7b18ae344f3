"""Images and their objects at the size at which a detector sees them, and back; pictures of what it found.

PreViTS section 4.2. Each call depends on its arguments alone, so that loading may run in any order and on any thread.

Shape suffixes: N objects, C channels, H W pixels.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as run_lengths
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from previts.errors import InputError
from previts.evals import features
from previts.evals.detection_scores import Found
from previts.evals.detection_sets import Picture
from previts.evaluation import SIDE_STEP

# not stated: detectron2
LONGEST = 1333  # pixels, of the longer side
FLIPPED = 0.5  # share of the images that are mirrored while training
MASK_THRESHOLD = 0.5

SHOWN, SHOWN_SCORE, SHOWN_HEIGHT = 6, 0.3, 200
COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6")

Sample = tuple[Tensor, dict[str, Tensor]]  # image uint8 CHW; boxes N4 float xyxy, labels N, masks NHW uint8


def fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return width and height of an image whose short side is brought to `side`, and no side above `LONGEST`."""
    scale = min(side / min(size), LONGEST / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def open_picture(picture: Picture) -> Image.Image:
    """Return the image of a picture.

    Raises:
        InputError: If it is missing, is not an image, or has another size than its annotations say.
    """
    image = features.open_image(picture.uri)
    if image.size != picture.size:
        sizes = " but its annotations say ".join(f"{width} x {height}" for width, height in (image.size, picture.size))
        raise InputError(f"{picture.uri} has {sizes}; image and annotations must be of the same release")
    return image.convert("RGB")


def resized(image: Image.Image, side: int) -> Tensor:
    """Return an image as a detector tests it, uint8 CHW."""
    return _chw(image.resize(fitted(image.size, side), Image.Resampling.BILINEAR))


def training_sample(picture: Picture, sides: tuple[int, int], generator: np.random.Generator, *, masks: bool) -> Sample:
    """Return an image at a random size, half of the time mirrored, with its objects.

    Args:
        picture: Its objects are all trained on.
        sides: The range of the short side in pixels, in steps of 32.
        generator: Seeded by epoch and image.
        masks: Whether the shapes of the objects are wanted too.

    Raises:
        InputError: If the image cannot be read, or a shape is neither polygons nor run lengths.
    """
    image = open_picture(picture)
    side = int(generator.choice(np.arange(sides[0], sides[1] + 1, SIDE_STEP)))
    flipped = bool(generator.random() < FLIPPED)
    size = fitted(image.size, side)
    scale = np.array([size[0] / image.size[0], size[1] / image.size[1]])
    boxes_N4 = picture.objects.boxes * np.tile(scale, 2)
    image = image.resize(size, Image.Resampling.BILINEAR)
    if flipped:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        boxes_N4 = np.stack(
            [size[0] - boxes_N4[:, 2], boxes_N4[:, 1], size[0] - boxes_N4[:, 0], boxes_N4[:, 3]], axis=1
        )
    target = {
        "boxes": torch.from_numpy(boxes_N4.astype(np.float32)),
        "labels": torch.from_numpy(picture.objects.labels),
    }
    if masks:
        shapes_NHW = [shape_mask(shape, picture.size, size, picture.uri) for shape in picture.shapes]
        masks_NHW = np.array(shapes_NHW, np.uint8).reshape(-1, size[1], size[0])
        target["masks"] = torch.from_numpy(np.ascontiguousarray(masks_NHW[..., ::-1] if flipped else masks_NHW))
    return _chw(image), target


def shape_mask(shape: Any, old: tuple[int, int], new: tuple[int, int], uri: str) -> NDArray[np.uint8]:
    """Return the mask HW, of 0 and 1, of a COCO segmentation of an image of width and height `old` at the size `new`.

    Polygons are drawn at the new size; run lengths, in which COCO keeps crowds, are drawn and then resized.

    Raises:
        InputError: If the shape is neither; `uri` is named.
    """
    (width, height), (new_width, new_height) = old, new
    try:
        if isinstance(shape, dict):
            runs = run_lengths.frPyObjects(shape, height, width) if isinstance(shape["counts"], list) else shape
            whole = Image.fromarray(run_lengths.decode(runs))
            return np.asarray(whole.resize(new, Image.Resampling.NEAREST), np.uint8)
        scale = np.array([new_width / width, new_height / height])
        polygons = [(np.reshape(polygon, (-1, 2)) * scale).ravel().tolist() for polygon in shape if len(polygon) >= 6]
        if not polygons:
            return np.zeros((new_height, new_width), np.uint8)
        drawn = run_lengths.merge(run_lengths.frPyObjects(polygons, new_height, new_width))
        return np.asarray(run_lengths.decode(drawn), np.uint8)
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"a segmentation of {uri} is neither polygons nor run lengths ({error})") from None


def found_in(picture: Picture, detected: dict[str, Tensor], seen: tuple[int, int]) -> Found:
    """Return detections in the pixels of the image itself.

    Args:
        picture: The image.
        detected: What the detector gave, in the pixels that it saw; masks N1hw are those of the boxes.
        seen: Width and height that it saw.
    """
    width, height = picture.size
    scale = torch.tensor([width / seen[0], height / seen[1]]).repeat(2)
    boxes_N4 = detected["boxes"].cpu() * scale
    masks = []
    if "masks" in detected:
        # One by one: a hundred masks of a whole image at once would fill the memory.
        for number, mask in enumerate(detected["masks"].cpu()):
            pasted = paste_masks_in_image(mask[None], boxes_N4[number : number + 1], (height, width))[0, 0]
            masks.append(run_lengths.encode(np.asfortranarray((pasted > MASK_THRESHOLD).numpy().astype(np.uint8))))
    return Found(
        boxes_N4.numpy().astype(np.float64),
        detected["labels"].cpu().numpy(),
        detected["scores"].cpu().numpy().astype(np.float64),
        masks,
    )


def contact_sheet(pictures: Sequence[Picture], found: Sequence[Found], names: Sequence[str]) -> bytes:
    """Return a PNG of a few images side by side, with the boxes that the detector is surest of.

    Args:
        pictures: The images.
        found: What was found in each of them.
        names: Of the labels, from label 1 on.
    """
    tiles = []
    for number in features.evenly(len(pictures), SHOWN):
        image = open_picture(pictures[number])
        scale = SHOWN_HEIGHT / image.height
        tile = image.resize((max(1, round(image.width * scale)), SHOWN_HEIGHT), Image.Resampling.BILINEAR)
        pen = ImageDraw.Draw(tile)
        seen = found[number]
        for box, label, score in zip(seen.boxes * scale, seen.labels, seen.scores, strict=True):
            if score >= SHOWN_SCORE:
                colour = COLOURS[int(label) % len(COLOURS)]
                pen.rectangle([float(value) for value in box], outline=colour, width=2)
                pen.text((float(box[0]) + 3, float(box[1]) + 1), f"{names[label - 1]} {score:.2f}", fill=colour)
        tiles.append(tile)
    sheet = Image.new("RGB", (sum(tile.width for tile in tiles), SHOWN_HEIGHT))
    left = 0
    for tile in tiles:
        sheet.paste(tile, (left, 0))
        left += tile.width
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _chw(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.asarray(image, np.uint8).transpose(2, 0, 1)))
