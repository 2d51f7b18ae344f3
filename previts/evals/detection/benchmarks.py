"""The detection benchmarks: Faster R-CNN (C4) on VOC 2007, Mask R-CNN (FPN) on COCO 2017.

PreViTS section 4.2, table 1 (VOC det., COCO). The pretrained model itself does not change.

Shape suffixes: C classes, K overlaps.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from previts.config.evaluation import EvaluationConfig
from previts.errors import InputError
from previts.evals import features, frozen, input_check, labelled_images, voc07
from previts.evals.detection import detector_inputs, detectors, fine_tuning, object_sets, scores
from previts.evals.detection.object_sets import AnnotatedImage
from previts.evals.detection.scores import OVERLAPS, Detections
from previts.evals.outcome import Outcome, Population
from previts.models.moco import MoCo
from previts.models.resnet import ResNetEncoder
from previts.processes import distributed
from previts.storage import files


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
    encoder, settings, before = _encoder(model), config.detection, frozen.weights_digest(model)
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
    input_check.check_readable([*usable, *test], detector_inputs.open_annotated, "VOC detection")
    # not stated: MoCo
    schedule = fine_tuning.Schedule(settings.voc_steps, (3 / 4, 11 / 12), 100, settings.voc_sides, masks=False)
    detector = fine_tuning.train_detector(
        lambda: detectors.c4(encoder, len(classes), settings),
        device,
        usable,
        schedule=schedule,
        config=config,
        folder=folder,
        what="VOC det.",
    )
    found = fine_tuning.detect(detector, test, settings.voc_sides[1], "VOC07 test")
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
            **_protocol(schedule, config, detector=detector, train=train, usable=usable, test=test),
            **frozen.unchanged(model, before),
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
    encoder, settings, before = _encoder(model), config.detection, frozen.weights_digest(model)
    device = features.device_of(model)
    train = object_sets.read_coco(data_uri, "train", config.limit)
    val = object_sets.read_coco(data_uri, "val", config.limit)
    if train.categories != val.categories:
        raise InputError(f"the annotations of train2017 and val2017 below {data_uri} must have the same categories")
    # Images with crowds only are not usable for training.
    usable = _usable(train.images, data_uri, ignored=True)
    if all(image.objects.ignored.all() for image in val.images):
        raise InputError(f"no image of val2017 below {data_uri} has an object that can be scored")
    input_check.check_readable([*usable, *val.images], detector_inputs.open_annotated, "COCO")
    # not stated: detectron2's schedules
    steps = settings.coco_steps * (2 if settings.coco_schedule == "2x" else 1)
    schedule = fine_tuning.Schedule(steps, (2 / 3, 8 / 9), 1000, settings.coco_sides, masks=True)
    detector = fine_tuning.train_detector(
        lambda: detectors.fpn(encoder, len(train.categories), settings),
        device,
        usable,
        schedule=schedule,
        config=config,
        folder=folder,
        what="COCO",
    )
    found = fine_tuning.detect(detector, val.images, settings.coco_sides[1], "COCO val")
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
            **_protocol(schedule, config, detector=detector, train=train.images, usable=usable, test=val.images),
            **frozen.unchanged(model, before),
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


def _protocol(
    schedule: fine_tuning.Schedule,
    config: EvaluationConfig,
    *,
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
        "steps": schedule.steps,
        "batch_size": settings.batch_size,
        "learning_rate": settings.lr,
        "short_sides": {"train": list(schedule.sides), "test": schedule.sides[1]},
        "proposals": settings.proposals,
        "regions": settings.regions,
        "batch_norm": "trained, over all processes" if shared else "trained, each process over its own images",
        "precise_bn_batches": settings.precise_bn,
    }


def _figures(test: Sequence[AnnotatedImage], found: Sequence[Detections], names: Sequence[str]) -> dict[str, bytes]:
    return {"detections.png": detector_inputs.contact_sheet(test, found, names)} if distributed.is_main() else {}
