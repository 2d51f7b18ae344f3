"""The videos of the demo world's crawls: what each shows, and its frames.

Not part of the paper. Nothing here writes files.
"""

from dataclasses import dataclass

from previts.demo.cast.casting import Shot, compose, family_for, generator, kind_of
from previts.demo.cast.kinds import CLASSES
from previts.demo.cast.motion import ACTIONS, Visit
from previts.demo.config import WorldConfig
from previts.demo.scene import Frame, render
from previts.demo.scenery.backgrounds import FAMILIES


@dataclass(frozen=True)
class VideoPlan:
    """The content of one video; `home` is the background family of its class."""

    video_id: str
    label: str
    home: str
    fps: float
    num_frames: int
    shot: Shot


def plan_videos(config: WorldConfig, crawl: int = 1) -> list[VideoPlan]:
    """Return the plans of a crawl's new videos: classes and actions in turn; some are upright, larger or at 25 fps."""
    plans, names = [], list(CLASSES)
    end = config.videos + (crawl - 1) * config.later_videos
    for number in range(0 if crawl == 1 else end - config.later_videos, end):
        c, action = number % len(names), ACTIONS[(number + number // len(names)) % len(ACTIONS)]
        rng = generator(config.seed, f"plan/{number}")
        width, height = config.width, config.height
        if number % 12 == 3:
            width, height = height, width
        elif number % 12 == 7:
            width, height = (round(side * 1.43 / 2) * 2 for side in (width, height))
        fps = 25.0 if number % 12 == 10 else config.fps
        visit: Visit = "leaves" if number % 18 == 5 else "arrives" if number % 18 == 13 else "stays"
        shot = Shot(
            kind_of(rng, names[c]),
            family_for(rng, c, config.background_correlation),
            action,
            width,
            height,
            config.seconds,
            visit,
            passer=number % 10 == 6,
            clutter=number % 8 == 2,
        )
        video_id = f"v{number:03d}_{shot.kind}_{action}"
        plans.append(VideoPlan(video_id, names[c], FAMILIES[c], fps, round(config.seconds * fps), shot))
    return plans


def film(config: WorldConfig, plan: VideoPlan) -> list[Frame]:
    """Return the frames of a video."""
    scene = compose(config.seed, f"video/{plan.video_id}", plan.shot)
    return [render(scene, number / plan.fps) for number in range(plan.num_frames)]
