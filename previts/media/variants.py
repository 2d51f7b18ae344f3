"""The eight variants of the Backgrounds Challenge: images and clips with object and background separated or mixed.

PreViTS section 4.4, figures 3 and 4; the recipe of Xiao et al. 2020 ("Noise or Signal"). This module works on arrays;
it reads no files and computes no scores. Clips are processed frame by frame: each frame has its own mask, box and
tiles.

With an empty mask (the object is out of sight), the background is unchanged and the foreground is black. A box that
spans the whole frame leaves no strip to fill it with, so it becomes black. `Oddities` counts both cases.

Shape suffixes: T frames, H W pixels, C channels.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from previts.errors import InputError
from previts.media import masks
from previts.media.masks import Mask

Pixels = NDArray[np.uint8]

MIXED = ("mixed_same", "mixed_rand", "mixed_next")
VARIANTS = ("original", *MIXED, "only_fg", "no_fg", "only_bg_b", "only_bg_t")


def only_fg(image_HWC: Pixels, mask_HW: Mask) -> Pixels:
    """Return the image with everything but the object black."""
    return image_HWC * mask_HW[..., None].astype(np.uint8)


def no_fg(image_HWC: Pixels, mask_HW: Mask) -> Pixels:
    """Return the image with the object black."""
    return image_HWC * (~mask_HW)[..., None].astype(np.uint8)


def _corners(mask_HW: Mask) -> tuple[int, int, int, int]:
    """Return the box xyxy around the object, right and bottom exclusive; all 0 for an empty mask."""
    box = masks.box(mask_HW)
    x0, y0, x1, y1 = (0, 0, 0, 0) if box is None else (int(value) for value in box)
    return x0, y0, x1, y1


def only_bg_b(image_HWC: Pixels, mask_HW: Mask) -> Pixels:
    """Return the image with the bounding box of the object black."""
    x0, y0, x1, y1 = _corners(mask_HW)
    result = image_HWC.copy()
    result[y0:y1, x0:x1] = 0
    return result


def only_bg_t(image_HWC: Pixels, mask_HW: Mask) -> Pixels:
    """Return the image with the bounding box of the object filled by tiles of the largest strip outside it.

    A strip spans the whole width or height. If the box spans the whole image, it becomes black.
    """
    x0, y0, x1, y1 = _corners(mask_HW)
    height, width = mask_HW.shape
    result = only_bg_b(image_HWC, mask_HW)
    strips = {"above": y0 * width, "below": (height - y1) * width, "left": x0 * height, "right": (width - x1) * height}
    side = max(strips, key=lambda name: strips[name])
    # not stated: the first tile begins at the first row or column of the box; along the strip, tiles are not shifted.
    rows, columns = np.arange(y1 - y0), np.arange(x1 - x0)
    match side if strips[side] else "none":
        case "above":
            result[y0:y1, x0:x1] = image_HWC[rows % y0, x0:x1]
        case "below":
            result[y0:y1, x0:x1] = image_HWC[y1 + rows % (height - y1), x0:x1]
        case "left":
            result[y0:y1, x0:x1] = image_HWC[y0:y1, columns % x0]
        case "right":
            result[y0:y1, x0:x1] = image_HWC[y0:y1, x1 + columns % (width - x1)]
    return result


def mixed(image_HWC: Pixels, mask_HW: Mask, background_HWC: Pixels) -> Pixels:
    """Return the object in front of another image's background (its `only_bg_t`), scaled to the size of the image."""
    height, width = mask_HW.shape
    if background_HWC.shape[:2] != (height, width):
        background_HWC = np.asarray(cv2.resize(background_HWC, (width, height), interpolation=cv2.INTER_LINEAR))
    return np.where(mask_HW[..., None], image_HWC, background_HWC)


def vary(variant: str, image_HWC: Pixels, mask_HW: Mask, background_HWC: Pixels | None = None) -> Pixels:
    """Return one variant of an image.

    Args:
        variant: One of `VARIANTS`.
        image_HWC: The image.
        mask_HW: The mask of its object.
        background_HWC: `only_bg_t` of another image, which the variants in `MIXED` need.

    Raises:
        ValueError: If the variant is unknown or its background is missing.
    """
    match variant:
        case "original":
            return image_HWC
        case "only_fg":
            return only_fg(image_HWC, mask_HW)
        case "no_fg":
            return no_fg(image_HWC, mask_HW)
        case "only_bg_b":
            return only_bg_b(image_HWC, mask_HW)
        case "only_bg_t":
            return only_bg_t(image_HWC, mask_HW)
        case "mixed_same" | "mixed_rand" | "mixed_next":
            if background_HWC is None:
                raise ValueError(f"{variant} needs the background of another image; pass `background_HWC`")
            return mixed(image_HWC, mask_HW, background_HWC)
    raise ValueError(f"there is no variant {variant!r}; allowed: {', '.join(VARIANTS)}")


def vary_clip(variant: str, frames_THWC: Pixels, masks_THW: Mask, background_THWC: Pixels | None = None) -> Pixels:
    """Return one variant of a clip, frame by frame.

    Args:
        variant: One of `VARIANTS`.
        frames_THWC: The clip.
        masks_THW: The mask of the object in each frame.
        background_THWC: `only_bg_t` of another clip, which the variants in `MIXED` need. It may have any length: frame
            t gets its frame t mod length, so a short background is repeated.

    Raises:
        ValueError: If there is not one mask of the size of the frames for each frame.
    """
    if frames_THWC.shape[:3] != masks_THW.shape:
        raise ValueError(f"each frame needs a mask of its size, got {frames_THWC.shape = }, {masks_THW.shape = }")
    if variant == "original":
        return frames_THWC
    result = np.empty_like(frames_THWC)
    for t, (frame_HWC, mask_HW) in enumerate(zip(frames_THWC, masks_THW, strict=True)):
        behind = None if background_THWC is None else background_THWC[t % len(background_THWC)]
        result[t] = vary(variant, frame_HWC, mask_HW, behind)
    return result


@dataclass(frozen=True)
class Oddities:
    """Counts of frames (or images), and of two special cases among them.

    Attributes:
        frames: All frames.
        empty: Frames in which the object is out of sight.
        spanned: Frames that the box of the object spans.
    """

    frames: int = 0
    empty: int = 0
    spanned: int = 0

    def __add__(self, other: "Oddities") -> "Oddities":
        return Oddities(self.frames + other.frames, self.empty + other.empty, self.spanned + other.spanned)


def oddities(masks_THW: Mask) -> Oddities:
    """Count the masks that are empty and the masks whose box spans the frame."""
    height, width = masks_THW.shape[1:]
    boxes = [_corners(mask_HW) for mask_HW in masks_THW]
    empty = sum(box == (0, 0, 0, 0) for box in boxes)
    return Oddities(len(boxes), empty, sum(box == (0, 0, width, height) for box in boxes))


def partner(
    variant: str, class_number: int, number: int, counts: Sequence[int], rng: np.random.Generator
) -> tuple[int, int]:
    """Return the image that gives the background of a mixed variant, as (class, number in the class).

    Args:
        variant: One of `MIXED`.
        class_number: Class of the image that gives the object.
        number: Number of that image in its class.
        counts: Number of images in each class, at least 1; for mixed_same at least 2.
        rng: Chooses among the allowed images. For mixed_rand all are allowed, the same class and image included.

    Raises:
        ValueError: If the variant mixes no images.
    """
    match variant:
        case "mixed_same":
            own = counts[class_number]
            return class_number, (number + 1 + int(rng.integers(own - 1))) % own
        case "mixed_rand":
            other = int(rng.integers(len(counts)))
            return other, int(rng.integers(counts[other]))
        case "mixed_next":
            after = (class_number + 1) % len(counts)
            return after, int(rng.integers(counts[after]))
    raise ValueError(f"{variant!r} does not mix images; allowed: {', '.join(MIXED)}")


def partners(variant: str, labels: Sequence[int], keys: Sequence[str], seed: int) -> list[int]:
    """Return for each image or clip the position of the one that gives its background in a mixed variant.

    The class after the last is the first. Classes without images are skipped.

    Args:
        variant: One of `MIXED`.
        labels: Class number of each image.
        keys: Unique name of each image. The name and the seed decide the choice, so the order of the list has no
            influence.
        seed: Seed of the choice.

    Raises:
        InputError: If a class has one image (mixed_same), or there is only one class (mixed_next).
    """
    members: dict[int, list[int]] = {}
    for place in sorted(range(len(keys)), key=lambda place: (labels[place], keys[place])):
        members.setdefault(labels[place], []).append(place)
    classes, groups = list(members), list(members.values())
    chosen = []
    for place, (label, key) in enumerate(zip(labels, keys, strict=True)):
        if variant == "mixed_same" and len(members[label]) < 2:
            raise InputError(f"{key} is alone in its class, and mixed_same needs two; add one or leave the class out")
        if variant == "mixed_next" and len(classes) < 2:
            raise InputError(f"{key} is in the only class, and mixed_next needs two classes; add a class")
        rng = np.random.default_rng([seed, zlib.crc32(f"{variant}/{key}".encode())])
        at = partner(variant, classes.index(label), members[label].index(place), [len(group) for group in groups], rng)
        chosen.append(groups[at[0]][at[1]])
    return chosen
