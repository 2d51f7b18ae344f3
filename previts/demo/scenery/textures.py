"""Drawing primitives of the demo world: noise, curves, polygons, surface textures and shaded sprites.

Not part of the paper. Random numbers come only from the generator that the caller passes.

Images are RGB and colours are triples in [0, 255]. Sprites are float32 RGBA: alpha in [0, 1], colours in [0, 255] and
premultiplied by alpha.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Points = NDArray[np.float64]
Image = NDArray[np.uint8]
Colour = tuple[float, float, float]
Texture = Literal["plain", "fur", "stripes", "spots", "patches", "scales", "feathers", "metal", "wood", "bands"]

_SUBPIXEL = 4  # fractional bits of the fixed-point coordinates of OpenCV


def fbm(
    height: int, width: int, rng: np.random.Generator, *, cells: float = 4, octaves: int = 4, stretch: float = 1.0
) -> Floats:
    """Return fractal noise HW in [0, 1] with `cells` bumps over the height; `stretch` > 1 widens them along x."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        rows = max(2, min(height, round(cells * 2**octave))) + 2
        columns = max(2, min(width, round(cells * 2**octave * width / height / stretch))) + 2
        grid = rng.random((rows, columns), dtype=np.float32)
        total += 0.5**octave * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    low, high = float(total.min()), float(total.max())
    return np.asarray((total - low) / max(high - low, 1e-6), np.float32)


def smooth(points: Sequence[tuple[float, float]] | Points, steps: int = 6) -> Points:
    """Return the closed Catmull-Rom curve through N points, as N*steps x 2."""
    p1 = np.asarray(points, float)
    p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
    t = (np.arange(steps) / steps)[None, :, None]
    a, b, c, d = (q[:, None] for q in (2 * p1, p2 - p0, 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * p1 - p0 - 3 * p2 + p3))
    curve: Points = 0.5 * (a + b * t + c * t**2 + d * t**3)
    return curve.reshape(-1, 2)


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0, count: int = 28) -> Points:
    """Return the outline of an ellipse, N x 2."""
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    u, v = rx * np.cos(t), ry * np.sin(t)
    return np.stack([x + u * np.cos(angle) - v * np.sin(angle), y + u * np.sin(angle) + v * np.cos(angle)], 1)


def limb(length: float, start: float, end: float, foot: float = 0.0) -> Points:
    """Return the outline of a tapered limb from the origin along +y; `foot` is the length of a paw towards +x."""
    a, b = start / 2, end / 2
    tip = [(b + foot, length - 0.1 * foot), (b + foot, length + b)] if foot else [(b * 0.8, length + b * 0.8)]
    return smooth([(a, 0), (0.4 * a + 0.6 * b, length * 0.6), (b, length - foot * 0.6), *tip, (-b, length + b),
                   (-b, length * 0.8), (-0.6 * a - 0.4 * b, length * 0.4), (-a, 0), (0, -a)], 4)  # fmt: skip


def fill(image: Image, points: Points, colour: Colour | float) -> None:
    """Fill a polygon in place, antialiased; `points` N x 2 in pixels."""
    fixed = np.round(np.asarray(points) * (1 << _SUBPIXEL)).astype(np.int32)
    cv2.fillPoly(image, [fixed], colour if isinstance(colour, tuple) else (colour,), cv2.LINE_AA, _SUBPIXEL)


def stroke(image: Image, points: Points, colour: Colour | float, width: float = 1.0, *, closed: bool = False) -> None:
    """Draw a polyline in place, antialiased; `points` N x 2 and `width` in pixels."""
    fixed = np.round(np.asarray(points) * (1 << _SUBPIXEL)).astype(np.int32)
    value = colour if isinstance(colour, tuple) else (colour,)
    cv2.polylines(image, [fixed], closed, value, max(1, round(width)), cv2.LINE_AA, _SUBPIXEL)


def mix(first: Floats, second: Floats, weight: Floats) -> Floats:
    """Return the blend of two images: `first` where `weight` HW is 0, `second` where it is 1."""
    return np.asarray(first + (second - first) * weight[..., None], np.float32)


def step(values: Floats, low: float, high: float) -> Floats:
    """Return the smoothstep of `values`, from 0 at `low` to 1 at `high`."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def vary(colour: Colour, rng: np.random.Generator, amount: float = 14.0) -> Colour:
    """Return a random colour near `colour`, with another brightness and a slight tint."""
    value = np.clip(np.array(colour) * rng.uniform(0.88, 1.1) + rng.normal(0, amount / 2, 3), 4, 251)
    return float(value[0]), float(value[1]), float(value[2])


@dataclass(frozen=True)
class Detail:
    """A marking on a part, painted before shading: a filled polygon, or a line if `width` > 0 (in units)."""

    points: Points
    colour: Colour
    width: float = 0.0


@dataclass(frozen=True)
class Sprite:
    """The shaded image of one part; `to_local` maps its pixels to the units of the part."""

    rgba: Floats
    to_local: NDArray[np.float64]


def paint_texture(
    texture: Texture, colours: Sequence[Colour], x: Floats, y: Floats, rng: np.random.Generator
) -> Floats:
    """Return the surface HWC of a part, without details and shading.

    Args:
        texture: Kind of surface.
        colours: Colours of back, belly and marking.
        x: Horizontal coordinates HW in units, so that the size of a pattern does not depend on the resolution.
        y: Vertical coordinates HW in units.
        rng: Generator for the pattern.
    """
    height, width = x.shape
    back, belly, mark = (np.asarray(colours[min(i, len(colours) - 1)], np.float32) for i in range(3))
    low, high = float(y.min()), float(y.max())
    surface = mix(back, belly, step(y, low + 0.45 * (high - low), high))
    per_unit = height / max(high - low, 1e-6)
    grain = fbm(
        height, width, rng, cells=max(3.0, height / 5), octaves=2, stretch=3 if texture in ("fur", "wood") else 1
    )
    warp = fbm(height, width, rng, cells=max(2.0, 6 * height / per_unit), octaves=2) - 0.5
    match texture:
        case "stripes":
            wave = np.sin(x * 38 + warp * 7 + 2.5 * np.sin(y * 9))
            surface = mix(surface, mark, step(wave, 0.25, 0.6) * (1 - 0.6 * step(y, low + 0.6 * (high - low), high)))
        case "bands":
            surface = mix(surface, mark, step(np.sin(x * 13 + warp), 0.35, 0.5))
        case "spots" | "scales" | "feathers":
            pitch = {"spots": 0.14, "scales": 0.062, "feathers": 0.08}[texture]
            row = np.floor(y / pitch)
            u = x / pitch + 0.5 * (row % 2) + (warp * 1.2 if texture == "spots" else 0)
            distance = np.hypot(u - np.floor(u) - 0.5, y / pitch - row - 0.5).astype(np.float32)
            if texture == "spots":
                surface = mix(surface, mark, 1 - step(distance, 0.26, 0.38))
            else:
                surface *= (1.14 - 0.5 * step(distance, 0.15, 0.75))[..., None]
        case "patches":
            surface = mix(surface, mark, step(fbm(height, width, rng, cells=2.4, octaves=2), 0.5, 0.56))
        case "wood":
            surface *= (0.88 + 0.2 * np.sin(y * 60 + warp * 16))[..., None]
        case "metal":
            gloss = np.exp(-(((y - low) / (high - low) - 0.28) ** 2) / 0.012)
            surface = surface * (0.95 + 0.1 * (grain - 0.5))[..., None] + 55 * gloss[..., None]
        case "plain" | "fur":
            pass
    if texture not in ("metal", "plain"):
        surface = surface * (1 + (0.42 if texture == "fur" else 0.24) * (grain - 0.5))[..., None]
    return np.asarray(surface, np.float32)


def make_sprite(
    outline: Points,
    colours: Sequence[Colour],
    texture: Texture,
    details: Sequence[Detail],
    pixels: float,
    rng: np.random.Generator,
) -> Sprite:
    """Return the textured and shaded sprite of a part.

    Args:
        outline: Closed polygon N x 2 in units.
        colours: Colours of back, belly and marking.
        texture: Kind of surface.
        details: Markings, painted in this order.
        pixels: Resolution in pixels a unit.
        rng: Generator for the texture.
    """
    low, high = outline.min(0) - 2.5 / pixels, outline.max(0) + 2.5 / pixels
    width, height = (max(6, int(np.ceil(side))) for side in (high - low) * pixels)
    alpha = np.zeros((height, width), np.uint8)
    fill(alpha, (outline - low) * pixels - 0.5, 255.0)
    x, y = np.meshgrid(
        (low[0] + (np.arange(width) + 0.5) / pixels).astype(np.float32),
        (low[1] + (np.arange(height) + 0.5) / pixels).astype(np.float32),
    )
    surface = np.clip(paint_texture(texture, colours, x, y, rng), 0, 255).astype(np.uint8)
    for detail in details:
        points = (detail.points - low) * pixels - 0.5
        if detail.width:
            stroke(surface, points, detail.colour, detail.width * pixels)
        else:
            fill(surface, points, detail.colour)
    lit = surface * _light(alpha, pixels)[..., None]
    cover = alpha.astype(np.float32) / 255
    rgba = np.dstack([np.clip(lit, 0, 255) * cover[..., None], cover]).astype(np.float32)
    to_local = np.array([[1 / pixels, 0, low[0] + 0.5 / pixels], [0, 1 / pixels, low[1] + 0.5 / pixels], [0, 0, 1]])
    return Sprite(np.ascontiguousarray(rgba), to_local)


def _light(alpha: Image, pixels: float) -> Floats:
    """Return the brightness HW of a rounded body with this silhouette: lit from the upper left, dark at the rim."""
    inside = cv2.distanceTransform((alpha > 127).astype(np.uint8), cv2.DIST_L2, 3)
    depth = max(2.0, min(float(inside.max()), 0.16 * pixels))
    across = np.clip(inside / depth, 0, 1)
    bulge = cv2.GaussianBlur(np.sqrt(1 - (1 - across) ** 2).astype(np.float32) * depth, (0, 0), 0.02 * pixels + 0.6)
    slope_x, slope_y = cv2.Sobel(bulge, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(bulge, cv2.CV_32F, 0, 1, scale=1 / 8)
    norm = np.sqrt(slope_x**2 + slope_y**2 + 1)
    lambert = np.clip((0.35 * slope_x + 0.75 * slope_y + 0.56) / norm, 0, 1)
    rim = 0.72 + 0.28 * np.clip(inside / max(1.2, 0.014 * pixels), 0, 1)
    return np.asarray((0.62 + 0.62 * lambert) * rim, np.float32)
