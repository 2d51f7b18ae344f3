"""Scenes and their renderer: puppets move over a backdrop in front of a camera; each frame has exact masks.

Not part of the paper. `casting` chooses the content of a scene. Nothing here writes files.

A mask is True where the object covers at least half of the pixel, after motion blur and occlusion. Shadows darken the
ground next to an object and are not part of its mask.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from previts.demo.cast.motion import Camera, Motion, Pose
from previts.demo.cast.puppets import Matrix, Puppet, affine, draw
from previts.demo.scenery.textures import Floats, Image

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Actor:
    """A puppet with its size (pixels a unit), tilt at rest (radians) and motion."""

    puppet: Puppet
    size: float
    motion: Motion
    tilt: float = 0.0
    shadow: bool = True


@dataclass(frozen=True)
class Light:
    """Brightness and its flicker over time, a brightness slope along x and y, a tint, and the sensor noise."""

    gain: float = 1.0
    flicker: float = 0.0
    slope: tuple[float, float] = (0.0, 0.0)
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    noise: float = 1.5


@dataclass(frozen=True)
class Scene:
    """All parameters of the frames of one video; actor 0 is the object, later actors are in front of it."""

    width: int
    height: int
    seconds: float
    backdrop: Image
    actors: tuple[Actor, ...]
    camera: Camera = field(default_factory=Camera)
    light: Light = field(default_factory=Light)
    foreground: Floats | None = None
    blur: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Frame:
    """One rendered image HWC and the mask HW of every actor, in the order of the scene."""

    image: Image
    masks: list[Mask]


def render(scene: Scene, time: float, *, hidden: frozenset[int] = frozenset()) -> Frame:
    """Return the frame at a time in seconds; actors in `hidden` are not drawn and their masks are empty."""
    size = (scene.width, scene.height)
    poses = [actor.motion.pose(time) for actor in scene.actors]
    share = time / max(scene.seconds, 1e-6)
    home = scene.actors[0].motion.home
    pan_x, pan_y, zoom, roll = scene.camera.view(share, poses[0], home)
    canvas_height, canvas_width = scene.backdrop.shape[:2]
    # Coordinates refer to pixel centres, so the middle of a row of n pixels is (n - 1) / 2.
    to_frame = affine((scene.width - 1) / 2, (scene.height - 1) / 2, roll, zoom, zoom)
    over = affine(-(canvas_width - 1) / 2 - pan_x * scene.width, -(canvas_height - 1) / 2 - pan_y * scene.height)
    image = cv2.warpAffine(
        scene.backdrop, (to_frame @ over)[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    ).astype(np.float32)
    covers: list[Floats] = []
    for number, (actor, pose) in enumerate(zip(scene.actors, poses, strict=True)):
        if number in hidden:
            covers.append(np.zeros((scene.height, scene.width), np.float32))
            continue
        before = scene.actors[number].motion.pose(time - 1 / 25)
        layer = _layer(scene, actor, pose, before, to_frame)
        if actor.shadow:
            _shade(image, actor, pose, to_frame, size, layer[..., 3])
        _over(image, layer)
        covers = [cover * (1 - layer[..., 3]) for cover in covers]
        covers.append(layer[..., 3])
    if scene.foreground is not None:
        rows, columns = scene.foreground.shape[:2]
        near = affine(-(columns - 1) / 2 - 1.7 * pan_x * scene.width, -(rows - 1) / 2 - 1.2 * pan_y * scene.height)
        front = np.asarray(cv2.warpAffine(scene.foreground, (to_frame @ near)[:2], size), np.float32)
        _over(image, front)
        covers = [cover * (1 - front[..., 3]) for cover in covers]
    return Frame(_expose(image, scene, share, time), [np.asarray(cover >= 0.5) for cover in covers])


def _over(image: Floats, layer: Floats) -> None:
    """Draw a premultiplied layer HW4 over an image, in place, within the bounding box of the layer."""
    rows, columns = np.flatnonzero(layer[..., 3].any(1)), np.flatnonzero(layer[..., 3].any(0))
    if len(rows):
        area = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        image[area] *= 1 - layer[area][..., 3:]
        image[area] += layer[area][..., :3]


def actor_matrix(actor: Actor, pose: Pose, to_frame: Matrix, size: tuple[int, int]) -> Matrix:
    """Return the matrix from the units of an actor to pixels; `to_frame` is the matrix of the camera."""
    x0, y0, x1, y1 = actor.puppet.box
    at = affine((pose.x - 0.5) * size[0], (pose.y - 0.5) * size[1], pose.angle)
    unit = actor.size * pose.scale
    return (
        to_frame
        @ at
        @ affine(0, 0, 0, unit * pose.facing / np.sqrt(pose.squash), unit * pose.squash)
        @ affine(0, 0, actor.tilt)
        @ affine(-(x0 + x1) / 2, -(y0 + y1) / 2)
    )


def _layer(scene: Scene, actor: Actor, pose: Pose, before: Pose, to_frame: Matrix) -> Floats:
    """Return an actor as a premultiplied layer HW4, blurred along its way from the pose `before`."""
    size = (scene.width, scene.height)
    layer = np.zeros((scene.height, scene.width, 4), np.float32)
    draw(layer, actor.puppet, actor_matrix(actor, pose, to_frame, size), pose.phase)
    way = np.array([(pose.x - before.x) * size[0], (pose.y - before.y) * size[1]]) * scene.blur
    length = float(np.hypot(*way))
    if length > 1.0:
        kernel = np.zeros((15, 15), np.uint8)
        half = way / length * min(length, 12.0) / 2
        ends = np.round((np.array([-half, half]) + 7) * 16).astype(np.int32)
        cv2.line(kernel, ends[0], ends[1], (255,), 1, cv2.LINE_AA, 4)
        smear = kernel.astype(np.float32) / float(kernel.sum())
        layer = np.asarray(cv2.filter2D(layer, -1, smear, borderType=cv2.BORDER_CONSTANT), np.float32)
    return layer


def _shade(image: Floats, actor: Actor, pose: Pose, to_frame: Matrix, size: tuple[int, int], cover: Floats) -> None:
    """Darken the ground below an actor, outside its own pixels."""
    x0, y0, x1, y1 = actor.puppet.box
    home = actor.motion.home[1] + 0.4 * actor.motion.reach[1] if actor.motion.action in ("bounce", "hop") else pose.y
    feet = (home - 0.5) * size[1] + actor.size * pose.scale * (y1 - y0) / 2
    centre = to_frame @ np.array([(pose.x - 0.5) * size[0], feet, 1.0])
    reach = actor.size * pose.scale * (x1 - x0) * max(0.35, abs(pose.facing)) * 0.48
    dark = np.zeros((size[1] // 2, size[0] // 2), np.uint8)
    axes = (max(1, int(reach * 8)), max(1, int(reach * 1.6)))
    cv2.ellipse(dark, (int(centre[0] * 8), int(centre[1] * 8)), axes, 0, 0, 360, (255,), -1, cv2.LINE_AA, 4)
    soft = cv2.resize(cv2.blur(dark, (7, 5)), size).astype(np.float32) * (0.45 / 255)
    image *= (1 - soft * (1 - cover))[..., None]


@lru_cache(maxsize=8)
def _grain(height: int, width: int) -> Floats:
    """Return a field of sensor noise HW1; each frame uses a different window of it."""
    return np.random.default_rng(0).standard_normal((height, width, 1), dtype=np.float32)


def _expose(image: Floats, scene: Scene, share: float, time: float) -> Image:
    """Return the image HWC in bytes after light and sensor noise; `share` is `time` as a share of the video."""
    light = scene.light
    gain = light.gain * (1 + light.flicker * np.sin(2 * np.pi * share * 1.3))
    across = 1 + light.slope[0] * np.linspace(-1, 1, scene.width, dtype=np.float32)
    down = 1 + light.slope[1] * np.linspace(-1, 1, scene.height, dtype=np.float32)
    image *= (gain * down[:, None] * across)[..., None]
    image *= np.asarray(light.tint, np.float32)
    if light.noise:
        top, left = (round(time * 1000) * 17 + scene.seed) % 64, (round(time * 1000) * 31 + scene.seed // 64) % 64
        grain = _grain(scene.height + 64, scene.width + 64)[top : top + scene.height, left : left + scene.width]
        image += light.noise * grain
    return np.clip(image, 0, 255).astype(np.uint8)
