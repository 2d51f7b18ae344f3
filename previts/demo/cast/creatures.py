"""Parts shared by the animals of the demo world: coats, eyes and colours.

Not part of the paper.

Units: a body is about 1 long and faces +x; y points down.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from previts.demo.scenery.textures import Colour, Detail, Texture, ellipse, vary

BLACK, WHITE, PINK = (22.0, 20.0, 22.0), (244.0, 242.0, 236.0), (226.0, 140.0, 140.0)


@dataclass(frozen=True)
class Coat:
    """Colours of back, belly and marking, and the texture of the skin."""

    back: Colour
    belly: Colour
    mark: Colour
    texture: Texture


def pick(rng: np.random.Generator, coats: Sequence[Coat]) -> Coat:
    """Return one of the coats, with slightly varied colours."""
    coat = coats[int(rng.integers(len(coats)))]
    return Coat(vary(coat.back, rng), vary(coat.belly, rng), vary(coat.mark, rng), coat.texture)


def eye(x: float, y: float, size: float, iris: Colour = BLACK, white: Colour = WHITE) -> list[Detail]:
    """Return an eye with a glint that looks towards +x."""
    return [
        Detail(ellipse(x, y, size, size), white),
        Detail(ellipse(x + 0.2 * size, y, 0.68 * size, 0.72 * size), iris),
        Detail(ellipse(x + 0.35 * size, y - 0.3 * size, 0.24 * size, 0.24 * size, count=10), WHITE),
    ]


def darker(colours: Sequence[Colour], factor: float = 0.72) -> tuple[Colour, ...]:
    """Return colours for a limb on the far side."""
    return tuple((red * factor, green * factor, blue * factor) for red, green, blue in colours)


def pinkish(face: Colour) -> Colour:
    """Return the muzzle colour for a face: halfway between the face and pink."""
    return (0.5 * face[0] + 0.5 * PINK[0], 0.5 * face[1] + 0.5 * PINK[1], 0.5 * face[2] + 0.5 * PINK[2])
