"""Articulated puppets: textured parts with joints, drawn at any pose with exact coverage.

Not part of the paper. The shapes of the kinds are in `animals`, `beasts`, `crawlers` and `things`.

Units: a puppet is about 1 long and faces +x; y points down. Matrices are 3x3 and act on column vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from previts.demo.scenery.textures import Colour, Detail, Floats, Points, Sprite, Texture, make_sprite

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """One rigid part: its outline around its joint, and the motion of the joint.

    `swing` is amplitude (radians), cycles a gait cycle, phase (turns). `spin` is in turns a gait cycle. `flap` in
    [0, 1) is the share by which the part folds along y. Parts are drawn in the order of their list.
    """

    name: str
    outline: Points
    colours: Sequence[Colour]
    texture: Texture = "plain"
    parent: str = ""
    joint: tuple[float, float] = (0.0, 0.0)
    rest: float = 0.0
    swing: tuple[float, float, float] = (0.0, 1.0, 0.0)
    spin: float = 0.0
    flap: float = 0.0
    details: Sequence[Detail] = ()


@dataclass(frozen=True)
class Puppet:
    """Parts with their sprites; `area` and `box` (xyxy) are those of the puppet at rest, in units."""

    parts: tuple[Part, ...]
    sprites: tuple[Sprite, ...]
    area: float
    box: tuple[float, float, float, float]


def affine(x: float, y: float, angle: float = 0.0, scale_x: float = 1.0, scale_y: float = 1.0) -> Matrix:
    """Return the matrix that scales, then rotates (radians, clockwise on screen), then moves to (x, y)."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine * scale_x, -sine * scale_y, x], [sine * scale_x, cosine * scale_y, y], [0, 0, 1]])


def joints(parts: Sequence[Part], phase: float) -> list[Matrix]:
    """Return for each part the matrix from its units to those of the puppet, at a gait phase (turns).

    Raises:
        ValueError: If a parent does not exist.
    """
    known: dict[str, Matrix] = {"": np.eye(3)}
    waiting = list(parts)
    while waiting:
        ready = [part for part in waiting if part.parent in known]
        if not ready:
            raise ValueError(f"parts name parents that do not exist: {[(part.name, part.parent) for part in waiting]}")
        for part in ready:
            amplitude, cycles, offset = part.swing
            angle = (
                part.rest + amplitude * np.sin(2 * np.pi * (cycles * phase + offset)) + 2 * np.pi * part.spin * phase
            )
            fold = 1 - part.flap * (0.5 + 0.5 * np.sin(2 * np.pi * (cycles * phase + offset)))
            known[part.name] = known[part.parent] @ affine(*part.joint, angle, 1.0, fold)
        waiting = [part for part in waiting if part.name not in known]
    return [known[part.name] for part in parts]


def build_puppet(parts: Sequence[Part], pixels: float, rng: np.random.Generator) -> Puppet:
    """Return a puppet with its sprites, drawn at a resolution of `pixels` a unit, and its area and bounding box."""
    sprites = [make_sprite(part.outline, part.colours, part.texture, part.details, pixels, rng) for part in parts]
    corners = []
    # The area is counted in a square raster of 3 units: 80 pixels a unit, the origin of the body in the middle.
    raster, size = np.zeros((240, 240), np.uint8), 80.0
    for part, matrix in zip(parts, joints(parts, 0.0), strict=True):
        outline = part.outline @ matrix[:2, :2].T + matrix[:2, 2]
        corners.append(outline)
        cv2.fillPoly(raster, [np.round(outline * size + 120).astype(np.int32)], (1,))
    points = np.concatenate(corners)
    low, high = points.min(0), points.max(0)
    box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    return Puppet(tuple(parts), tuple(sprites), float(raster.sum()) / size**2, box)


def draw(layer: Floats, puppet: Puppet, to_frame: Matrix, phase: float) -> None:
    """Draw a puppet over a premultiplied RGBA layer HW4, in place; `to_frame` maps its units to pixels."""
    height, width = layer.shape[:2]
    for sprite, matrix in zip(puppet.sprites, joints(puppet.parts, phase), strict=True):
        place(layer, sprite.rgba, to_frame @ matrix @ sprite.to_local, (width, height))


def place(layer: Floats, rgba: Floats, matrix: Matrix, size: tuple[int, int]) -> None:
    """Draw a premultiplied sprite over a layer, in place, within the bounding box of the sprite."""
    rows, columns = rgba.shape[:2]
    corners = matrix[:2, :2] @ np.array([[-1, columns, columns, -1], [-1, -1, rows, rows]]) + matrix[:2, 2:]
    x0, y0 = np.maximum(np.floor(corners.min(1)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners.max(1)).astype(int) + 1, size)
    if x1 <= x0 or y1 <= y0:
        return
    local = matrix[:2].copy()
    local[:, 2] -= (x0, y0)
    patch = cv2.warpAffine(rgba, local, (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_LINEAR)
    below = layer[y0:y1, x0:x1]
    below *= 1 - patch[..., 3:]
    below += patch
