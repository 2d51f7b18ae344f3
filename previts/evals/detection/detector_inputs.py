"""Images and objects scaled to a detector's input size and back; sheets of detections.

PreViTS section 4.2. Each call depends only on its arguments, so that loading may run in any order and on any thread.

Shape suffixes: N objects, C channels, H W pixels.
"""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from pycocotools import mask as run_lengths
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from previts.config.evaluation import SIDE_STEP
from previts.errors import InputError
from previts.evals import labelled_images
from previts.evals.detection.object_sets import AnnotatedImage
from previts.evals.detection.scores import Detections
from previts.evals.detection.shapes import shape_mask

# not stated: detectron2
LONGEST = 1333  # pixels, of the longer side
FLIPPED = 0.5  # share of the images that are mirrored while training
MASK_THRESHOLD = 0.5

SHOWN, SHOWN_SCORE, SHOWN_HEIGHT = 6, 0.3, 200
COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6")

Sample = tuple[Tensor, dict[str, Tensor]]  # image uint8 CHW; boxes N4 float xyxy, labels N, masks NHW uint8


def fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return width and height of an image whose short side is scaled to `side`, with no side above `LONGEST`."""
    scale = min(side / min(size), LONGEST / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def open_annotated(annotated: AnnotatedImage) -> Image.Image:
    """Return the decoded file of an annotated image.

    Raises:
        InputError: If the file is missing, is not an image, or differs in size from its annotations.
    """
    image = labelled_images.open_image(annotated.uri)
    if image.size != annotated.size:
        sizes = " but its annotations say ".join(
            f"{width} x {height}" for width, height in (image.size, annotated.size)
        )
        raise InputError(f"{annotated.uri} has {sizes}; image and annotations must be of the same release")
    return labelled_images.as_rgb(image)


def resized(image: Image.Image, side: int) -> Tensor:
    """Return an image at the size for the test, uint8 CHW."""
    return _chw(image.resize(fitted(image.size, side), Image.Resampling.BILINEAR))


def training_sample(
    annotated: AnnotatedImage, sides: tuple[int, int], generator: np.random.Generator, *, masks: bool
) -> Sample:
    """Return an image at a random size, half of the time mirrored, with its objects.

    Args:
        annotated: The image; all its objects are training objects.
        sides: The range of the short side in pixels, in steps of 32.
        generator: Seeded by epoch and image.
        masks: Whether to return the shapes of the objects too.

    Raises:
        InputError: If the image cannot be read.
    """
    image = open_annotated(annotated)
    side = int(generator.choice(np.arange(sides[0], sides[1] + 1, SIDE_STEP)))
    flipped = bool(generator.random() < FLIPPED)
    size = fitted(image.size, side)
    scale = np.array([size[0] / image.size[0], size[1] / image.size[1]])
    boxes_N4 = annotated.objects.boxes * np.tile(scale, 2)
    image = image.resize(size, Image.Resampling.BILINEAR)
    if flipped:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        boxes_N4 = np.stack(
            [size[0] - boxes_N4[:, 2], boxes_N4[:, 1], size[0] - boxes_N4[:, 0], boxes_N4[:, 3]], axis=1
        )
    target = {
        "boxes": torch.from_numpy(boxes_N4.astype(np.float32)),
        "labels": torch.from_numpy(annotated.objects.labels),
    }
    if masks:
        shapes_NHW = [shape_mask(shape, annotated.size, size) for shape in annotated.shapes]
        masks_NHW = np.array(shapes_NHW, np.uint8).reshape(-1, size[1], size[0])
        target["masks"] = torch.from_numpy(np.ascontiguousarray(masks_NHW[..., ::-1] if flipped else masks_NHW))
    return _chw(image), target


def detections_in(annotated: AnnotatedImage, detected: dict[str, Tensor], input_size: tuple[int, int]) -> Detections:
    """Return detections in the pixels of the original image.

    Args:
        annotated: The image.
        detected: Output of the detector, in the pixels of its input; masks N1hw belong to the boxes.
        input_size: Width and height of the detector's input.
    """
    width, height = annotated.size
    scale = torch.tensor([width / input_size[0], height / input_size[1]]).repeat(2)
    boxes_N4 = detected["boxes"].cpu() * scale
    masks = []
    if "masks" in detected:
        # One by one: a hundred masks of the whole image at once would need too much memory.
        for number, mask in enumerate(detected["masks"].cpu()):
            pasted = paste_masks_in_image(mask[None], boxes_N4[number : number + 1], (height, width))[0, 0]
            masks.append(run_lengths.encode(np.asfortranarray((pasted > MASK_THRESHOLD).numpy().astype(np.uint8))))
    return Detections(
        boxes_N4.numpy().astype(np.float64),
        detected["labels"].cpu().numpy(),
        detected["scores"].cpu().numpy().astype(np.float64),
        masks,
    )


def contact_sheet(annotated: Sequence[AnnotatedImage], found: Sequence[Detections], names: Sequence[str]) -> bytes:
    """Return a PNG of a few images side by side, with the boxes of high scores.

    Args:
        annotated: The images.
        found: The detections in each of them.
        names: Names of the labels, from label 1 on.
    """
    tiles = []
    for number in labelled_images.evenly(len(annotated), SHOWN):
        image = open_annotated(annotated[number])
        scale = SHOWN_HEIGHT / image.height
        tile = image.resize((max(1, round(image.width * scale)), SHOWN_HEIGHT), Image.Resampling.BILINEAR)
        pen = ImageDraw.Draw(tile)
        detections = found[number]
        for box, label, score in zip(detections.boxes * scale, detections.labels, detections.scores, strict=True):
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
