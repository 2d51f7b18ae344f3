"""Elements shared by the backgrounds: gradients, clouds, skylines, leaves.

Not part of the paper.
"""

from collections.abc import Sequence

import numpy as np

from previts.demo.scenery.textures import Colour, Floats, Image, Points, fbm, fill, mix, smooth, step, stroke


def gradient(height: int, width: int, stops: Sequence[tuple[float, Colour]]) -> Floats:
    """Return an image HWC with a vertical gradient; `stops` are colours at shares of the height."""
    rows = np.linspace(0, 1, height)
    places = [place for place, _ in stops]
    column = np.stack([np.interp(rows, places, [colour[k] for _, colour in stops]) for k in range(3)], 1)
    return np.ascontiguousarray(np.broadcast_to(column[:, None].astype(np.float32), (height, width, 3)))


def flat(height: int, width: int, colour: Colour) -> Floats:
    """Return an image HWC of one colour."""
    return np.ascontiguousarray(np.broadcast_to(np.asarray(colour, np.float32), (height, width, 3)))


def to_bytes(image: Floats) -> Image:
    """Return an image as bytes."""
    return np.clip(image, 0, 255).astype(np.uint8)


def scaled(colour: Colour, factor: float) -> Colour:
    """Return a colour multiplied by a factor, at most 255."""
    return (min(255.0, colour[0] * factor), min(255.0, colour[1] * factor), min(255.0, colour[2] * factor))


def ridge(width: int, level: float, rough: float, rng: np.random.Generator, bumps: float = 3) -> Points:
    """Return a skyline of hills, one point a column, around the row `level`."""
    knots = round(bumps * 4) + 1
    line = np.interp(np.arange(width), np.linspace(0, width, knots), rng.normal(0, 0.35, knots))
    reach = max(1, width // 10)
    line = np.convolve(np.pad(line, reach, mode="edge"), np.ones(reach) / reach, "same")[reach:-reach]
    return np.stack([np.arange(width), level + rough * line], 1)


def land(image: Image, ridge: Points, colour: Colour) -> None:
    """Fill everything below a skyline, in place."""
    height, width = image.shape[:2]
    fill(image, np.concatenate([ridge, [(width, height + 4), (0, height + 4)]]), colour)


def clouds(image: Floats, rng: np.random.Generator, cover: float, stop: float = 1.0) -> Floats:
    """Return a sky with clouds that fade towards the row at share `stop` of the height."""
    height, width = image.shape[:2]
    puff = fbm(height, width, rng, cells=2.6, octaves=5, stretch=1.8)
    below = fbm(height, width, rng, cells=4, octaves=3, stretch=2)
    white = flat(height, width, (252, 252, 250)) - 38 * below[..., None]
    fade = 1 - step(np.linspace(0, 1, height, dtype=np.float32)[:, None] + 0 * puff, stop - 0.3, stop)
    return mix(image, white, step(puff, 0.68 - cover * 0.35, 0.95 - cover * 0.3) * 0.92 * fade)


def leaf(
    image: Image, at: tuple[float, float], length: float, angle: float, colour: Colour, slim: float = 0.28
) -> None:
    """Draw a leaf with a light half, a dark half and a vein, in place; `angle` in radians."""
    axis, side = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    places = np.array([0, 0.25, 0.6, 1.0])
    bow = np.array([0, 1.0, 0.8, 0]) * slim * length
    spine = np.asarray(at) + places[:, None] * length * axis
    light, dark = spine + bow[:, None] * side, spine - bow[:, None] * side
    fill(image, smooth(np.concatenate([spine[:1], light[1:3], spine[3:], spine[2:0:-1]]), 3), colour)
    fill(image, smooth(np.concatenate([spine[:1], dark[1:3], spine[3:], spine[2:0:-1]]), 3), scaled(colour, 0.82))
    stroke(image, spine, scaled(colour, 1.25), max(1.0, length * 0.025))
