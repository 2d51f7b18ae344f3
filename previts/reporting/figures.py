"""Images of the report: curves, histograms, strips of frames with their tube, attention with the ground truth.

Figures 1, 4, 5 and 6 of PreViTS. Arrays in, bytes or SVG text out. Reads and writes no files. Text from data is drawn
only by `interval_dots`, as escaped text of its SVG.

Shape suffixes: T frames, H W pixels, h w cells of the attention grid, C colour channels (RGB).
"""

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, Literal

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from previts.media import drawing

Array = NDArray[np.uint8]
Mask = NDArray[np.bool_]

WEBP_QUALITY = 72
CURVE_POINTS = 160
# Okabe and Ito's colours without yellow and black, which colour-blind people can distinguish; then other dashes.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
DASHES = ("none", "6 2.5", "1.6 2", "7 2 1.6 2")
# A placeholder for the text colour of the page, so that the curves follow light and dark mode.
INK = "#123457"


def style(number: int) -> tuple[str, str]:
    """Return the colour and the SVG dash pattern of curve `number`; the styles repeat after 28 curves."""
    return COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]


def data_uri(image_HWC: Array) -> str:
    """Return an image as a `data:` URI (WebP)."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "WEBP", quality=WEBP_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def tube_strip(frames_THWC: Array, masks_THW: Mask, exact_THW: Mask | None = None) -> Array:
    """Return frames side by side with the tube tinted and outlined; a frame without a tube is grey and reads "lost".

    The outline of exact masks, where given, is white.
    """
    strip = [drawing.with_tube(drawing.resize(frame), mask) for frame, mask in zip(frames_THWC, masks_THW, strict=True)]
    if exact_THW is not None:
        strip = [drawing.outline(cell, exact, drawing.WHITE) for cell, exact in zip(strip, exact_THW, strict=True)]
    return drawing.row_of_cells(strip)


def attention_strip(
    key_HWC: Array, key_mask_HW: Mask, *, frames_THWC: Array, cams_Thw: NDArray[np.float32], masks_THW: Mask
) -> Array:
    """Return the key with its background dimmed, then frames with attention and the outline of the ground truth."""
    key = drawing.resize(key_HWC)
    key = np.where(drawing.resize_mask(key_mask_HW, key)[..., None], key, key // 3).astype(np.uint8)
    strip = [drawing.outline(key, key_mask_HW, drawing.WHITE)]
    for frame, cam, mask in zip(frames_THWC, cams_Thw, masks_THW, strict=True):
        strip.append(drawing.outline(drawing.heat_over(drawing.resize(frame), cam), mask, drawing.WHITE))
    return drawing.row_of_cells(strip)


def class_strip(frames_THWC: Array, cams_Thw: NDArray[np.float32]) -> Array:
    """Return frames side by side with the attention for a class, each on its own scale."""
    strip = [drawing.heat_over(drawing.resize(frame), cam) for frame, cam in zip(frames_THWC, cams_Thw, strict=True)]
    return drawing.row_of_cells(strip)


def grid_ious(cams_Thw: NDArray[np.float32], masks_THW: Mask) -> list[float | None]:
    """Return the intersection over union of each attention map and its object, on the grid of the map.

    Attended cells: at least 0.5 of the map scaled to [0, 1]. Object cells: more than half covered. None if there are no
    object cells.
    """
    ious: list[float | None] = []
    for cam, mask in zip(cams_Thw, masks_THW, strict=True):
        covered = cv2.resize(mask.astype(np.float32), cam.shape[::-1], interpolation=cv2.INTER_AREA) > 0.5
        attended = drawing.unit(cam) >= 0.5
        ious.append(float((attended & covered).sum() / (attended | covered).sum()) if covered.any() else None)
    return ious


def curve_points(steps: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Return a curve with at most `CURVE_POINTS` points, each the mean of equally many values (the last of fewer)."""
    size = -(-len(steps) // CURVE_POINTS)
    starts = np.arange(0, len(steps), size)
    lengths = np.diff([*starts, len(steps)])
    thin = [(np.add.reduceat(part, starts) / lengths).tolist() for part in (steps, values)]
    return thin[0], thin[1]


def curves(series: Mapping[int, tuple[Sequence[float], Sequence[float]]], name: str, across: str = "step") -> str:
    """Return one panel of curves as inline SVG without references: `{number of the style: (steps, values)}`."""

    def draw(axes: Axes) -> None:
        for number, (steps, values) in sorted(series.items(), reverse=True):  # the first arm on top
            colour, dash = style(number)
            pattern = "-" if dash == "none" else (0, [float(part) / 1.5 for part in dash.split()])
            axes.plot(
                steps, values, color=colour, linestyle=pattern, linewidth=1.5, clip_on=False,
                marker="o" if len(steps) == 1 else None, markersize=4,
            )  # fmt: skip
        axes.set_xlabel(across, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        axes.margins(x=0.01)

    return _drawn([draw], name, (4.4, 2.7))


@dataclass(frozen=True)
class Points:
    """Values at places, with half of their intervals; NaN where a value or an interval is not known."""

    places: Sequence[float]
    values: Sequence[float]
    halves: Sequence[float]


def interval_curves(
    series: Mapping[int, Points], name: str, across: str, paper: Points | None = None, *, unit: str = ""
) -> str:
    """Return curves with intervals as inline SVG: `{number of the style: points}`.

    Args:
        series: The curves.
        name: Distinguishes the SVGs of a page.
        across: What the places are.
        paper: The paper's curve, in a lower panel with the same places and a scale of its own.
        unit: The end of the titles of the upright axes.
    """
    places = sorted({place for points in series.values() for place in points.places})

    def draw(axes: Axes) -> None:
        for number, points in sorted(series.items(), reverse=True):  # the first arm on top
            # Intervals at one place stay apart.
            shift = 0.012 * (places[-1] - places[0]) * (number - (len(series) - 1) / 2)
            axes.errorbar(
                [place + shift for place in points.places], points.values, points.halves,
                color=style(number)[0], marker="o", markersize=5, linewidth=1.5, elinewidth=1.5, capsize=3,
            )  # fmt: skip
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.set_ylabel(f"measured{unit}", color=INK)

    def draw_paper(axes: Axes) -> None:
        assert paper
        axes.plot(paper.places, paper.values, color=INK, marker="D", markersize=4, linewidth=1.2, linestyle=(0, (4, 2)))
        axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]))
        axes.set_ylabel(f"paper{unit}", color=INK)
        axes.margins(y=0.2)

    def draw_below(axes: Axes) -> None:
        axes.set_xlabel(across, color=INK)
        axes.set_xticks(places, [f"{place:g}" for place in places])

    panels = [(draw, 2.0), (draw_paper, 1.0)] if paper else [(draw, 1.0)]
    return _drawn(
        [panel for panel, _ in panels], name, (4.4, 3.7 if paper else 2.7), [part for _, part in panels], draw_below
    )


def interval_dots(
    points: Points, titles: Sequence[str], colours: Sequence[str], name: str, reference: float | None = None
) -> str:
    """Return the values of arms below each other as dots with intervals, as inline SVG.

    Args:
        points: The values and intervals; places are the numbers of the lines from the top.
        titles: The arms, which are cut if they are long.
        colours: Of each arm.
        name: Distinguishes the SVGs of a page.
        reference: The value that a dotted line marks.
    """

    def draw(axes: Axes) -> None:
        for place, value, half, colour in zip(points.places, points.values, points.halves, colours, strict=True):
            axes.errorbar(value, place, xerr=half, color=colour, marker="o", markersize=6, elinewidth=1.8, capsize=3)
        if reference is not None:
            axes.axvline(reference, color=INK, alpha=0.5, linewidth=1, linestyle=(0, (1, 2)), zorder=0)
        lines = ["\n".join(wrap(title, 20, max_lines=2, placeholder=" …")) for title in titles]
        axes.set_yticks(points.places, lines, parse_math=False)
        axes.set_ylim(len(titles) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))

    return _drawn([draw], name, (4.4, 0.6 + 0.42 * len(titles)), grid="x")


def share_curve(shares: Sequence[float], values: Sequence[float], across: str, up: str) -> str:
    """Return a falling curve of shares over shares as inline SVG."""

    def draw(axes: Axes) -> None:
        axes.plot(shares, values, color=COLOURS[0], linewidth=2, clip_on=False)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.set_xlabel(across, color=INK)
        axes.set_ylabel(up, color=INK)
        axes.xaxis.set_major_formatter(FuncFormatter(_percent))
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))

    return _drawn([draw], across + up, (3.4, 2.3))


def histogram(values: Sequence[float], across: str, up: str, *, percent: bool) -> str:
    """Return a histogram of values in [0, 1], with at most 20 bins up to the largest value, as inline SVG."""
    # A round step, and at most 20 of them.
    step = next(step for step in (0.005, 0.01, 0.02, 0.025, 0.05) if max(values) <= 20 * step or step == 0.05)
    counts, edges = np.histogram(values, np.arange(0, 1 + step / 2, step))
    last = max(int(np.flatnonzero(counts)[-1]) + 1, 4)

    def draw(axes: Axes) -> None:
        axes.bar(edges[:last], counts[:last], width=0.9 * step, align="edge", color=COLOURS[0])
        axes.set(xlim=(0, edges[last]))
        axes.set_xlabel(across, color=INK)
        axes.set_ylabel(up, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        if percent:
            axes.xaxis.set_major_formatter(FuncFormatter(_percent))

    return _drawn([draw], across + up, (3.4, 2.3))


def _drawn(
    draws: Sequence[Callable[[Axes], None]],
    name: str,
    inches: tuple[float, float],
    parts: Sequence[float] = (1.0,),
    below: Callable[[Axes], None] | None = None,
    grid: Literal["x", "y"] = "y",
) -> str:
    """Return drawings below each other in the colours of the page, as inline SVG.

    Args:
        draws: Draw on the axes of one panel each.
        name: Distinguishes the SVGs of a page.
        inches: Width and height.
        parts: The relative heights of the panels, which share the axis across.
        below: Sets this axis, after all drawings.
        grid: The axis whose values have lines.
    """
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 10,
        "path.simplify_threshold": 0.3,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=inches, layout="constrained")
        panels = figure.subplots(len(draws), sharex=True, squeeze=False, height_ratios=parts)[:, 0]
        for draw, axes in zip(draws, panels, strict=True):
            draw(axes)
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set(color=INK, alpha=0.45)
            axes.tick_params(colors=INK, length=3)
            axes.set_axisbelow(True)
            axes.grid(axis=grid, color=INK, alpha=0.15, linewidth=0.7)
        if below:
            below(panels[-1])
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue())


def _thousands(value: float, _position: int) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def _percent(value: float, _position: int) -> str:
    return f"{100 * value:.4g} %"


def _inline(svg: str) -> str:
    """Return matplotlib's SVG as an element of a page: no declarations, metadata, fixed size or external names."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>|<clipPath.*?</clipPath>", "", svg, flags=re.DOTALL
    )
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"|\sclip-path="[^"]*"|(?<=<g)\sid="[^"]*"| font-family: [^;"]*;', "", svg)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', svg, count=1)
    svg = svg.replace("xlink:href=", "href=").replace(INK, "currentColor")
    return re.sub(r"\s*\n\s*", "\n", svg).strip()
