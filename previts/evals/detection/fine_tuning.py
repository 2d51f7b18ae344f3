"""Training and test of a detector on annotated images: the schedule, the loop, the detections.

PreViTS section 4.2, table 1 (VOC det., COCO). All layers of the detector are trained. Torch's global generator is
seeded for each step, so that a resumed run equals an uninterrupted one.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from previts.config.evaluation import EvaluationConfig
from previts.evals import training
from previts.evals.detection import detector_inputs, detectors
from previts.evals.detection.detector_inputs import Sample
from previts.evals.detection.object_sets import AnnotatedImage
from previts.evals.detection.scores import Detections
from previts.processes import distributed, prefetch
from previts.processes.progress import progress

# not stated: detectron2
MOMENTUM, WEIGHT_DECAY, DROP = 0.9, 1e-4, 0.1
WARM_UP_FROM = 1e-3
Batch = tuple[int, list[Sample]]  # the step, and this process's images of it


@dataclass(frozen=True)
class Schedule:
    """How a detector is trained: steps, learning rates, image sizes.

    Attributes:
        steps: Number of training steps.
        drops: Shares of the steps after which the rate drops.
        warm_up: Steps over which the rate grows from a thousandth; at most a tenth of all steps.
        sides: Range of the short sides of images, in pixels.
        masks: Whether masks are trained too.
    """

    steps: int
    drops: tuple[float, float]
    warm_up: int
    sides: tuple[int, int]
    masks: bool

    def factor(self, step: int) -> float:
        """Return the factor of the learning rate in a step."""
        passed = sum(step >= round(drop * self.steps) for drop in self.drops)
        warm_up = min(self.warm_up, self.steps // 10)
        grown = WARM_UP_FROM + (1 - WARM_UP_FROM) * step / warm_up if step < warm_up else 1.0
        return float(DROP**passed * grown)


def train_detector(
    build: Callable[[], nn.Module],
    device: torch.device,
    annotated: Sequence[AnnotatedImage],
    *,
    schedule: Schedule,
    config: EvaluationConfig,
    folder: str,
    what: str,
) -> nn.Module:
    """Return a trained detector in eval mode.

    Args:
        build: Builds the detector; its random layers follow the seed.
        device: The device to train on.
        annotated: Training images with all their objects.
        schedule: The schedule and the image sizes.
        config: Uses detection, seed.
        folder: URI for the states to resume from.
        what: Text of the progress line.
    """
    settings = config.detection
    with _seeded(device, config.seed):
        detector = build()
    detector = detectors.placed(detector, device).train()

    def batches(first: int) -> Iterator[Batch]:
        return _batches(annotated, schedule, config, first)

    def loss_of(learner: nn.Module, batch: Batch) -> Tensor:
        step, samples = batch
        images = [image.to(device).float() / 255 for image, _ in samples]
        targets = [{name: value.to(device) for name, value in target.items()} for _, target in samples]
        # torch's global generator draws the anchors and regions to train on.
        with _seeded(device, config.seed, step, distributed.rank()):
            losses: dict[str, Tensor] = learner(images, targets)
        return torch.stack(list(losses.values())).sum()

    groups = detectors.parameter_groups(detector, WEIGHT_DECAY)
    training.run_steps(
        detector,
        torch.optim.SGD(groups, lr=settings.lr, momentum=MOMENTUM),
        steps=schedule.steps,
        batches=batches,
        loss_of=loss_of,
        rate_at=lambda step: settings.lr * schedule.factor(step),
        folder=folder,
        what=what,
    )
    if settings.precise_bn:
        detectors.forget_statistics(detector)
        stream = batches(schedule.steps)
        numbers = range(settings.precise_bn)
        with torch.no_grad(), progress(numbers, f"{what} statistics", unit="batch", total=len(numbers)) as shown:
            for _ in shown:
                loss_of(detector, next(stream))
    statistics = [value for name, value in detector.named_buffers() if "running_" in name]
    distributed.average_(statistics)  # each process normalised over its own images
    return detector.eval()


def _batches(
    annotated: Sequence[AnnotatedImage], schedule: Schedule, config: EvaluationConfig, first: int
) -> Iterator[Batch]:
    """Yield this process's share of the batches from step `first` on, without end."""

    def load(item: tuple[int, int]) -> Sample:
        epoch, number = item
        generator = np.random.default_rng((config.seed, epoch, number))
        return detector_inputs.training_sample(annotated[number], schedule.sides, generator, masks=schedule.masks)

    shares = training.shares(len(annotated), config.detection.batch_size, config.seed, first)
    groups = ([(epoch, number) for number in chosen] for epoch, chosen in shares)
    return enumerate(prefetch.loaded(groups, load), first)


@torch.no_grad()
def detect(detector: nn.Module, annotated: Sequence[AnnotatedImage], side: int, what: str) -> list[Detections]:
    """Return the detections in each image; the processes share the images, and each returns all detections.

    Args:
        detector: In eval mode.
        annotated: The test images.
        side: Short side of the images in pixels.
        what: Text of the progress line.
    """
    device = next(detector.parameters()).device
    mine = list(range(distributed.rank(), len(annotated), distributed.world_size()))

    def load(number: int) -> Tensor:
        return detector_inputs.resized(detector_inputs.open_annotated(annotated[number]), side)

    found = []
    images = prefetch.loaded(([number] for number in mine), load, ahead=prefetch.THREADS)
    for number, (image,) in progress(zip(mine, images, strict=True), what, unit="image", total=len(mine)):
        detected = detector([image.to(device).float() / 255])[0]
        found.append(
            (number, detector_inputs.detections_in(annotated[number], detected, (image.shape[2], image.shape[1])))
        )
    return [detections for _, detections in sorted(distributed.gather_lists(found), key=lambda item: item[0])]


@contextlib.contextmanager
def _seeded(device: torch.device, *numbers: int) -> Iterator[None]:
    """Seed torch's generators with some numbers within the block."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
