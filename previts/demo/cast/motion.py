"""Motion as a function of time: the eight actions of an object, and the camera.

Not part of the paper.

Positions are shares of the frame (x of its width, y of its height). Times are in seconds, angles in radians.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

Action = Literal["walk", "bounce", "spin", "swing", "pulse", "slide", "zigzag", "hop"]
ACTIONS: tuple[Action, ...] = get_args(Action)
Visit = Literal["stays", "leaves", "arrives"]


@dataclass(frozen=True)
class Pose:
    """Pose of an object: centre (x, y), scale, rotation, facing (-1 left to 1 right), squash, gait phase (turns)."""

    x: float
    y: float
    scale: float = 1.0
    angle: float = 0.0
    facing: float = 1.0
    squash: float = 1.0
    phase: float = 0.0


@dataclass(frozen=True)
class Motion:
    """The motion of one object: its action around a home position, at most `reach` (shares of the frame) away."""

    action: Action
    home: tuple[float, float]
    reach: tuple[float, float]
    seconds: float
    period: float = 3.0
    offset: float = 0.0
    gait: float = 1.6
    direction: int = 1
    growth: float = 0.0
    visit: Visit = "stays"

    def pose(self, time: float) -> Pose:
        """Return the pose of the object at a time."""
        pose = self._act(time)
        share = time / max(self.seconds, 1e-6)
        pose = replace(pose, scale=pose.scale * (1 + self.growth * np.sin(np.pi * share)))
        if self.visit == "leaves":
            away = _ease((share - 0.45) / 0.25) * (1 - 0.55 * _ease((share - 0.85) / 0.15))
            pose = replace(pose, x=pose.x + 1.1 * self.direction * away)
        elif self.visit == "arrives":
            pose = replace(pose, x=pose.x - 1.2 * self.direction * (1 - _ease((share - 0.15) / 0.3)))
        return pose

    def _act(self, time: float) -> Pose:
        """Return the pose of the action alone, without growth and visit."""
        (x, y), (wide, high) = self.home, self.reach
        turn = 2 * np.pi * (time / self.period + self.offset)
        wave, face = np.sin(turn), self.direction
        phase = self.gait * time + self.offset
        match self.action:
            case "walk":
                side = float(np.clip(2.2 * np.cos(turn * 0.5), -1, 1))
                side = float(np.copysign(max(abs(side), 0.3), side))
                return Pose(
                    x + wide * np.sin(turn * 0.5), y + 0.012 * np.sin(4 * np.pi * phase), facing=side, phase=phase
                )
            case "bounce":
                lift = abs(np.sin(turn))
                squash = 1 - 0.28 * np.exp(-((lift / 0.25) ** 2))
                return Pose(
                    x + 0.4 * wide * np.sin(turn * 0.25),
                    y + high * (0.5 - lift),
                    facing=face,
                    squash=squash,
                    phase=0.4 * phase,
                )
            case "spin":
                return Pose(x + 0.15 * wide * wave, y, angle=face * turn, facing=face, phase=0.4 * phase)
            case "swing":
                angle = 0.75 * wave
                return Pose(
                    x + wide * 0.8 * np.sin(angle),
                    y + high * 0.8 * (np.cos(angle) - 1),
                    angle=-0.8 * angle,
                    facing=face,
                    phase=0.5 * phase,
                )
            case "pulse":
                return Pose(x, y, scale=1 + 0.3 * wave, angle=0.08 * np.sin(0.5 * turn), facing=face, phase=0.5 * phase)
            case "slide":
                return Pose(
                    x + wide * np.sin(turn * 0.5), y, angle=0.1 * face * np.cos(turn * 0.5), facing=face, phase=0.12
                )
            case "zigzag":
                saw = 2 / np.pi * np.arcsin(np.sin(turn * 1.5))
                heading = float(np.clip(3 * np.cos(turn * 0.35), -1, 1))
                heading = float(np.copysign(max(abs(heading), 0.3), heading))
                tilt = 0.35 * np.sign(np.cos(turn * 1.5)) * min(1.0, 2 * abs(np.cos(turn * 1.5)))
                return Pose(
                    x + wide * np.sin(turn * 0.35),
                    y + high * saw * 0.8,
                    angle=tilt * np.sign(heading),
                    facing=heading,
                    phase=phase,
                )
            case "hop":
                beat = 2 * turn / (2 * np.pi)
                lift = 4 * (beat % 1) * (1 - beat % 1)
                squash = 1 + 0.12 * (lift - 0.5)
                along = np.sin(2 * np.pi * (np.floor(beat) + _ease(float(beat % 1))) / 8)
                heading = 1.0 if np.cos(2 * np.pi * beat / 8) >= 0 else -1.0
                return Pose(
                    x + wide * along,
                    y + high * (0.4 - 0.8 * lift),
                    angle=0.2 * (0.5 - beat % 1) * -heading,
                    facing=heading,
                    squash=squash,
                    phase=beat,
                )


@dataclass(frozen=True)
class Camera:
    """A camera that drifts over the backdrop, follows the object partly, zooms, rolls and shakes."""

    drift: tuple[float, float] = (0.0, 0.0)
    follow: float = 0.0
    zoom: float = 0.0
    roll: float = 0.0
    shake: float = 0.0
    offset: float = 0.0

    def view(self, share: float, target: Pose, home: tuple[float, float]) -> tuple[float, float, float, float]:
        """Return (pan x, pan y, zoom, roll) at a share of the video; pans are shares of the frame, roll in radians."""
        wobble = [
            np.sin(share * rate + self.offset * seed) for rate, seed in ((57.0, 1), (83.0, 2), (41.0, 3), (67.0, 5))
        ]
        x = (
            self.drift[0] * (share - 0.5)
            + self.follow * float(np.clip(target.x - home[0], -0.4, 0.4))
            + self.shake * (wobble[0] + wobble[1])
        )
        y = self.drift[1] * (share - 0.5) + self.shake * (wobble[2] + wobble[3])
        zoom = 1 + self.zoom * 0.5 * (1 - np.cos(2 * np.pi * share * 0.8))
        return float(x), float(y), float(zoom), float(self.roll * np.sin(2 * np.pi * share + self.offset))


def _ease(value: float) -> float:
    """Return the smoothstep of a value: 0 below 0, 1 above 1."""
    t = min(1.0, max(0.0, value))
    return t * t * (3 - 2 * t)
