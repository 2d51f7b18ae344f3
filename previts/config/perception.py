"""The settings of the steps before pretraining: how videos are stored, and how their objects are found and filtered.

The defaults are those of the paper (section 3.2), as in `experiment.py`.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from previts.config.fields import require


@dataclass(frozen=True)
class VideoConfig:
    """How a video of the crawl is stored. The paper trains on videos of 10 s at 25 frames a second."""

    max_short_side: int = 256  # pixels; not stated; the smallest size that leaves room for crops of 224 pixels
    max_fps: float = 25.0
    gop: int = 12  # frames from one keyframe to the next; not stated; short groups make random frames cheap to read
    crf: int = 23  # not stated; the default quality of x264
    videos_per_shard: int = 64  # not stated; a shard is the unit of work and of resuming
    # not stated; CPU seconds of decoding for each stored frame, and for 250 more; ten seconds of 4K at 60 fps need half
    cpu_seconds_per_frame: float = 0.1
    max_lost_cpu_hours: float = 24.0  # not stated; CPU hours of failing videos before a worker stops; no identity

    def __post_init__(self) -> None:
        require("video.max_short_side", self.max_short_side, "16 or more", self.max_short_side >= 16)
        require("video.max_fps", self.max_fps, "more than 0", self.max_fps > 0)
        require("video.gop", self.gop, "1 or more", self.gop >= 1)
        require("video.crf", self.crf, "from 0 to 51", 0 <= self.crf <= 51)
        require("video.videos_per_shard", self.videos_per_shard, "1 or more", self.videos_per_shard >= 1)
        require("video.cpu_seconds_per_frame", cost := self.cpu_seconds_per_frame, "more than 0", cost > 0)
        require("video.max_lost_cpu_hours", self.max_lost_cpu_hours, "more than 0", self.max_lost_cpu_hours > 0)


@dataclass(frozen=True)
class FitConfig:
    """How the saliency model of a corpus is trained (section 3.2).

    Deep-USPS (Nguyen et al. 2019), as in its code: each handcrafted prior has a network that is trained on its maps in
    rounds. Each later round uses the averaged predictions of the previous one. One last network is trained on all four.
    """

    network: Literal["drn_d_105", "drn_d_22"] = "drn_d_105"
    width: float = 1.0  # share of the network's channels
    # "rgb" as in Deep-USPS. "contrast" adds how a pixel differs from its image and from the borders of the image: a
    # network with random weights needs thousands of images to learn this. No label is involved.
    inputs: Literal["rgb", "contrast"] = "rgb"
    # Of several crawls, on the one that was fitted first, so that tubes stay valid while the corpus grows; or on all.
    corpus: Literal["first", "all"] = "first"
    # URI of weights to start from: a state dict of a DRN, a checkpoint of `pretrain`, or with
    # saliency.method=supervised torchvision's Mask R-CNN. "" is random, so that no label is involved.
    # Paper: Deep-USPS starts from a network trained on labelled street scenes.
    weights: str = ""
    frames: int = 2500  # of the corpus, evenly over its videos; Deep-USPS uses 2500 images
    size: int = 432  # pixels; frames are resized to size x size
    rounds: int = 3
    round_epochs: int = 25
    # Paper: 1e-6, 2e-6, 5e-6. Such rates fine-tune trained weights and would hardly change random ones.
    round_lr: tuple[float, float, float] = (1e-4, 1e-4, 1e-4)
    fusion_epochs: int = 200
    fusion_lr: float = 1e-4
    batch_size: int = 20
    round_beta2: float = 1.0
    fusion_beta2: float = 4.0
    history_momentum: float = 0.7
    # "each": in every epoch the CRF refines each prediction before it is averaged. "last": the CRF refines the average
    # once at the end of a round, which costs little and keeps most of the gain.
    history_crf: Literal["each", "last"] = "each"
    # Deep-USPS does not augment its images. A network with random weights must see colours in many combinations.
    flip_probability: float = 0.0
    recolour_probability: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        require("fit.width", self.width, "in (0, 1]", 0 < self.width <= 1)
        require("fit.frames", self.frames, "from 2 to 1000000", 2 <= self.frames <= 10**6)
        require("fit.size", size := self.size, "a multiple of 8 from 32 to 4096", 32 <= size <= 4096 and size % 8 == 0)
        require("fit.rounds", self.rounds, "from 1 to 3", 1 <= self.rounds <= 3)
        require("fit.round_epochs", self.round_epochs, "1 or more", self.round_epochs >= 1)
        require("fit.round_lr", self.round_lr, "more than 0", min(self.round_lr) > 0)
        require("fit.fusion_epochs", self.fusion_epochs, "1 or more", self.fusion_epochs >= 1)
        require("fit.fusion_lr", self.fusion_lr, "more than 0", self.fusion_lr > 0)
        require("fit.batch_size", self.batch_size, "2 or more", self.batch_size >= 2)
        require("fit.round_beta2", self.round_beta2, "more than 0", self.round_beta2 > 0)
        require("fit.fusion_beta2", self.fusion_beta2, "more than 0", self.fusion_beta2 > 0)
        require("fit.history_momentum", self.history_momentum, "in [0, 1)", 0 <= self.history_momentum < 1)
        for name in ("flip_probability", "recolour_probability"):
            require(f"fit.{name}", getattr(self, name), "from 0 to 1", 0 <= getattr(self, name) <= 1)


# The handcrafted maps that Deep-USPS is trained on. Each may also be used as the saliency method.
PRIORS = ("rbd", "mc", "dsr", "hs")


@dataclass(frozen=True)
class SaliencyConfig:
    """How the salient regions of a frame are found (section 3.2)."""

    # "supervised": masks of a detector trained with labels (table 6d); "none": no region is salient, no tube is made
    method: Literal["deepusps", "rbd", "mc", "dsr", "hs", "supervised", "none"] = "deepusps"
    every: int = 1  # saliency on every k-th frame; the released loaders read a mask for every frame
    threshold: float = 0.5  # not stated; a mask is the saliency map above this; Deep-USPS evaluates at 0.5
    crf: bool = True  # Deep-USPS refines its test maps with a CRF
    min_score: float = 0.5  # not stated; the least score of a detection, with method="supervised"
    # Pixels; the short side that a frame is scaled to, with method="supervised". torchvision's weights are for 800.
    detector_side: int = 800
    agreement: bool = True  # compare the handcrafted priors on the first key frame, to judge videos without labels

    def __post_init__(self) -> None:
        require("saliency.every", self.every, "1 or more", self.every >= 1)
        require("saliency.threshold", self.threshold, "in [0, 1)", 0 <= self.threshold < 1)
        require("saliency.min_score", self.min_score, "in [0, 1)", 0 <= self.min_score < 1)
        require("saliency.detector_side", self.detector_side, "from 32 to 4096", 32 <= self.detector_side <= 4096)

    def decided(self) -> dict[str, Any]:
        """Return the settings that decide the regions, as plain data. Results without `detector_side` stay valid."""
        settings = asdict(self)
        if self.method != "supervised":
            del settings["detector_side"]
        return settings


@dataclass(frozen=True)
class TrackConfig:
    """How the largest region of the first frame is tracked (section 3.2, SORT)."""

    # A region matches by the IoU of the predicted box and its box ("box"), or of the last mask and its mask ("mask").
    association: Literal["box", "mask"] = "box"  # not stated; SORT
    # not stated; SORT uses 0.3 and a max_age of 1 for detections of constant size. Salient regions grow, shrink and
    # flicker. With these two values the mean IoU of tubes of 35 real videos is 0.24 instead of 0.17 (maps of RBD).
    iou_threshold: float = 0.1
    max_age: int = 5  # key frames in a row for which the object may have no match and still be found again
    # not stated; SORT's 3 discards the first frames of a track, also those of the object. With 2 or more, the largest
    # region must match in so many key frames in a row before the tube starts. If it does not, a region is chosen again.
    min_hits: int = 0
    min_area: float = 0.01  # not stated; share of the frame; smaller regions are dropped, and all under 10 pixels
    # not stated; a track without a match stays where it is ("wait"), or moves on as in SORT ("drift"). With "drift",
    # iou_threshold=0.3, max_age=1 and min_hits=3, the tracker is SORT as published, its rule for min_hits included.
    motion: Literal["wait", "drift"] = "wait"

    def __post_init__(self) -> None:
        require("track.iou_threshold", self.iou_threshold, "from 0 to 1", 0 <= self.iou_threshold <= 1)
        require("track.max_age", self.max_age, "0 or more", self.max_age >= 0)
        require("track.min_hits", self.min_hits, "0 or more", self.min_hits >= 0)
        require("track.min_area", self.min_area, "in [0, 1)", 0 <= self.min_area < 1)


@dataclass(frozen=True)
class FilterConfig:
    """Which videos of a corpus are kept for pretraining, judged without ground truth. The paper keeps all videos."""

    min_tube_seconds: float = 0.0  # time for which the object is visible
    min_area: float = 0.0  # mean share of the frame that the object covers while it is visible
    max_area: float = 1.0
    min_agreement: float = 0.0  # of the handcrafted priors on the first key frame
    # Not in the paper. Leaves out videos with the source file ("equal"), or also with the frames ("near"), of an older
    # one. "keep" keeps them. Of videos with one id, the oldest is kept in any case.
    duplicates: Literal["equal", "near", "keep"] = "near"
    # Not in the paper. Leaves out videos that show something of the test part of a labelled set, if `index` gets these.
    leakage: Literal["drop", "off"] = "drop"

    def __post_init__(self) -> None:
        require("filter.min_tube_seconds", self.min_tube_seconds, "0 or more", self.min_tube_seconds >= 0)
        require("filter.min_area", self.min_area, "from 0 to filter.max_area", 0 <= self.min_area <= self.max_area)
        require("filter.max_area", self.max_area, "in (0, 1]", 0 < self.max_area <= 1)
        require("filter.min_agreement", self.min_agreement, "from 0 to 1", 0 <= self.min_agreement <= 1)
