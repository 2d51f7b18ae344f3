"""Random boxes in an image: the "random resized crop" that pretraining and evaluations share.

Szegedy et al. 2015 ("Inception"): the box covers a random share of the area, and its aspect ratio is uniform on a
logarithmic scale. This module computes boxes only and crops no pixels.
"""

import math

import numpy as np

Box = tuple[int, int, int, int]  # left, top, right and bottom; the last two exclusive
Range = tuple[float, float]


def draw_size(height: int, width: int, scale: Range, ratio: Range, generator: np.random.Generator) -> tuple[int, int]:
    """Return height and width of a random box in pixels, at least 1; the box may be larger than the image.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        scale: Lowest and highest share of the image's area.
        ratio: Lowest and highest aspect ratio, width / height.
        generator: Source of the two random numbers.
    """
    area = generator.uniform(*scale) * height * width
    aspect = math.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1])))
    return max(1, round(math.sqrt(area / aspect))), max(1, round(math.sqrt(area * aspect)))


def draw_box(
    height: int, width: int, scale: Range, ratio: Range, attempts: int, generator: np.random.Generator
) -> Box | None:
    """Return a random box inside an image, or None if no attempt fits; `draw_size` explains the arguments."""
    for _ in range(attempts):
        box_height, box_width = draw_size(height, width, scale, ratio, generator)
        if box_height <= height and box_width <= width:
            left = int(generator.integers(width - box_width + 1))
            top = int(generator.integers(height - box_height + 1))
            return left, top, left + box_width, top + box_height
    return None
