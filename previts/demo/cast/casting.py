"""Casting: chooses the content of a scene (object, background, action, camera, light, clutter) from one seed.

Not part of the paper. Nothing here renders or writes files.

Each piece of the world has its own random generator, named by a text, so that no piece depends on the others.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from previts.demo.cast.kinds import AFLOAT, CLASSES, KINDS
from previts.demo.cast.motion import Action, Camera, Motion, Visit
from previts.demo.cast.puppets import Puppet, build_puppet
from previts.demo.scene import Actor, Light, Scene
from previts.demo.scenery import backgrounds
from previts.demo.scenery.backgrounds import FAMILIES, GROUNDED
from previts.demo.scenery.textures import Floats, Image

# Number of puppets of a kind, and of backdrops of a family, that the images of a split share; splits share none.
_POOL = 10
# Tilt at rest (radians) of the kinds that have one.
_TILT = {"guitar": -0.5}
# Size (height, width) of backdrops: of videos relative to the frame, with room to pan; of still images in pixels.
# _STILL_UNIT is the resolution of the sprites of still images, in pixels a unit.
_CANVAS = (1.35, 1.6)
_STILL_CANVAS, _STILL_UNIT = (300, 360), 130
# The kind that may walk past the object, for each family of backgrounds.
_PASSERS = dict(
    zip(
        FAMILIES,
        ("sheep", "butterfly", "car", "turtle", "person", "butterfly", "cat", "leopard", "clownfish"),
        strict=True,
    )
)


def generator(seed: int, name: str) -> np.random.Generator:
    """Return the random generator of one named piece of the world."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def family_for(rng: np.random.Generator, home: int, correlation: float) -> str:
    """Return the class's own background family with probability `correlation`, else one of the others."""
    if rng.random() < correlation:
        return FAMILIES[home]
    return FAMILIES[(home + 1 + int(rng.integers(len(FAMILIES) - 1))) % len(FAMILIES)]


def kind_of(rng: np.random.Generator, class_name: str) -> str:
    """Return one of the kinds of a class."""
    kinds = CLASSES[class_name]
    return kinds[int(rng.integers(len(kinds)))]


@lru_cache(maxsize=512)
def _puppet(seed: int, kind: str, name: str, pixels: int) -> Puppet:
    rng = generator(seed, f"puppet/{kind}/{name}")
    return build_puppet(KINDS[kind](rng), pixels, rng)


@lru_cache(maxsize=256)
def _backdrop(seed: int, family: str, name: str, height: int, width: int) -> Image:
    return backgrounds.paint(family, height, width, generator(seed, f"backdrop/{family}/{name}"))


def clear_caches() -> None:
    """Free the puppets and backdrops that images shared."""
    _puppet.cache_clear()
    _backdrop.cache_clear()


def _clutter(seed: int, family: str, name: str, height: int, width: int) -> Floats:
    return backgrounds.clutter(family, height, width, generator(seed, f"clutter/{family}/{name}"))


def size_for(puppet: Puppet, width: int, height: int, share: float) -> float:
    """Return the pixels a unit at which the puppet covers `share` of the frame, or less if it would not fit."""
    x0, y0, x1, y1 = puppet.box
    wanted = float(np.sqrt(share * width * height / puppet.area))
    return min(wanted, 0.78 * width / (x1 - x0), 0.78 * height / (y1 - y0))


def _cast(
    puppet: Puppet, kind: str, action: Action, family: str, *, width: int, height: int, seconds: float, share: float,
    rng: np.random.Generator, visit: Visit = "stays",
) -> Actor:  # fmt: skip
    """Return a puppet with a random size, place and motion that keep it in the frame."""
    size = size_for(puppet, width, height, share)
    x0, y0, x1, y1 = puppet.box
    half = ((x1 - x0) * size / width / 2, (y1 - y0) * size / height / 2)
    if action == "spin":  # its corners move on a circle
        reach = float(np.hypot(half[0] * width, half[1] * height))
        shrink = min(1.0, 0.47 * height / reach, 0.47 * width / reach)
        size, half = size * shrink, (reach * shrink / width, reach * shrink / height)
    room = (max(0.02, 0.46 - half[0]), max(0.02, 0.46 - half[1]))
    reach_x, reach_y = min(room[0], rng.uniform(0.16, 0.28)), min(room[1], rng.uniform(0.1, 0.2))
    slack = (room[0] - reach_x, room[1] - reach_y)
    low = 0.06 if family in GROUNDED and kind not in AFLOAT else 0.0
    home = (
        0.5 + rng.uniform(-1, 1) * slack[0],
        float(
            np.clip(
                0.52 + low + rng.uniform(-0.6, 0.6) * slack[1],
                0.54 - slack[1],
                0.5 + slack[1] if slack[1] > 0.04 else 0.54,
            )
        ),
    )
    motion = Motion(
        action,
        home,
        (reach_x, reach_y),
        seconds,
        period=rng.uniform(2.2, 3.6),
        offset=float(rng.choice([0.0, 0.06, 0.94])),
        gait=rng.uniform(1.1, 1.8),
        direction=int(rng.choice([-1, 1])),
        growth=float(rng.choice([0.0, 0.2, -0.25])) if action != "spin" else 0.0,
        visit=visit,
    )
    return Actor(
        puppet, size, motion, _TILT.get(kind, 0.0) + rng.normal(0, 0.03), family in GROUNDED and kind not in AFLOAT
    )


def _light(rng: np.random.Generator) -> Light:
    warm = rng.normal(0, 0.03)
    return Light(
        gain=rng.uniform(0.86, 1.08),
        flicker=float(rng.choice([0.0, 0.0, 0.12])),
        slope=(rng.uniform(-0.14, 0.14), rng.uniform(-0.1, 0.06)),
        tint=(1 + warm, 1.0, 1 - warm),
        noise=rng.uniform(0.6, 2.0),
    )


@dataclass(frozen=True)
class Shot:
    """The content of one scene."""

    kind: str
    family: str
    action: Action
    width: int
    height: int
    seconds: float
    visit: Visit = "stays"
    passer: bool = False
    clutter: bool = False


def compose(seed: int, name: str, shot: Shot) -> Scene:
    """Return the scene of a video; equal arguments give the same scene."""
    rng = generator(seed, f"scene/{name}")
    unit = int(0.75 * min(shot.width, shot.height))
    rows, columns = round(_CANVAS[0] * shot.height), round(_CANVAS[1] * shot.width)
    puppet = _puppet(seed, shot.kind, name, unit)
    share = rng.uniform(0.1, 0.19)
    actors = [
        _cast(
            puppet, shot.kind, shot.action, shot.family, width=shot.width, height=shot.height, seconds=shot.seconds,
            share=share, rng=rng, visit=shot.visit,
        )
    ]  # fmt: skip
    if shot.passer:
        kind = _PASSERS[shot.family]
        other = _puppet(seed, kind, f"{name}/passer", unit)
        passing = _cast(
            other, kind, "slide", shot.family, width=shot.width, height=shot.height, seconds=shot.seconds, share=0.05,
            rng=rng,
        )  # fmt: skip
        away = Motion(
            "slide", (0.5, 0.72), (0.85, 0.0), shot.seconds, period=shot.seconds, offset=-0.5, gait=1.5, direction=1
        )
        actors.append(Actor(other, passing.size, away, passing.tilt, passing.shadow))
    follow = float(rng.choice([0.0, 0.5, 0.9])) if shot.visit == "stays" else 0.0
    camera = Camera(
        drift=(rng.uniform(-0.28, 0.28), rng.uniform(-0.12, 0.12)),
        follow=follow * 0.5,
        zoom=float(rng.choice([0.0, 0.12, 0.2])),
        roll=rng.uniform(0, 0.03),
        shake=float(rng.choice([0.0, 0.003, 0.006])),
        offset=rng.uniform(0, 6),
    )
    return Scene(
        shot.width,
        shot.height,
        shot.seconds,
        _backdrop(seed, shot.family, name, rows, columns),
        tuple(actors),
        camera,
        _light(rng),
        _clutter(seed, shot.family, name, rows, round(1.9 * shot.width)) if shot.clutter else None,
        blur=float(rng.choice([0.0, 0.5])),
        seed=int(rng.integers(1 << 31)),
    )


def snapshot(
    seed: int, name: str, kinds: Sequence[str], family: str, *, size: tuple[int, int], split: str,
    shares: tuple[float, float] = (0.1, 0.24),
) -> tuple[Scene, float]:  # fmt: skip
    """Return a scene of `size` (width, height) and a time in it, for an image of some objects, the largest first.

    The first object covers a share of the frame in the range `shares`, or less if it would not fit. Puppets
    and backdrops come from a pool of the split, so that thousands of images are cheap.
    """
    width, height = size
    rng = generator(seed, f"still/{name}")
    actors = []
    for number, kind in enumerate(kinds):
        puppet = _puppet(seed, kind, f"{split}/{int(rng.integers(_POOL))}", _STILL_UNIT)
        share = rng.uniform(*shares) if number == 0 else rng.uniform(0.03, 0.08)
        action: Action = ("walk", "swing", "pulse", "slide")[int(rng.integers(4))]
        actor = _cast(puppet, kind, action, family, width=width, height=height, seconds=4.0, share=share, rng=rng)
        if number:
            actor = _at_side(actor, rng)
        actors.append(actor)
    rows, columns = _STILL_CANVAS
    backdrop = _backdrop(seed, family, f"{split}/{int(rng.integers(_POOL))}", rows, columns)
    if rng.random() < 0.5:
        backdrop = np.ascontiguousarray(backdrop[:, ::-1])
    camera = Camera(
        drift=(rng.uniform(-0.4, 0.4), rng.uniform(-0.2, 0.2)),
        zoom=rng.uniform(0, 0.25),
        roll=rng.uniform(0, 0.05),
        offset=rng.uniform(0, 6),
    )
    front = _clutter(seed, family, f"{split}/{int(rng.integers(3))}", rows, columns) if rng.random() < 0.12 else None
    scene = Scene(
        width, height, 4.0, backdrop, tuple(actors), camera, _light(rng), front, seed=int(rng.integers(1 << 31))
    )
    return scene, float(rng.uniform(0, 4.0))


def _at_side(actor: Actor, rng: np.random.Generator) -> Actor:
    """Return the actor at one side of the frame, so that it does not hide the first actor."""
    side = float(rng.choice([0.17, 0.83]))
    motion = Motion(
        "pulse",
        (side, rng.uniform(0.3, 0.8)),
        (0.0, 0.0),
        4.0,
        direction=1 if side < 0.5 else -1,
        offset=rng.uniform(0, 1),
    )
    return Actor(actor.puppet, actor.size, motion, actor.tilt, actor.shadow)
