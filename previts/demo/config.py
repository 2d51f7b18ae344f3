"""Sizes of the demo world.

No place in the paper: a world of our own, so every number here is ours.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class WorldConfig:
    """How much of everything the world holds; `seed` decides what it looks like."""

    seed: int = 0
    videos: int = 72
    seconds: float = 5.0
    fps: float = 12.0
    width: int = 224
    height: int = 168
    # Share of pictures in which a class stands before its own family of backgrounds.
    background_correlation: float = 0.8
    # Items of the crawl that cannot be used: cut short, no video at all, not there.
    bad_items: bool = True
    voc_images: int = 90
    imagenet_train: int = 30
    imagenet_val: int = 15
    in9_train: int = 30
    in9_val: int = 12
    coco_train: int = 24
    coco_val: int = 12
    davis_sequences: int = 6
    davis_frames: int = 24
    action_classes: int = 6
    ucf_clips: int = 6
    ucf_frames: int = 40
    jhmdb_clips: int = 4
    jhmdb_frames: int = 20
    minikinetics_train: int = 3
    minikinetics_val: int = 2
    minikinetics_frames: int = 24

    def __post_init__(self) -> None:
        if not 0 <= self.background_correlation <= 1:
            raise ValueError(f"background_correlation must be in [0, 1], got {self.background_correlation = }")
        if self.width % 2 or self.height % 2 or min(self.width, self.height) < 64:
            raise ValueError(f"width and height must be even and at least 64, got {self.width = }, {self.height = }")
        if not 2 <= self.action_classes <= 8:
            raise ValueError(f"action_classes must be in [2, 8], got {self.action_classes = }")
        if min(self.videos, self.in9_val, self.davis_sequences, self.voc_images) < 1 or self.in9_val < 2:
            raise ValueError(f"a world needs a video, a sequence and two pictures a class, got {self}")
        # Of JHMDB's at least two are tested on and two trained on: mixed_same takes the background of the other one.
        if self.ucf_clips < 3 or self.jhmdb_clips < 4 or min(self.minikinetics_train, self.minikinetics_val) < 1:
            raise ValueError(
                f"an action class needs clips to train and to test on, got {self.ucf_clips = }, {self.jhmdb_clips = }, "
                f"{self.minikinetics_train = }, {self.minikinetics_val = }"
            )


TINY = WorldConfig(
    videos=6,
    seconds=2.0,
    width=128,
    height=96,
    voc_images=18,
    imagenet_train=2,
    imagenet_val=1,
    in9_train=2,
    in9_val=2,
    coco_train=4,
    coco_val=3,
    davis_sequences=2,
    davis_frames=6,
    action_classes=2,
    ucf_clips=3,
    ucf_frames=8,
    jhmdb_clips=4,
    jhmdb_frames=6,
    minikinetics_train=1,
    minikinetics_val=1,
    minikinetics_frames=6,
)
