"""Shapes of objects in COCO's two forms, polygons and run lengths: their check, and their masks.

PreViTS section 4.2. pycocotools draws a shape without a check: run lengths that are too short leave uninitialised
memory in the mask. So every shape is checked when annotations are read. Opens no files.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as run_lengths

_FIRST, _BITS, _MORE, _SIGN = 48, 31, 32, 16  # of a character of compressed run lengths
_MAX_CHARACTERS = 8  # of one number


def check_shape(shape: Any, size: tuple[int, int], outside: float) -> None:
    """Check a COCO `segmentation`.

    Args:
        shape: Polygons, each a list x, y, x, y, ...; or run lengths, a dict of `size` (height, width) and `counts`,
            which is a list or COCO's compressed text.
        size: Width and height of the image in pixels.
        outside: How far a polygon may exceed the image in pixels.

    Raises:
        ValueError: If it cannot be drawn in this image; the message says why.
    """
    if isinstance(shape, dict):
        _check_runs(shape, size)
    elif isinstance(shape, list) and shape:
        for number, polygon in enumerate(shape):
            _check_polygon(polygon, number, size, outside)
        if all(len(polygon) < 6 for polygon in shape):
            raise ValueError("it has no polygon of three points or more")
    else:
        raise ValueError("it must be a list of polygons, or run lengths (a dict of size and counts)")


def _check_polygon(polygon: Any, number: int, size: tuple[int, int], outside: float) -> None:
    if not isinstance(polygon, list) or len(polygon) % 2:
        found = f"{len(polygon)} numbers" if isinstance(polygon, list) else repr(polygon)[:40]
        raise ValueError(f"polygon {number} must be a list x, y, x, y, ..., got {found}")
    for place, value in enumerate(polygon):
        if not is_number(value) or not -outside <= value <= size[place % 2] + outside:
            raise ValueError(
                f"number {place} of polygon {number} must be inside the image of {size[0]} x {size[1]} pixels, "
                f"got {value!r}"
            )


def _check_runs(shape: dict[str, Any], size: tuple[int, int]) -> None:
    width, height = size
    if shape.get("size") != [height, width]:
        raise ValueError(f"it must have size [{height}, {width}] (height, width), got {shape.get('size')!r}")
    counts = shape.get("counts")
    if isinstance(counts, str):
        runs = decompressed(counts)
    elif isinstance(counts, list) and all(isinstance(run, int) and not isinstance(run, bool) for run in counts):
        runs = counts
    else:
        raise ValueError("it must have counts, a list of whole numbers or COCO's compressed text")
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(
            f"it must have counts of 0 or more with the sum {height * width} ({height} x {width} pixels), got the sum "
            f"{sum(runs)}" + (f" and a count of {min(runs)}" if min(runs, default=0) < 0 else "")
        )


def decompressed(text: str) -> list[int]:
    """Return the run lengths of COCO's compressed text.

    A number is a run of characters of 5 bits, the lowest first; the sixth bit of a character says whether more follow.
    From the fourth number on, the difference to the number two places before is stored.

    Raises:
        ValueError: If it is not such a text.
    """
    runs: list[int] = []
    value = characters = 0
    for place, character in enumerate(text):
        code = ord(character) - _FIRST
        if not 0 <= code < 2 * _MORE or characters == _MAX_CHARACTERS:
            raise ValueError(f"it has counts with the character {character!r} at place {place}, which cannot be there")
        value |= (code & _BITS) << 5 * characters
        characters += 1
        if code & _MORE:
            continue
        if code & _SIGN:
            value -= 1 << 5 * characters
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = characters = 0
    if characters:
        raise ValueError("it has counts that end inside a number")
    return runs


def is_number(value: Any) -> bool:
    """Return whether a value of a JSON document is a finite number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def shape_mask(shape: Any, old: tuple[int, int], new: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the mask HW, of 0 and 1, of a checked COCO segmentation of an image of size `old` at the size `new`.

    Polygons are drawn at the new size. Run lengths, COCO's format for crowds, are drawn and then resized. Sizes are
    width and height.
    """
    (width, height), (new_width, new_height) = old, new
    if isinstance(shape, dict):
        runs = run_lengths.frPyObjects(shape, height, width) if isinstance(shape["counts"], list) else shape
        whole = Image.fromarray(run_lengths.decode(runs))
        return np.asarray(whole.resize(new, Image.Resampling.NEAREST), np.uint8)
    scale = np.array([new_width / width, new_height / height])
    polygons: Sequence[Any] = [
        (np.reshape(polygon, (-1, 2)) * scale).ravel().tolist() for polygon in shape if len(polygon) >= 6
    ]
    drawn = run_lengths.merge(run_lengths.frPyObjects(polygons, new_height, new_width))
    return np.asarray(run_lengths.decode(drawn), np.uint8)
