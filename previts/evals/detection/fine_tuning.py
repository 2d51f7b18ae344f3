"""Training and test of detectors that start from an encoder: VOC 2007 and COCO 2017.

PreViTS section 4.2, table 1 (VOC det., COCO). All layers of the detector are trained. The model itself does not change;
a digest of its weights, taken before and after, proves it.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from previts.config.evaluation import EvaluationConfig
from previts.errors import InputError
from previts.evals import features, labelled_images, training, voc07
from previts.evals.detection import detector_inputs, detectors, object_sets, scores
from previts.evals.detection.detector_inputs import Sample
from previts.evals.detection.object_sets import AnnotatedImage
from previts.evals.detection.scores import OVERLAPS, Detections
from previts.evals.outcome import Outcome, Population
from previts.models.moco import MoCo
from previts.models.resnet import ResNetEncoder
from previts.processes import distributed, prefetch
from previts.processes.progress import progress
from previts.storage import files

# not stated: detectron2
MOMENTUM, WEIGHT_DECAY, DROP = 0.9, 1e-4, 0.1
WARM_UP_FROM = 1e-3


@dataclass(frozen=True)
class Course:
    """The schedule of a detector's training.

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


Batch = tuple[int, list[Sample]]  # the step, and this process's images of it


def voc(model: MoCo, data_uri: str, config: EvaluationConfig, folder: str) -> Outcome:
    """Train Faster R-CNN (C4) on VOC trainval and test it on VOC 2007 test: `voc_det/ap`, `ap50`, `ap75` in percent.

    Trains on trainval of 2007, and of 2012 if that exists.

    Args:
        model: In eval mode.
        data_uri: Folder with `VOCdevkit/VOC2007` and optionally `VOCdevkit/VOC2012`.
        config: Uses detection, limit, seed.
        folder: URI for the states to resume from.

    Raises:
        InputError: If a file of the layout is missing or damaged, or there are no objects to train on or to test on.
    """
    encoder, settings, before = _encoder(model), config.detection, features.weights_digest(model)
    device = features.device_of(model)
    roots = {year: files.join(data_uri, "VOCdevkit", year) for year in ("VOC2007", "VOC2012")}
    classes = voc07.voc_classes(roots["VOC2007"])
    if not files.names(roots["VOC2012"]):
        del roots["VOC2012"]
    train = [
        image for root in roots.values() for image in object_sets.read_voc(root, "trainval", classes, config.limit)
    ]
    train = [train[number] for number in labelled_images.evenly(len(train), config.limit)]
    test = object_sets.read_voc(roots["VOC2007"], "test", classes, config.limit)
    usable = _usable(train, data_uri, ignored=not settings.difficult)
    if all(image.objects.ignored.all() for image in test):
        raise InputError(
            f"no image of the test list of {roots['VOC2007']} has an object that can be scored; use all images"
        )
    # not stated: MoCo
    course = Course(settings.voc_steps, (3 / 4, 11 / 12), 100, settings.voc_sides, masks=False)
    detector = _trained(
        lambda: detectors.c4(encoder, len(classes), settings), device, usable, course, config, folder, "VOC det."
    )
    found = _detected(detector, test, settings.voc_sides[1], "VOC07 test")
    precision_CK = scores.voc_average_precision(
        [image.objects for image in test], found, len(classes), settings.average_precision
    )
    scored = ~np.isnan(precision_CK[:, 0])
    mean_K = precision_CK[scored].mean(axis=0)
    numbers = {
        "voc_det/ap": float(mean_K.mean()),
        "voc_det/ap50": float(mean_K[OVERLAPS.index(0.5)]),
        "voc_det/ap75": float(mean_K[OVERLAPS.index(0.75)]),
    }
    return Outcome(
        metrics=numbers,
        protocol={
            "detector": "Faster R-CNN on layer3 (C4), layer4 and one more normalisation as its head",
            "train": [f"{year} trainval" for year in roots],
            "test": "VOC2007 test",
            "difficult": f"{'trained on' if settings.difficult else 'left out of training'}, not scored",
            "average_precision": f"{settings.average_precision}, mean over overlaps of 0.5 to 0.95",
            "ap50_by_class": {
                name: round(float(precision_CK[number, 0]), 2) for number, name in enumerate(classes) if scored[number]
            },
            "classes_without_positives": [name for number, name in enumerate(classes) if not scored[number]],
            **_detection_protocol(course, config, detector, train, usable, test),
            **features.unchanged(model, before),
        },
        figures=_figures(test, found, classes),
        populations=dict.fromkeys(numbers, _population(test)),
    )


def coco(model: MoCo, data_uri: str, config: EvaluationConfig, folder: str) -> Outcome:
    """Train Mask R-CNN (FPN) on COCO train2017 and test it on val2017: `coco/{box,mask}_ap`, `ap50`, `ap75` in percent.

    Args:
        model: In eval mode.
        data_uri: Folder with `annotations/instances_{train,val}2017.json`, `train2017` and `val2017`.
        config: Uses detection, limit, seed.
        folder: URI for the states to resume from.

    Raises:
        InputError: If a file of the layout is missing or damaged, or there are no objects to train on or to test on.
    """
    encoder, settings, before = _encoder(model), config.detection, features.weights_digest(model)
    device = features.device_of(model)
    train = object_sets.read_coco(data_uri, "train", config.limit)
    val = object_sets.read_coco(data_uri, "val", config.limit)
    if train.categories != val.categories:
        raise InputError(f"the annotations of train2017 and val2017 below {data_uri} must have the same categories")
    # Images with crowds only are not usable for training.
    usable = _usable(train.images, data_uri, ignored=True)
    if all(image.objects.ignored.all() for image in val.images):
        raise InputError(f"no image of val2017 below {data_uri} has an object that can be scored")
    # not stated: detectron2's schedules
    steps = settings.coco_steps * (2 if settings.coco_schedule == "2x" else 1)
    course = Course(steps, (2 / 3, 8 / 9), 1000, settings.coco_sides, masks=True)
    detector = _trained(
        lambda: detectors.fpn(encoder, len(train.categories), settings), device, usable, course, config, folder, "COCO"
    )
    found = _detected(detector, val.images, settings.coco_sides[1], "COCO val")
    numbers = scores.coco_average_precision(val.document, val.image_ids, found, list(val.categories))
    named = {f"coco/{name}": value for name, value in numbers.items()}
    return Outcome(
        metrics=named,
        protocol={
            "detector": "Mask R-CNN with a feature pyramid (FPN)",
            "schedule": settings.coco_schedule,
            "train": ["train2017"],
            "test": "val2017",
            "crowds": "left out of training, ignored in the test (pycocotools)",
            **_detection_protocol(course, config, detector, train.images, usable, val.images),
            **features.unchanged(model, before),
        },
        figures=_figures(val.images, found, list(train.categories.values())),
        populations=dict.fromkeys(named, _population(val.images)),
    )


def _population(annotated: Sequence[AnnotatedImage]) -> Population:
    """Return the objects that are scored. Random boxes almost never overlap an object by half: chance is 0."""
    objects = sum(int((~image.objects.ignored).sum()) for image in annotated)
    return Population(objects, "objects", 0.0)


def _encoder(model: MoCo) -> ResNetEncoder:
    encoder = model.encoder
    if not isinstance(encoder, ResNetEncoder):
        raise InputError("detection needs an image model: model.encoder must be resnet50 or resnet18")
    return encoder


def _usable(annotated: Sequence[AnnotatedImage], data_uri: str, *, ignored: bool) -> list[AnnotatedImage]:
    """Return the images with objects to train on; images without objects are left out (detectron2)."""
    kept = [image.without(ignored) for image in annotated]
    kept = [image for image in kept if len(image.objects.labels)]
    if not kept:
        raise InputError(f"no image of the training lists below {data_uri} has an object to train on; use more images")
    return kept


def _detection_protocol(
    course: Course,
    config: EvaluationConfig,
    detector: nn.Module,
    train: Sequence[AnnotatedImage],
    usable: Sequence[AnnotatedImage],
    test: Sequence[AnnotatedImage],
) -> dict[str, Any]:
    """Return the common part of both protocols."""
    shared = any(isinstance(norm, nn.SyncBatchNorm) for norm in detectors.normalisations(detector))
    settings = config.detection
    return {
        "images": {"train": len(train), "train_with_objects": len(usable), "test": len(test)},
        "steps": course.steps,
        "batch_size": settings.batch_size,
        "learning_rate": settings.lr,
        "short_sides": {"train": list(course.sides), "test": course.sides[1]},
        "proposals": settings.proposals,
        "regions": settings.regions,
        "batch_norm": "trained, over all processes" if shared else "trained, each process over its own images",
        "precise_bn_batches": settings.precise_bn,
    }


def _figures(test: Sequence[AnnotatedImage], found: Sequence[Detections], names: Sequence[str]) -> dict[str, bytes]:
    return {"detections.png": detector_inputs.contact_sheet(test, found, names)} if distributed.is_main() else {}


def _trained(
    build: Callable[[], nn.Module],
    device: torch.device,
    annotated: Sequence[AnnotatedImage],
    course: Course,
    config: EvaluationConfig,
    folder: str,
    what: str,
) -> nn.Module:
    """Return a trained detector in eval mode.

    Args:
        build: Builds the detector; its random layers follow the seed.
        device: The device to train on.
        annotated: Training images with all their objects.
        course: The schedule and the image sizes.
        config: Uses detection, seed.
        folder: URI for the states to resume from.
        what: Text of the progress line.
    """
    settings = config.detection
    with _seeded(device, config.seed):
        detector = build()
    detector = detectors.placed(detector, device).train()

    def batches(first: int) -> Iterator[Batch]:
        return _batches(annotated, course, config, first)

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
        steps=course.steps,
        batches=batches,
        loss_of=loss_of,
        rate_at=lambda step: settings.lr * course.factor(step),
        folder=folder,
        what=what,
    )
    if settings.precise_bn:
        detectors.forget_statistics(detector)
        coming = batches(course.steps)
        numbers = range(settings.precise_bn)
        with torch.no_grad(), progress(numbers, f"{what} statistics", unit="batch", total=len(numbers)) as shown:
            for _ in shown:
                loss_of(detector, next(coming))
    statistics = [value for name, value in detector.named_buffers() if "running_" in name]
    distributed.average_(statistics)  # each process normalised over its own images
    return detector.eval()


def _batches(
    annotated: Sequence[AnnotatedImage], course: Course, config: EvaluationConfig, first: int
) -> Iterator[Batch]:
    """Yield this process's share of the batches from step `first` on, without end."""

    def load(item: tuple[int, int]) -> Sample:
        epoch, number = item
        generator = np.random.default_rng((config.seed, epoch, number))
        return detector_inputs.training_sample(annotated[number], course.sides, generator, masks=course.masks)

    shares = training.shares(len(annotated), config.detection.batch_size, config.seed, first)
    groups = ([(epoch, number) for number in chosen] for epoch, chosen in shares)
    return enumerate(prefetch.loaded(groups, load), first)


@torch.no_grad()
def _detected(detector: nn.Module, annotated: Sequence[AnnotatedImage], side: int, what: str) -> list[Detections]:
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
