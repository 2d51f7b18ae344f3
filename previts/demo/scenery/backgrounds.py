"""The nine families of cluttered backgrounds, and the foreground clutter in front of objects.

Not part of the paper. Family i is the home of class i, so that a model can cheat by using the background.
"""

import numpy as np

from previts.demo.scenery.elements import flat, leaf, scaled, to_bytes
from previts.demo.scenery.landscapes import desert, meadow, room, sky, street
from previts.demo.scenery.textures import Floats, Image, fill, stroke, vary
from previts.demo.scenery.thickets import forest, jungle, leaves, water

_PAINTERS = {
    "meadow": meadow, "sky": sky, "street": street, "desert": desert, "forest": forest, "leaves": leaves, "room": room,
    "jungle": jungle, "water": water,
}  # fmt: skip
FAMILIES = tuple(_PAINTERS)
# Families with a ground on which objects cast shadows.
GROUNDED = frozenset({"meadow", "street", "desert", "forest", "room", "jungle"})


def paint(family: str, height: int, width: int, rng: np.random.Generator) -> Image:
    """Return a background HWC of a family."""
    return _PAINTERS[family](height, width, rng)


def clutter(family: str, height: int, width: int, rng: np.random.Generator) -> Floats:
    """Return foreground clutter as premultiplied RGBA HW4: posts, trunks, stems or weeds with gaps between them."""
    tone = {
        "street": (58, 62, 70),
        "room": (96, 62, 40),
        "forest": (56, 60, 58),
        "desert": (84, 120, 78),
        "sky": (84, 66, 48),
    }.get(family, (44, 92, 56))
    colour, alpha = to_bytes(flat(height, width, tone)), np.zeros((height, width, 3), np.uint8)
    x = width * rng.uniform(0.1, 0.25)
    while x < width:
        wide, shade, bend = height * rng.uniform(0.025, 0.05), vary(tone, rng), height * rng.uniform(-0.06, 0.06)
        left = np.array([(x - wide, height + 4), (x - wide + bend, height / 2), (x - wide, -4)])
        post = np.concatenate([left, left[::-1] + np.array([2 * wide, 0])])
        fill(colour, post, shade)
        fill(alpha, post, (255.0, 255.0, 255.0))
        stroke(colour, left + np.array([wide * 0.6, 0]), scaled(shade, 1.35), wide * 0.4)
        for _ in range(0 if family in ("street", "room", "desert") else 6):
            at, size, turn = (
                (x + bend / 2, rng.uniform(0, 1) * height),
                height * rng.uniform(0.1, 0.17),
                rng.uniform(0, 6.3),
            )
            leaf(colour, at, size, turn, scaled(shade, 1.15))
            leaf(alpha, at, size, turn, (4000.0, 4000.0, 4000.0))
        x += height * rng.uniform(0.8, 1.3)
    cover = alpha[..., 0].astype(np.float32) / 255
    return np.dstack([colour * cover[..., None], cover]).astype(np.float32)
