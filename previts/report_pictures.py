"""Pictures of the report: training curves, strips of frames with their tube, attention beside the ground truth.

Stands for figures 1, 4 and 6 of PreViTS. Arrays in, bytes or SVG text out; reads and writes no file, and no text that
comes from data is ever drawn into a picture.

Shape suffixes: T frames, H W pixels, h w cells of the attention grid, C colour channels (RGB).
"""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[np.uint8]
Mask = NDArray[np.bool_]

CELL_WIDTH, CELL_HEIGHT, GAP = 168, 126, 2
TUBE = (255, 176, 0)
WEBP_QUALITY = 72
CURVE_POINTS = 160
# Okabe and Ito's colours without yellow and black, told apart by colour-blind people; then other dashes.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
DASHES = ("none", "6 2.5", "1.6 2", "7 2 1.6 2")
# Stands for the text colour of the page, so that the curves follow light and dark mode.
INK = "#123457"


def style(number: int) -> tuple[str, str]:
    """Return the colour and the SVG dash pattern of curve `number`; they repeat after 28 curves."""
    return COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]


def data_uri(image_HWC: Array) -> str:
    """Return an image as a `data:` URI (WebP)."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "WEBP", quality=WEBP_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def fit(height: int, width: int) -> tuple[int, int]:
    """Return height and width of a frame scaled to fit one cell of a strip, its shape kept."""
    scale = min(CELL_WIDTH / width, CELL_HEIGHT / height)
    return max(16, round(height * scale)), max(16, round(width * scale))


def row_of_cells(cells: Sequence[Array]) -> Array:
    """Return cells of one size side by side, with a thin gap."""
    gap = np.full((cells[0].shape[0], GAP, 3), 128, np.uint8)
    return np.concatenate([part for cell in cells for part in (gap, cell)][1:], axis=1)


def tube_strip(frames_THWC: Array, masks_THW: Mask) -> Array:
    """Return frames side by side with the tube tinted and outlined; a frame without it is grey and says "lost"."""
    return row_of_cells([_tube_cell(frame, mask) for frame, mask in zip(frames_THWC, masks_THW, strict=True)])


def attention_strip(
    key_HWC: Array, key_mask_HW: Mask, frames_THWC: Array, cams_Thw: NDArray[np.float32], masks_THW: Mask
) -> Array:
    """Return the key with all but its object dimmed, then frames with attention and the outline of the truth."""
    key = _resize(key_HWC)
    key = np.where(_resize_mask(key_mask_HW, key)[..., None], key, key // 3).astype(np.uint8)
    cells = [_outline(key, key_mask_HW, (255, 255, 255))]
    for frame, cam, mask in zip(frames_THWC, cams_Thw, masks_THW, strict=True):
        cells.append(_outline(_heat(_resize(frame), cam), mask, (255, 255, 255)))
    return row_of_cells(cells)


def grid_ious(cams_Thw: NDArray[np.float32], masks_THW: Mask) -> list[float | None]:
    """Return how well each attention map covers its object: intersection over union on the grid of the map.

    Map: scaled to [0, 1], kept from 0.5; object: cells it covers by more than half. None where it fills no cell.
    """
    ious: list[float | None] = []
    for cam, mask in zip(cams_Thw, masks_THW, strict=True):
        covered = cv2.resize(mask.astype(np.float32), cam.shape[::-1], interpolation=cv2.INTER_AREA) > 0.5
        attended = _unit(cam) >= 0.5
        ious.append(float((attended & covered).sum() / (attended | covered).sum()) if covered.any() else None)
    return ious


def curve_points(steps: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Return a curve with at most `CURVE_POINTS` points, each the mean of as many logged values (the last of fewer)."""
    size = -(-len(steps) // CURVE_POINTS)
    starts = np.arange(0, len(steps), size)
    lengths = np.diff([*starts, len(steps)])
    thin = [(np.add.reduceat(part, starts) / lengths).tolist() for part in (steps, values)]
    return thin[0], thin[1]


def curves(series: Mapping[int, tuple[Sequence[float], Sequence[float]]], name: str) -> str:
    """Return one panel of curves as inline SVG without any reference: `{number of the style: (steps, values)}`."""
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 10,
        "path.simplify_threshold": 0.3,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.4, 2.7), layout="constrained")
        axes = figure.add_subplot()
        for number, (steps, values) in sorted(series.items(), reverse=True):  # the first arm on top
            colour, dash = style(number)
            pattern = "-" if dash == "none" else (0, [float(part) / 1.5 for part in dash.split()])
            axes.plot(
                steps, values, color=colour, linestyle=pattern, linewidth=1.5, clip_on=False,
                marker="o" if len(steps) == 1 else None, markersize=4,
            )  # fmt: skip
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set(color=INK, alpha=0.45)
        axes.tick_params(colors=INK, length=3)
        axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.7)
        axes.set_xlabel("step", color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        axes.margins(x=0.01)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue())


def _thousands(value: float, _position: int) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def _inline(svg: str) -> str:
    """Return matplotlib's SVG file as an element of a page: no declarations, metadata, fixed size or outside names."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>|<clipPath.*?</clipPath>", "", svg, flags=re.DOTALL
    )
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"|\sclip-path="[^"]*"|(?<=<g)\sid="[^"]*"| font-family: [^;"]*;', "", svg)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', svg, count=1)
    svg = svg.replace("xlink:href=", "href=").replace(INK, "currentColor")
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


def _resize(frame_HWC: Array) -> Array:
    height, width = fit(*frame_HWC.shape[:2])
    resized: Array = cv2.resize(frame_HWC, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return resized


def _tube_cell(frame_HWC: Array, mask_HW: Mask) -> Array:
    cell = _resize(frame_HWC)
    if not mask_HW.any():
        return _lost(cell)
    tinted = _resize_mask(mask_HW, cell)[..., None]
    mixed = np.where(tinted, 0.6 * cell + 0.4 * np.array(TUBE), cell)
    return _outline(mixed.astype(np.uint8), mask_HW, TUBE)


def _lost(cell_HWC: Array) -> Array:
    grey = (cell_HWC.mean(axis=2, keepdims=True) * 0.5 + 40).repeat(3, axis=2).astype(np.uint8)
    image = Image.fromarray(grey)
    font = ImageFont.load_default(size=18)
    centre = (image.width / 2, image.height / 2)
    ImageDraw.Draw(image).text(centre, "lost", (255, 255, 255), font, "mm", stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(image)


def _heat(cell_HWC: Array, cam_hw: NDArray[np.float32]) -> Array:
    height, width = cell_HWC.shape[:2]
    cam = cv2.resize(_unit(cam_hw), (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    colour = cv2.applyColorMap((cam * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    weight = (0.35 + 0.35 * cam)[..., None]
    grey = cell_HWC.mean(axis=2, keepdims=True)
    mixed: Array = ((1 - weight) * grey + weight * colour).astype(np.uint8)
    return mixed


def _unit(cam_hw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a map scaled to [0, 1]; a flat map becomes all zero."""
    cam = np.nan_to_num(cam_hw.astype(np.float32))
    low, high = float(cam.min()), float(cam.max())
    return (cam - low) / (high - low) if high > low else np.zeros_like(cam)


def _outline(cell_HWC: Array, mask_HW: Mask, colour: tuple[int, int, int]) -> Array:
    cell = np.ascontiguousarray(cell_HWC)
    mask = _resize_mask(mask_HW, cell).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(cell, contours, -1, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.drawContours(cell, contours, -1, colour, 1, cv2.LINE_AA)
    return cell


def _resize_mask(mask_HW: Mask, like_HWC: Array) -> Mask:
    height, width = like_HWC.shape[:2]
    share = cv2.resize(mask_HW.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    resized: Mask = share >= min(0.5, float(share.max()))  # a mask smaller than a pixel stays visible
    return resized & (share > 0)
