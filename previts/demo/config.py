"""Sizes of the demo world.

Not part of the paper: the project defines every number here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class WorldConfig:
    """Number and size of the videos and images of each set; `seed` decides their content."""

    seed: int = 0
    videos: int = 72  # of the first crawl
    later_videos: int = 24  # new ones of each later crawl
    seconds: float = 5.0
    fps: float = 12.0
    width: int = 224
    height: int = 168
    # Share of images and videos in which a class is shown over its own family of backgrounds.
    background_correlation: float = 0.8
    # The same share in the Backgrounds Challenge. At 0.8, a classifier needs the object for too few training images.
    in9_correlation: float = 0.5
    # Whether the first crawl has three unusable items: a truncated file, a web page, a missing file.
    bad_items: bool = True
    voc_images: int = 90
    imagenet_train: int = 30
    imagenet_val: int = 15
    in9_train: int = 30
    in9_val: int = 20
    coco_train: int = 24
    coco_val: int = 60
    davis_sequences: int = 6
    davis_frames: int = 24
    action_classes: int = 6
    ucf_clips: int = 15
    ucf_frames: int = 40
    jhmdb_clips: int = 12
    jhmdb_frames: int = 20
    minikinetics_train: int = 3
    minikinetics_val: int = 2
    minikinetics_frames: int = 24

    def __post_init__(self) -> None:
        if not (0 <= self.background_correlation <= 1 and 0 <= self.in9_correlation <= 1):
            raise ValueError(
                "background_correlation and in9_correlation must be in [0, 1], got "
                f"{self.background_correlation = }, {self.in9_correlation = }"
            )
        if self.width % 2 or self.height % 2 or min(self.width, self.height) < 64:
            raise ValueError(f"width and height must be even and at least 64, got {self.width = }, {self.height = }")
        if not 2 <= self.action_classes <= 8:
            raise ValueError(f"action_classes must be in [2, 8], got {self.action_classes = }")
        if self.videos < 5 or self.later_videos < 2:  # the later crawls have copies of so many videos
            raise ValueError(
                f"videos must be at least 5 and later_videos at least 2, got {self.videos = }, {self.later_videos = }"
            )
        if min(self.in9_val, self.davis_sequences, self.voc_images) < 1 or self.in9_val < 2:
            raise ValueError(
                "davis_sequences and voc_images must be at least 1 and in9_val at least 2, got "
                f"{self.davis_sequences = }, {self.voc_images = }, {self.in9_val = }"
            )
        # JHMDB needs two clips to train on and two to test on: mixed_same uses the background of the other test clip.
        if self.ucf_clips < 3 or self.jhmdb_clips < 4 or min(self.minikinetics_train, self.minikinetics_val) < 1:
            raise ValueError(
                "an action class needs training and test clips: ucf_clips must be at least 3, jhmdb_clips at least 4, "
                "minikinetics_train and minikinetics_val at least 1, got "
                f"{self.ucf_clips = }, {self.jhmdb_clips = }, "
                f"{self.minikinetics_train = }, {self.minikinetics_val = }"
            )


TINY = WorldConfig(
    videos=6,
    later_videos=3,
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
