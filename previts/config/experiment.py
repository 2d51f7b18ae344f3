"""The settings of an experiment: every decision that changes a result, as one frozen, typed tree.

The defaults are those of the paper (section 4.1, image model). "not stated" marks a value that the paper does not give,
with its source. Only `paper.py` and `profiles.py` set other values. Steps without torch read this module too, so it
imports nothing heavy. It has no setting of where something runs (root, workers, devices, launcher).
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from previts.config import fields
from previts.config.evaluation import EvaluationConfig
from previts.config.fields import require
from previts.config.perception import FilterConfig, FitConfig, SaliencyConfig, TrackConfig, VideoConfig
from previts.errors import InputError


@dataclass(frozen=True)
class SamplingConfig:
    """How the query and the key are sampled from a video (section 3.2)."""

    constraint: Literal["none", "tracking"] = "tracking"
    gap: Literal["varying", "constant", "zero"] = "varying"
    gap_seconds: float = 1.7  # of gap="constant" (section 4.6)
    min_overlap: float = 0.3  # mu
    # Paper: "IOU with the tracking mask". Section 4.6 ("cover at least") and the released code mean the share of the
    # mask that the crop covers ("coverage"). "iou" is the intersection over union of crop and mask.
    overlap: Literal["coverage", "iou"] = "coverage"
    crop_scale: tuple[float, float] = (0.4, 1.0)  # not stated; released code
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # not stated; released code
    crop_attempts: int = 10  # not stated; released code
    min_tracked_fraction: float = 0.24  # not stated; released code: 60 of 250 frames
    clip_frames: int = 1
    clip_stride: int = 1
    # Where the object must be visible. "clip": in every frame of a clip, and each frame has its own mask (section 3.2).
    # "middle": in the middle frame, and its mask is used for all frames (released code).
    visible: Literal["clip", "middle"] = "clip"
    # The third clip of the speed task (section 3.1). "own": a segment sampled like the others. "key": the segment of
    # the key at the other speed (RSPNet and the released code).
    other_segment: Literal["own", "key"] = "own"
    speeds: tuple[int, int] = (1, 2)  # not stated; RSPNet: every frame, or every second frame
    data_fraction: float = 1.0  # appendix A, figure 1

    def __post_init__(self) -> None:
        require("sampling.min_overlap", self.min_overlap, "in [0, 1)", 0 <= self.min_overlap < 1)
        require("sampling.gap_seconds", self.gap_seconds, "0 or more", self.gap_seconds >= 0)
        low, high = self.crop_scale
        require("sampling.crop_scale", self.crop_scale, "0 < low <= high <= 1", 0 < low <= high <= 1)
        low, high = self.crop_ratio
        require("sampling.crop_ratio", self.crop_ratio, "0 < low <= high", 0 < low <= high)
        require("sampling.crop_attempts", self.crop_attempts, "from 1 to 1000", 1 <= self.crop_attempts <= 1000)
        require("sampling.clip_frames", self.clip_frames, "from 1 to 1024", 1 <= self.clip_frames <= 1024)
        require("sampling.clip_stride", self.clip_stride, "from 1 to 1000", 1 <= self.clip_stride <= 1000)
        require("sampling.speeds", s := self.speeds, "two different numbers from 1", min(s) >= 1 and s[0] != s[1])
        require("sampling.min_tracked_fraction", share := self.min_tracked_fraction, "from 0 to 1", 0 <= share <= 1)
        require("sampling.data_fraction", self.data_fraction, "in (0, 1]", 0 < self.data_fraction <= 1)


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of a crop (section 4.1: random Gaussian blur and colour jitter, following SimCLR)."""

    size: int = 224
    flip_probability: float = 0.5  # not stated; MoCo
    grey_probability: float = 0.2  # not stated; MoCo
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.4)  # not stated; released code
    jitter_probability: float = 1.0  # not stated; released code
    # Paper: names random Gaussian blur; the released configuration turns it off.
    blur_probability: float = 0.5  # not stated; MoCo v2
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # not stated; MoCo v2

    def __post_init__(self) -> None:
        require("augment.size", self.size, "even, from 32 to 4096", 32 <= self.size <= 4096 and self.size % 2 == 0)
        for name in ("flip_probability", "grey_probability", "jitter_probability", "blur_probability"):
            require(f"augment.{name}", getattr(self, name), "from 0 to 1", 0 <= getattr(self, name) <= 1)
        holds = min(self.jitter) >= 0 and self.jitter[3] <= 0.5
        require("augment.jitter", self.jitter, "0 or more, hue at most 0.5", holds)
        require("augment.blur_sigma", s := self.blur_sigma, "0 < low <= high <= 100", 0 < s[0] <= s[1] <= 100)


@dataclass(frozen=True)
class ModelConfig:
    """The encoder and its projection head (section 4.1)."""

    encoder: Literal["resnet18", "resnet50", "s3dg"] = "resnet50"  # S3D-g encodes clips, the others single frames
    width: float = 1.0  # share of the channels of S3D-g
    # Momentum of the statistics of batch normalisation. 0: that of the encoder's authors, 0.1 for ResNets and 0.001 for
    # S3D-g, which then needs thousands of steps.
    bn_momentum: float = 0.0
    # URI of the weights that both encoders start from: a checkpoint of this project, of MoCo, RSPNet or torchvision.
    # "" is random.
    weights: str = ""
    # Not in the paper. "previous" continues the model of the same settings that was trained on the largest part of the
    # crawls so far, with its heads and queue, and with the schedule of `optim`. Without one, it is as "scratch".
    start: Literal["scratch", "previous"] = "scratch"
    frozen: bool = False  # the encoder is not trained: random weights or those of others are evaluated
    head: Literal["linear", "mlp"] = "linear"  # not stated; MoCo v1 and the released code
    embedding_dim: int = 128  # not stated; MoCo

    def __post_init__(self) -> None:
        require("model.bn_momentum", self.bn_momentum, "from 0 to 1", 0 <= self.bn_momentum <= 1)
        shrinkable = self.encoder == "s3dg" or self.width == 1
        require("model.width", self.width, "in (0, 1], and 1 except for s3dg", 0 < self.width <= 1 and shrinkable)
        require("model.embedding_dim", self.embedding_dim, "from 1 to 65536", 1 <= self.embedding_dim <= 2**16)


@dataclass(frozen=True)
class ObjectiveConfig:
    """The loss (sections 3.1 and 3.3)."""

    temperature: float = 0.07  # tau
    queue_size: int = 65535  # K, as printed in section 4.1; need not be a multiple of the batch size
    key_momentum: float = 0.999  # not stated; MoCo
    # Paper: updates the momentum encoder once a step, as MoCo does; the released code updates it in both of its passes.
    key_updates: int = 1
    attention_weight: float = 3.0  # lambda; 0 leaves the attention term out
    cam: Literal["relu", "minmax"] = "relu"  # equation 4; the released code scales to [0, 1] instead
    # How a mask is reduced to the grid of the attention map.
    mask_pooling: Literal["area", "bilinear"] = "area"  # not stated; released code: bilinear
    # Weight of the speed loss (equation 2), which needs a third clip and a second head; 1 for the video model.
    speed_weight: float = 0.0
    speed_margin: float = 0.15  # gamma, in units of cosine; released code: 2 on logits divided by tau, which is 0.14
    # The positives of equation 1. The paper names the key. RSPNet and the released code add the third clip with a
    # second term of the same weight.
    positives: Literal["key", "key+other"] = "key"
    enqueued: Literal["key", "other"] = "key"  # embedding that becomes a negative; RSPNet, released code: other
    batch_norm_groups: int = 16  # parts of a batch, each with its own batch-norm statistics: the paper's 16 GPUs

    def __post_init__(self) -> None:
        require("objective.temperature", self.temperature, "more than 0", self.temperature > 0)
        require("objective.queue_size", self.queue_size, "from 1 to 16777216", 1 <= self.queue_size <= 2**24)
        require("objective.key_momentum", self.key_momentum, "from 0 to 1", 0 <= self.key_momentum <= 1)
        require("objective.key_updates", self.key_updates, "from 1 to 100", 1 <= self.key_updates <= 100)
        require("objective.speed_weight", self.speed_weight, "0 or more", self.speed_weight >= 0)
        require("objective.speed_margin", self.speed_margin, "more than 0", self.speed_margin > 0)
        for name in ("positives", "enqueued"):
            holds = self.speed_weight > 0 or getattr(self, name) == "key"
            require(f"objective.{name}", getattr(self, name), "key if objective.speed_weight is 0", holds)
        require("objective.attention_weight", self.attention_weight, "0 or more", self.attention_weight >= 0)
        require("objective.batch_norm_groups", self.batch_norm_groups, "1 or more", self.batch_norm_groups >= 1)


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser, which is SGD, and its schedule (section 4.1)."""

    lr: float = 0.03
    momentum: float = 0.9  # not stated; MoCo
    weight_decay: float = 1e-4  # not stated; MoCo
    epochs: int = 200
    batch_size: int = 256  # over all processes
    lr_update: Literal["epoch", "step"] = "epoch"  # not stated; MoCo and the released code change it once an epoch
    final_lr_fraction: float = 0.001  # not stated; released code: the cosine ends at lr / 1000
    clip_norm: float = 0.0  # gradients are scaled down to this norm; 0: never (paper, released code); CAST: 2
    precision: Literal["float32", "bfloat16"] = "bfloat16"  # not stated; on a CPU always float32

    def __post_init__(self) -> None:
        require("optim.lr", self.lr, "more than 0", self.lr > 0)
        require("optim.final_lr_fraction", self.final_lr_fraction, "from 0 to 1", 0 <= self.final_lr_fraction <= 1)
        require("optim.clip_norm", self.clip_norm, "0 or more", self.clip_norm >= 0)
        require("optim.momentum", self.momentum, "in [0, 1)", 0 <= self.momentum < 1)
        require("optim.weight_decay", self.weight_decay, "0 or more", self.weight_decay >= 0)
        require("optim.epochs", self.epochs, "from 1 to 1000000", 1 <= self.epochs <= 10**6)
        require("optim.batch_size", self.batch_size, "2 or more", self.batch_size >= 2)


@dataclass(frozen=True)
class Experiment:
    """All settings that decide a pretrained encoder."""

    video: VideoConfig = field(default_factory=VideoConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    saliency: SaliencyConfig = field(default_factory=SaliencyConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        require("seed", self.seed, "from 0 to 2**31 - 1", 0 <= self.seed < 2**31)
        batch, groups = self.optim.batch_size, self.objective.batch_norm_groups
        require("optim.batch_size", batch, f"a multiple of objective.batch_norm_groups = {groups}", batch % groups == 0)
        queue = self.objective.queue_size
        require("objective.queue_size", queue, f"optim.batch_size = {batch} or more", queue >= batch)
        frames, encoder = self.sampling.clip_frames, self.model.encoder
        if encoder == "s3dg":
            require("sampling.clip_frames", frames, "a multiple of 8 for s3dg", frames % 8 == 0)
        else:
            require("sampling.clip_frames", frames, f"1 for the image encoder {encoder}", frames == 1)
            speed = self.objective.speed_weight
            require("objective.speed_weight", speed, f"0 for the image encoder {encoder}", speed == 0)
        constraint = self.sampling.constraint
        masked = constraint == "tracking" or self.objective.attention_weight == 0
        require("sampling.constraint", constraint, "tracking if objective.attention_weight > 0", masked)

    def check_processes(self, processes: int) -> None:
        """Raise an InputError if this number of processes cannot train the experiment."""
        groups = self.objective.batch_norm_groups
        if processes < 1 or groups % processes:
            raise InputError(
                f"objective.batch_norm_groups = {groups} must be a multiple of the number of processes, {processes}, "
                "since each process computes whole groups; change one of the two"
            )

    def learned(self) -> dict[str, Any]:
        """Return the part that training reads, as plain data. The other settings decide the index.

        `model.weights` and `model.start` are left out: the weights that are found decide a checkpoint.
        """
        whole = dataclasses.asdict(self)
        part = {name: whole[name] for name in ("sampling", "augment", "model", "objective", "optim", "seed")}
        del part["model"]["weights"], part["model"]["start"]
        return part

    def to_json(self) -> str:
        """Return the experiment as an indented JSON document."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @staticmethod
    def from_json(text: str | bytes) -> "Experiment":
        """Return the experiment of a JSON document.

        Raises:
            InputError: If it is not JSON, or a field is unknown or has the wrong type.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"an experiment must be JSON ({type(error).__name__})") from None
        return fields.from_plain(Experiment, values, "")


@dataclass(frozen=True)
class Plan:
    """The settings of a row of the paper under a profile: its experiment and its evaluation."""

    experiment: Experiment = field(default_factory=Experiment)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


def override(plan: Plan, assignments: Sequence[str]) -> Plan:
    """Return the plan with its fields set by `section.field=value` assignments.

    Raises:
        InputError: If a field is unknown, or a value is not allowed. The message suggests the closest field.
    """
    values = dataclasses.asdict(plan)
    known = [*sorted(fields.paths(Experiment)), *(f"evaluation.{x}" for x in sorted(fields.paths(EvaluationConfig)))]
    form = "section.field=value, such as sampling.min_overlap=0.2"
    for assignment in assignments:
        path, text = fields.split_setting(assignment, known, "field", form)
        keys = path.split(".")
        if keys[0] != "evaluation":
            keys = ["experiment", *keys]
        fields.assign(Plan, values, keys, text.strip(), path)
    # All fields are set before those that depend on each other are checked, so the order does not matter.
    return fields.from_plain(Plan, values, "")
