"""The profiles: sizes at which any row of the paper can be run, the paper's own and that of a laptop.

A profile makes a plan smaller and keeps the differences between rows. The values of `demo` were chosen on the synthetic
world; they are not from the paper.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from previts.config.evaluation import ActionsConfig, DetectionConfig, EvaluationConfig, LinearConfig
from previts.config.experiment import Plan


@dataclass(frozen=True)
class Profile:
    """A size at which any row can be run.

    Attributes:
        name: Its name.
        title: What it is for.
        shrink: Returns a plan at this size.
        left_out: Benchmarks that say nothing about the rows at this size. A run leaves them out unless it names them.
    """

    name: str
    title: str
    shrink: Callable[[Plan], Plan]
    left_out: tuple[str, ...] = ()


def _demo(plan: Plan) -> Plan:
    """Return the plan at the size of a laptop: ResNet-18 or a quarter of S3D-g, small frames, a few epochs.

    The differences between rows are kept. The learning rate fits the batch size. The queue is not longer than the
    corpus: otherwise most negatives of a video would come from the same video. The colour augmentation is weaker, so
    that about a hundred steps are enough to learn something.
    """
    row = plan.experiment
    video = row.model.encoder == "s3dg"
    return Plan(
        replace(
            row,
            video=replace(row.video, max_short_side=160, max_fps=12.0, videos_per_shard=16),
            # For a network with random weights and 144 frames: contrast inputs, recoloured frames, larger rates.
            fit=replace(
                row.fit,
                network="drn_d_22",
                width=0.25,
                inputs="contrast",
                frames=144,
                size=128,
                rounds=1,
                round_epochs=6,
                round_lr=(1.5e-3, 1.5e-3, 1.5e-3),
                fusion_epochs=12,
                fusion_lr=1.5e-3,
                batch_size=8,
                history_crf="last",
                flip_probability=0.5,
                recolour_probability=0.5,
            ),
            saliency=replace(row.saliency, every=2, detector_side=128),
            augment=replace(
                row.augment,
                size=96 if video else 112,
                jitter=(0.2, 0.2, 0.2, 0.05),
                grey_probability=0.1,
                blur_probability=0.2,
            ),
            sampling=replace(row.sampling, clip_frames=8 if video else 1),
            model=replace(row.model, encoder="s3dg", width=0.25, bn_momentum=0.1)
            if video
            else replace(row.model, encoder="resnet18"),
            objective=replace(
                row.objective,
                queue_size=64,
                # The image model keeps its momentum: in so few steps the attention term makes faster keys all alike.
                key_momentum=0.99 if video else row.objective.key_momentum,
                batch_norm_groups=2,
            ),
            optim=replace(
                row.optim,
                lr=row.optim.lr / (6 if video else 2),
                epochs=row.optim.epochs // 5,
                batch_size=32,
                # The first gradients of S3D-g are a hundred times larger than later ones. Without clipping, its weights
                # become so large that a short run does not recover.
                clip_norm=4.0 if video else row.optim.clip_norm,
            ),
        ),
        EvaluationConfig(
            resize=128,
            crop=112,
            batch_size=64,
            linear=LinearConfig(epochs=30, views="cached"),
            detection=DetectionConfig(
                batch_size=2,
                voc_steps=30,
                coco_steps=20,
                voc_sides=(128, 160),
                coco_sides=(128, 160),
                proposals=16,
                regions=16,
                cells=7,
                precise_bn=4,
            ),
            # Few epochs to save time, at a rate between the default and that of RSPNet.
            actions=ActionsConfig(epochs=10, lr=0.01, batch_size=8, frames=16, size=64, test_clips=1),
        ),
    )


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("paper", "the sizes of the paper", lambda plan: plan),
        Profile(
            "demo",
            "the sizes of a laptop: minutes on two cores; not comparable with the numbers of the paper",
            _demo,
            # Their detectors find next to nothing in 20 to 30 steps, and cost more than all other benchmarks together.
            left_out=("voc_det", "coco"),
        ),
    )
}


def benchmarks_of(row: Sequence[str], profile: str) -> tuple[str, ...]:
    """Return the benchmarks that a run gives to a row if it names none: those of the row that fit the profile.

    Args:
        row: The benchmarks that the paper reports for the row.
        profile: Name of a profile.
    """
    return tuple(name for name in row if name not in PROFILES[profile].left_out)
