"""Drawing for figures: frames with a tube, a map or an outline, and sheets of such frames with titles.

The figures correspond to figures 1 and 4 of PreViTS. This module works on arrays; it reads and writes no files.

Shape suffixes: T frames, H W pixels, h w cells of a map, C colour channels (RGB).
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Map = NDArray[np.float32]
Colour = tuple[int, int, int]

CELL_WIDTH, CELL_HEIGHT, GAP = 168, 126, 2  # pixels
NAMES_WIDTH = 64  # pixels; width of the column of row names at the left of a sheet
TUBE: Colour = (255, 176, 0)
WHITE: Colour = (255, 255, 255)
PAPER, INK = (250, 250, 250), (20, 20, 20)
FONT_SIZE = 14  # pixels


def fit(height: int, width: int) -> tuple[int, int]:
    """Return height and width of a frame that is scaled to fit a cell; its aspect ratio is kept."""
    scale = min(CELL_WIDTH / width, CELL_HEIGHT / height)
    return max(16, round(height * scale)), max(16, round(width * scale))


def resize(frame_HWC: Array) -> Array:
    """Return a frame scaled to fit a cell."""
    height, width = fit(*frame_HWC.shape[:2])
    return np.asarray(cv2.resize(frame_HWC, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def resize_mask(mask_HW: Mask, like_HWC: Array) -> Mask:
    """Return a mask at the size of an image; an object that becomes smaller than a pixel stays visible."""
    height, width = like_HWC.shape[:2]
    if mask_HW.shape == (height, width):
        return mask_HW
    share = cv2.resize(mask_HW.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray((share >= min(0.5, float(share.max()))) & (share > 0))


def resize_map(map_HW: Map, like_HWC: Array) -> Map:
    """Return a map at the size of an image."""
    height, width = like_HWC.shape[:2]
    return np.asarray(cv2.resize(map_HW, (width, height), interpolation=cv2.INTER_AREA), dtype=np.float32)


def with_tube(image_HWC: Array, mask_HW: Mask, absent: str = "lost") -> Array:
    """Return an image with the tube tinted and outlined; with an empty mask, a grey image with the word `absent`."""
    if not mask_HW.any():
        return _grey(image_HWC, absent)
    tinted = resize_mask(mask_HW, image_HWC)[..., None]
    mixed = np.where(tinted, 0.6 * image_HWC + 0.4 * np.array(TUBE), image_HWC)
    return outline(mixed.astype(np.uint8), mask_HW, TUBE)


def _grey(image_HWC: Array, word: str) -> Array:
    grey = (image_HWC.mean(axis=2, keepdims=True) * 0.5 + 40).repeat(3, axis=2).astype(np.uint8)
    image = Image.fromarray(grey)
    font = ImageFont.load_default(size=max(18, image.height // 8))
    centre = (image.width / 2, image.height / 2)
    ImageDraw.Draw(image).text(centre, word, WHITE, font, "mm", stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(image)


def only(image_HWC: Array, mask_HW: Mask) -> Array:
    """Return an image that is nearly black outside a mask; the mask is outlined in white."""
    kept = resize_mask(mask_HW, image_HWC)[..., None]
    return outline(np.where(kept, image_HWC, image_HWC // 5).astype(np.uint8), mask_HW, WHITE)


def heat(map_HW: Map) -> Array:
    """Return a map of values in [0, 1] as colours from black (0) to yellow (1)."""
    levels = (map_HW.clip(0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1])


def heat_over(image_HWC: Array, map_hw: Map) -> Array:
    """Return an image in grey with a map over it in colours; the map is scaled to [0, 1]."""
    height, width = image_HWC.shape[:2]
    scaled = cv2.resize(unit(map_hw), (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    weight = (0.35 + 0.35 * scaled)[..., None]
    grey = image_HWC.mean(axis=2, keepdims=True)
    mixed: Array = ((1 - weight) * grey + weight * heat(scaled)).astype(np.uint8)
    return mixed


def unit(map_hw: Map) -> Map:
    """Return a map scaled to [0, 1]; a constant map becomes all zero."""
    values = np.nan_to_num(map_hw.astype(np.float32))
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def outline(image_HWC: Array, mask_HW: Mask, colour: Colour) -> Array:
    """Return an image with the outline of a mask."""
    image = np.array(image_HWC)  # a copy, because OpenCV draws in place
    mask = resize_mask(mask_HW, image).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, contours, -1, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.drawContours(image, contours, -1, colour, 1, cv2.LINE_AA)
    return image


def row_of_cells(cells: Sequence[Array], gap: Colour = (128, 128, 128)) -> Array:
    """Return cells of the same height side by side, with a gap of `GAP` pixels."""
    between = np.full((cells[0].shape[0], GAP, 3), gap, np.uint8)
    return np.concatenate([part for cell in cells for part in (between, cell)][1:], axis=1)


def sheet(titles: Sequence[str], rows: Sequence[tuple[str, Sequence[Array]]]) -> Array:
    """Return a sheet: column titles above rows of cells of one size, and the name of each row at the left."""
    height, width = rows[0][1][0].shape[:2]
    widths = [max(width, _length(title)) for title in titles]
    head = [_text(title, space, 24) for title, space in zip(["", *titles], [NAMES_WIDTH, *widths], strict=True)]
    lines = [row_of_cells(head, PAPER)]
    for name, cells in rows:
        centred = [_centred(cell, space) for cell, space in zip(cells, widths, strict=True)]
        lines.append(row_of_cells([_text(name, NAMES_WIDTH, height), *centred], PAPER))
    gap = np.full((GAP, lines[0].shape[1], 3), PAPER, np.uint8)
    return np.concatenate([part for line in lines for part in (line, gap)], axis=0)


def _centred(cell: Array, width: int) -> Array:
    """Return a cell with margins at the left and right, so that it has the width of its column."""
    before = (width - cell.shape[1]) // 2
    after = width - cell.shape[1] - before
    left, right = (np.full((cell.shape[0], margin, 3), PAPER, np.uint8) for margin in (before, after))
    return np.concatenate([left, cell, right], axis=1)


def _length(text: str) -> int:
    """Return the width of a text in pixels, with its margin."""
    return int(ImageFont.load_default(size=FONT_SIZE).getlength(text)) + 6


def _text(text: str, width: int, height: int) -> Array:
    """Return a cell with a text in its centre."""
    image = Image.new("RGB", (width, height), PAPER)
    font = ImageFont.load_default(size=FONT_SIZE)
    ImageDraw.Draw(image).text((width / 2, height / 2), text, INK, font, "mm")
    return np.asarray(image)
