"""The geometry of a video: the size at which its frames are displayed or stored, and the turn that shows them upright.

It prepares the corpora of PreViTS section 4.1, and the labelled videos of sections 4.3 and 4.4. This module computes
sizes and turns planes; it decodes and scales nothing.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from previts.errors import VideoError

Pixels = NDArray[np.uint8]

MIN_SIDE = 16  # pixels


def pixels(frame: Any) -> Pixels:
    """Return a frame of PyAV as a uint8 array in the layout of its own pixel format."""
    return np.asarray(frame.to_ndarray(), dtype=np.uint8)


@dataclass(frozen=True)
class Orientation:
    """The turn that shows a stored frame upright: transpose, then flip rows, then flip columns."""

    swap: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def turn(self, image: Pixels) -> Pixels:
        """Return an image (height, width) or (height, width, channels) upright."""
        image = image.swapaxes(0, 1) if self.swap else image
        image = image[::-1] if self.flip_rows else image
        return image[:, ::-1] if self.flip_columns else image


@dataclass(frozen=True)
class Canvas:
    """Width and height of a stored frame before the turn, in pixels, and the turn."""

    width: int
    height: int
    orientation: Orientation

    def turn(self, planes: Pixels) -> Pixels:
        """Return packed yuv420p planes (height * 3 / 2, width) of this canvas upright."""
        if self.orientation == Orientation():
            return planes
        height, width, quarter = self.height, self.width, self.height * self.width // 4
        flat = planes.reshape(-1)
        luma = self.orientation.turn(flat[: height * width].reshape(height, width))
        chroma = flat[height * width :].reshape(2, quarter)
        turned = [self.orientation.turn(plane.reshape(height // 2, width // 2)) for plane in chroma]
        return np.concatenate([plane.reshape(-1) for plane in (luma, *turned)]).reshape(-1, luma.shape[1])


def square_or(aspect: Fraction | None) -> Fraction:
    """Return the aspect ratio of one pixel, width / height; a missing or implausible one counts as square."""
    return aspect if aspect and Fraction(1, 4) <= aspect <= 4 else Fraction(1)


def displayed_size(width: int, height: int, pixel_aspect: Fraction) -> tuple[int, int]:
    """Return the width and height of stored frames with square pixels, before any turn; the height is kept."""
    return max(1, round(width * pixel_aspect)), height


def make_canvas(width: int, height: int, pixel_aspect: float, max_short_side: int, orientation: Orientation) -> Canvas:
    """Return the canvas for frames of a size: square pixels, even sides, scaled down but never up.

    Args:
        width: Width of the source's frames in pixels.
        height: Height of the source's frames in pixels.
        pixel_aspect: Width / height of one pixel of the source.
        max_short_side: Longest allowed short side in pixels.
        orientation: The turn that shows them upright.

    Raises:
        VideoError: If a side would be shorter than `MIN_SIDE`.
    """
    true_width, true_height = min(width, width * pixel_aspect), min(height, height / pixel_aspect)
    shrink = min(1.0, max_short_side // 2 * 2 / min(true_width, true_height))
    canvas = Canvas(
        min(_even(true_width * shrink), width // 2 * 2),
        min(_even(true_height * shrink), height // 2 * 2),
        orientation,
    )
    if min(canvas.width, canvas.height) < MIN_SIDE:
        raise VideoError(f"frames of {width}x{height} are too small; both sides need {MIN_SIDE} px")
    return canvas


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))


def make_orientation(display_matrix: bytes | None) -> Orientation:
    """Return the turn that a container's display matrix describes: nine 32-bit numbers, or None for no turn.

    The matrix maps (x, y) to (a x + c y, b x + d y). The nearest of the eight orientations is used.
    """
    if display_matrix is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(display_matrix, "<i4")[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(True, b < 0, c < 0)
    return Orientation(False, d < 0, a < 0)
