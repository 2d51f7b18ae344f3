"""The canvas of a normalised video: the size of its frames, and the rotation that shows the source upright.

It prepares the corpora of PreViTS section 4.1. This module computes sizes and turns planes; it decodes and scales
nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from previts.errors import VideoError

Pixels = NDArray[np.uint8]

MIN_SIDE = 16  # pixels


@dataclass(frozen=True)
class Canvas:
    """Width and height before the turn in pixels; the turn transposes, then flips rows, then flips columns."""

    width: int
    height: int
    swap: bool
    flip_rows: bool
    flip_columns: bool

    def turn(self, planes: Pixels) -> Pixels:
        """Return packed yuv420p planes (height * 3 / 2, width) of this canvas upright."""
        if not (self.swap or self.flip_rows or self.flip_columns):
            return planes
        height, width, quarter = self.height, self.width, self.height * self.width // 4
        flat = planes.reshape(-1)
        luma = self._turn_plane(flat[: height * width].reshape(height, width))
        chroma = flat[height * width :].reshape(2, quarter)
        turned = [self._turn_plane(plane.reshape(height // 2, width // 2)) for plane in chroma]
        return np.concatenate([plane.reshape(-1) for plane in (luma, *turned)]).reshape(-1, luma.shape[1])

    def _turn_plane(self, plane: Pixels) -> Pixels:
        plane = plane.T if self.swap else plane
        plane = plane[::-1] if self.flip_rows else plane
        return plane[:, ::-1] if self.flip_columns else plane


def make_canvas(
    width: int, height: int, pixel_aspect: float, max_short_side: int, display_matrix: bytes | None
) -> Canvas:
    """Return the canvas for frames of a size: square pixels, even sides, scaled down but never up.

    Args:
        width: Width of the source's frames in pixels.
        height: Height of the source's frames in pixels.
        pixel_aspect: Width / height of one pixel of the source.
        max_short_side: Longest allowed short side in pixels.
        display_matrix: The container's nine 32-bit numbers that describe the turn, if it has them.

    Raises:
        VideoError: If a side would be shorter than `MIN_SIDE`.
    """
    true_width, true_height = min(width, width * pixel_aspect), min(height, height / pixel_aspect)
    shrink = min(1.0, max_short_side // 2 * 2 / min(true_width, true_height))
    canvas = Canvas(
        min(_even(true_width * shrink), width // 2 * 2),
        min(_even(true_height * shrink), height // 2 * 2),
        *_orientation(display_matrix),
    )
    if min(canvas.width, canvas.height) < MIN_SIDE:
        raise VideoError(f"frames of {width}x{height} are too small; both sides need {MIN_SIDE} px")
    return canvas


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))


def _orientation(display_matrix: bytes | None) -> tuple[bool, bool, bool]:
    """Return (transpose, flip rows, flip columns): the steps, in this order, that show a frame upright.

    The display matrix maps (x, y) to (a x + c y, b x + d y). The nearest of the eight orientations is used.
    """
    if display_matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(display_matrix, "<i4")[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, b < 0, c < 0
    return False, d < 0, a < 0
