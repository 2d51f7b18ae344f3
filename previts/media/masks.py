"""Binary masks: run lengths, boxes, connected components and overlap.

PreViTS section 3.2: the saliency map of a frame is a binary mask, and the tube is one mask for each frame. This module
works on arrays; it reads no files and selects no object.

Shape suffixes: H W pixels.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image

Mask = npt.NDArray[np.bool_]

_NUMBERS = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B", "F")  # modes of Pillow with one number for each pixel


def encode_rle(mask_HW: Mask) -> list[int]:
    """Return the run lengths of a mask, row by row; the first run counts False pixels and may be 0."""
    flat = mask_HW.ravel()
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate(([0], starts, [flat.size])) if flat.size else np.zeros(1, np.int64)
    runs: list[int] = np.diff(edges).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def decode_rle(counts: Sequence[int] | npt.NDArray[np.signedinteger], height: int, width: int) -> Mask:
    """Return the mask (height, width) of run lengths written by `encode_rle`.

    Raises:
        ValueError: If a run is negative or the runs do not cover the frame exactly.
    """
    runs = np.asarray(counts, dtype=np.int64)
    if runs.ndim != 1 or runs.min(initial=0) < 0 or int(runs.sum()) != height * width:
        raise ValueError(
            f"run lengths must be >= 0 and cover {height = } x {width = } pixels, got {int(runs.sum())} pixels"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(height, width)


def object_pixels(image: "Image.Image") -> Mask:
    """Return the mask that an image stores: the pixels that are above 0 in at least one channel and not transparent.

    In an image with a palette, the numbers of the colours count, not the colours.
    """
    numbers = image if image.mode in _NUMBERS else image.convert("RGB")
    pixels = np.asarray(numbers) > 0
    pixels = pixels if pixels.ndim == 2 else np.asarray(pixels.any(axis=2))
    return pixels & (np.asarray(image.getchannel("A")) > 0) if "A" in image.getbands() else pixels


def box(mask_HW: Mask) -> npt.NDArray[np.float64] | None:
    """Return the box xyxy around a mask in pixels (right and bottom exclusive), or None for an empty mask."""
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if not len(rows):
        return None
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)


def components(mask_HW: Mask, min_area: int) -> list[Mask]:
    """Return the 8-connected components of at least `min_area` pixels, largest first; at a tie, the upper one."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=8)
    order = sorted(
        (
            -int(stats[label, cv2.CC_STAT_AREA]),
            int(stats[label, cv2.CC_STAT_TOP]),
            int(stats[label, cv2.CC_STAT_LEFT]),
            label,
        )
        for label in range(1, len(stats))
        if stats[label, cv2.CC_STAT_AREA] >= min_area
    )
    return [labels == label for *_, label in order]


def iou(one_HW: Mask, other_HW: Mask) -> float:
    """Return intersection over union of two masks; 1 if both are empty, as DAVIS defines it.

    Raises:
        ValueError: If the shapes differ.
    """
    if one_HW.shape != other_HW.shape:
        raise ValueError(f"masks must have one shape, got {one_HW.shape = }, {other_HW.shape = }")
    union = int(np.count_nonzero(one_HW | other_HW))
    return int(np.count_nonzero(one_HW & other_HW)) / union if union else 1.0
