"""The settings of the evaluations, by default the protocols of the benchmarks' authors.

PreViTS sections 4.2 to 4.5. `benchmarks.py` states which benchmarks read each section below. A section decides only the
results of these benchmarks. This module imports nothing heavy.
"""

from dataclasses import dataclass, field
from typing import Literal

from previts.config.fields import require

SIDE_STEP = 32  # pixels between the image sizes that a detector is trained at


@dataclass(frozen=True)
class SvmConfig:
    """Support vector machines on frozen features: VOC 2007 (section 4.2)."""

    average_precision: Literal["area", "11-point"] = "area"  # not stated; VirTex


@dataclass(frozen=True)
class LinearConfig:
    """Softmax regression on frozen features: ImageNet-1k, and the head of the Backgrounds Challenge (section 4.2).

    Paper: follows VirTex and CAST, which differ. "moco", which CAST uses too, has a rate of 30, divided by ten after
    60 % and 80 % of the epochs. "virtex" has a rate of 0.3 with a cosine over all steps. Neither has weight decay.
    """

    recipe: Literal["moco", "virtex"] = "moco"
    epochs: int = 100  # more for cached features of a small dataset, see `evals/imagenet.py`
    # "fresh": random crops, encoded in every epoch; "cached": one centre crop per image, encoded once
    views: Literal["cached", "fresh"] = "fresh"

    def __post_init__(self) -> None:
        require("evaluation.linear.epochs", self.epochs, "1 or more", self.epochs >= 1)


@dataclass(frozen=True)
class DavisConfig:
    """Tracking of an object by the encoder's attention: DAVIS-2016 (section 4.5)."""

    threshold: float = 0.5  # not stated; of the attention map scaled to [0, 1]

    def __post_init__(self) -> None:
        require("evaluation.davis.threshold", self.threshold, "in (0, 1]", 0 < self.threshold <= 1)


@dataclass(frozen=True)
class ActionsConfig:
    """Fine-tuning on labelled clips: UCF-101, HMDB-51, JHMDB and mini-Kinetics (sections 4.3 and 4.4)."""

    split: Literal["1", "2", "3", "all"] = "1"  # not stated; released code: 1. "all": the mean of the three splits
    epochs: int = 50
    lr: float = 0.05  # RSPNet fine-tunes with 0.005
    batch_size: int = 32  # over all processes; not stated; released code: 8 GPUs with 4 clips each
    frames: int = 64  # of a clip; not stated; released code: consecutive frames at 25 a second
    size: int = 224  # pixels, height and width
    test_clips: int = 10  # of a video; not stated; released code: evenly spaced, averaged logits

    def __post_init__(self) -> None:
        require("evaluation.actions.epochs", self.epochs, "1 or more", self.epochs >= 1)
        require("evaluation.actions.lr", self.lr, "more than 0", self.lr > 0)
        require("evaluation.actions.batch_size", self.batch_size, "1 or more", self.batch_size >= 1)
        require("evaluation.actions.frames", self.frames, "a multiple of 8", self.frames > 0 and self.frames % 8 == 0)
        require("evaluation.actions.size", self.size, "32 or more", self.size >= 32)
        require("evaluation.actions.test_clips", self.test_clips, "1 or more", self.test_clips >= 1)


@dataclass(frozen=True)
class BackgroundsConfig:
    """The Video Backgrounds Challenge: JHMDB and mini-Kinetics (section 4.4)."""

    # not stated: "original" trains on original videos and evaluates all variants, as Xiao et al. do with images.
    # "variant" trains a classifier on each variant. This is a possible reading of the released configuration, and its
    # metrics have other names.
    train_on: Literal["original", "variant"] = "original"


@dataclass(frozen=True)
class DetectionConfig:
    """Fine-tuning of detectors: VOC with a C4 body, COCO with an FPN (section 4.2).

    Not stated: all settings. They are those of MoCo (VOC) and VirTex (COCO), and the defaults of detectron2, which both
    use.
    """

    lr: float = 0.02
    batch_size: int = 16  # over all processes; MoCo: 8 GPUs with 2 images each
    voc_steps: int = 24_000  # the rate is divided by 10 after 3/4 of the steps, and again after 11/12
    # Paper: table 1 seems to mix the schedules: its supervised row equals MoCo's 1x, its random row MoCo's 2x.
    coco_schedule: Literal["1x", "2x"] = "1x"
    coco_steps: int = 90_000  # of 1x; 2x has twice as many; the rate is divided by 10 after 2/3, and again after 8/9
    # Pixels of the short side of an image. Training samples from the range in steps of 32; the test uses its end.
    voc_sides: tuple[int, int] = (480, 800)
    coco_sides: tuple[int, int] = (640, 800)
    proposals: int = 1000  # regions per image in the test; for training, see `evals/detection/detectors.py`
    regions: int = 512  # per image, sampled from the proposals to train the heads
    cells: int = 14  # height and width of a region's feature map before layer4 (C4)
    precise_bn: int = 200  # batches that recompute the statistics of batch normalisation; 0 keeps those of the training
    average_precision: Literal["11-point", "area"] = "11-point"  # for VOC, at each of the ten overlaps
    difficult: bool = True  # train on VOC's difficult objects, as detectron2 does; they are never evaluated

    def __post_init__(self) -> None:
        require("evaluation.detection.lr", self.lr, "more than 0", self.lr > 0)
        for name in ("batch_size", "voc_steps", "coco_steps", "proposals", "regions"):
            value = getattr(self, name)
            require(f"evaluation.detection.{name}", value, "1 or more", value >= 1)
        for name in ("voc_sides", "coco_sides"):
            low, high = sides = getattr(self, name)
            allowed = "two sizes of 32 or more, the smaller first, a multiple of 32 apart"
            require(f"evaluation.detection.{name}", sides, allowed, 32 <= low <= high and (high - low) % SIDE_STEP == 0)
        require("evaluation.detection.cells", self.cells, "2 or more", self.cells >= 2)
        require("evaluation.detection.precise_bn", self.precise_bn, "0 or more", self.precise_bn >= 0)


@dataclass(frozen=True)
class EvaluationConfig:
    """The settings that all benchmarks share, and a section for each kind of benchmark."""

    resize: int = 256  # pixels; short side of an image before its centre is cropped
    crop: int = 224  # pixels; height and width of the centre crop
    batch_size: int = 256
    svm: SvmConfig = field(default_factory=SvmConfig)
    linear: LinearConfig = field(default_factory=LinearConfig)
    davis: DavisConfig = field(default_factory=DavisConfig)
    actions: ActionsConfig = field(default_factory=ActionsConfig)
    backgrounds: BackgroundsConfig = field(default_factory=BackgroundsConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    runs: int = 1  # repetitions with different seeds; the metrics are means, the protocol has the deviations
    limit: int = 0  # at most this many images or videos a split and frames a sequence, for a quick check; 0: all
    seed: int = 0

    def __post_init__(self) -> None:
        require("evaluation.crop", self.crop, "from 32 to evaluation.resize", 32 <= self.crop <= self.resize)
        require("evaluation.batch_size", self.batch_size, "1 or more", self.batch_size >= 1)
        require("evaluation.runs", self.runs, "1 or more", self.runs >= 1)
        require("evaluation.limit", self.limit, "0 or more", self.limit >= 0)
        require("evaluation.seed", self.seed, "from 0 to 2**31 - 1", 0 <= self.seed < 2**31)
