"""Average precision of detections, as VOC and COCO define it.

PreViTS table 1 (VOC det., COCO). Arrays and plain data in, percent out: no models, no image files.

Shape suffixes: N objects or detections, C classes, K overlaps.
"""

import contextlib
import copy
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

# An object counts as found if a detection overlaps it by more than this share of their union.
OVERLAPS = tuple(percent / 100 for percent in range(50, 100, 5))


@dataclass(frozen=True)
class Objects:
    """The labelled objects of an image: N boxes xyxy in pixels, right and bottom exclusive, and labels from 1."""

    boxes: Floats
    labels: Labels
    ignored: NDArray[np.bool_]  # "difficult" in VOC, "iscrowd" in COCO


@dataclass(frozen=True)
class Detections:
    """Detections in an image: as in `Objects`, with scores, and masks as run lengths of pycocotools."""

    boxes: Floats
    labels: Labels
    scores: Floats
    masks: list[dict[str, Any]] = field(default_factory=list)


def voc_average_precision(
    truth: Sequence[Objects], found: Sequence[Detections], classes: int, method: Literal["11-point", "area"]
) -> Floats:
    """Return the average precision of each class at each of `OVERLAPS` in percent, C x K.

    A detection belongs to the object of its class that it overlaps most. The best detection of an object is right if
    the overlap exceeds the threshold; further detections of it are wrong. A detection of a difficult object counts as
    neither (VOC 2007 development kit, section 4.4). Equal scores rank in the order of the images.

    Args:
        truth: The objects of each image.
        found: The detections in the same images.
        classes: Number of classes; labels run from 1 to that number.
        method: "11-point": the best precision at recall >= r, averaged over r = 0, 0.1, ..., 1 (VOC 2007, also in
            detectron2). "area": the area under the curve of that best precision (VOC since 2010).

    Returns:
        NaN for a class whose objects are all difficult or that has none.

    Raises:
        ValueError: If the numbers of images differ.
    """
    if len(truth) != len(found):
        raise ValueError(f"detections must be of the labelled images, got {len(truth) = }, {len(found) = }")
    precision_CK = np.full((classes, len(OVERLAPS)), np.nan)
    for label in range(1, classes + 1):
        positives = sum(int(((objects.labels == label) & ~objects.ignored).sum()) for objects in truth)
        if positives:
            scores_N, overlap_N, object_N, ignored_N = _matches(truth, found, label)
            order = np.argsort(-scores_N, kind="stable")
            for number, threshold in enumerate(OVERLAPS):
                right_N, counted_N = _marks(overlap_N[order], object_N[order], ignored_N[order], threshold)
                precision_CK[label - 1, number] = 100 * _area(right_N[counted_N], positives, method)
    return precision_CK


def _matches(
    truth: Sequence[Objects], found: Sequence[Detections], label: int
) -> tuple[Floats, Floats, Labels, NDArray[np.bool_]]:
    """Return for all detections of a class: score, overlap with the object, number of the object, whether ignored."""
    scores, overlaps, objects, ignored = [], [], [], []
    passed = 0
    for true, detected in zip(truth, found, strict=True):
        mine, chosen = true.labels == label, detected.labels == label
        scores.append(detected.scores[chosen])
        count = int(chosen.sum())
        if count and mine.any():
            overlap = box_overlap(detected.boxes[chosen], true.boxes[mine])
            best = overlap.argmax(axis=1)
            overlaps.append(overlap[np.arange(count), best])
            objects.append(passed + best)
            ignored.append(true.ignored[mine][best])
        else:
            overlaps.append(np.zeros(count))
            objects.append(np.zeros(count, np.int64))
            ignored.append(np.zeros(count, bool))
        passed += int(mine.sum())
    return np.concatenate(scores), np.concatenate(overlaps), np.concatenate(objects), np.concatenate(ignored)


def box_overlap(one_N4: Floats, other_M4: Floats) -> Floats:
    """Return the intersection over union of each of the first boxes with each of the second, N x M."""
    low = np.maximum(one_N4[:, None, :2], other_M4[None, :, :2])
    high = np.minimum(one_N4[:, None, 2:], other_M4[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    one_N, other_M = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one_N4, other_M4))
    return np.asarray(common / np.maximum(one_N[:, None] + other_M[None] - common, 1e-12))


def _marks(
    overlap_N: Floats, object_N: Labels, ignored_N: NDArray[np.bool_], threshold: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which detections, best first, are right, and which are scored."""
    hit_N = overlap_N > threshold
    right_N = np.zeros(len(hit_N), bool)
    candidates = np.flatnonzero(hit_N & ~ignored_N)
    right_N[candidates[np.unique(object_N[candidates], return_index=True)[1]]] = True  # the first of each object
    return right_N, ~(hit_N & ignored_N)


def _area(right_N: NDArray[np.bool_], positives: int, method: str) -> float:
    """Return the average precision, in [0, 1], of detections sorted from best to worst."""
    hits = np.cumsum(right_N)
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or a higher one
    if method == "area":
        return float(best[right_N].sum() / positives)
    # In integers: 3 of 10 objects must count as recall 0.3, which is not equal to 0.1 * 3 in floating point.
    places = [int(np.searchsorted(10 * hits, tenth * positives)) for tenth in range(11)]
    return float(np.mean([best[place] if place < len(best) else 0.0 for place in places]))


def coco_average_precision(
    document: dict[str, Any], image_ids: Sequence[int], found: Sequence[Detections], categories: Sequence[int]
) -> dict[str, float]:
    """Return COCO's average precision of boxes and masks in percent, as pycocotools computes it.

    Args:
        document: An annotation file as plain data: images, annotations and categories.
        image_ids: The tested images; only their annotations count.
        found: The detections in each of them, boxes and masks in the pixels of the image.
        categories: The category number in the file for each label, from label 1 on.

    Returns:
        `{box,mask}_ap`, `_ap50`, `_ap75`; NaN if no image has an object.

    Raises:
        ValueError: If the numbers of images differ.
    """
    if len(image_ids) != len(found):
        raise ValueError(f"detections must be of the labelled images, got {len(image_ids) = }, {len(found) = }")
    metrics: dict[str, float] = {}
    for name, kind in (("box", "bbox"), ("mask", "segm")):
        numbers = _coco_numbers(document, image_ids, _coco_results(image_ids, found, categories, kind), kind)
        metrics |= {f"{name}_{key}": value for key, value in zip(("ap", "ap50", "ap75"), numbers, strict=True)}
    return metrics


def _coco_results(
    image_ids: Sequence[int], found: Sequence[Detections], categories: Sequence[int], kind: str
) -> list[dict[str, Any]]:
    results = []
    for image_id, detected in zip(image_ids, found, strict=True):
        for number, (x0, y0, x1, y1) in enumerate(detected.boxes.tolist()):
            shape = {"segmentation": detected.masks[number]} if kind == "segm" else {"bbox": [x0, y0, x1 - x0, y1 - y0]}
            label, score = int(detected.labels[number]), float(detected.scores[number])
            results.append({"image_id": image_id, "category_id": categories[label - 1], "score": score, **shape})
    return results


def _coco_numbers(
    document: dict[str, Any], image_ids: Sequence[int], results: list[dict[str, Any]], kind: str
) -> list[float]:
    """Return AP, AP50 and AP75 of one kind of shape in percent."""
    truth = COCO()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a table
        # A copy, because pycocotools modifies its input.
        truth.dataset = {"info": {}, **copy.deepcopy(document)}
        truth.createIndex()
        empty = COCO()
        empty.dataset = {**truth.dataset, "annotations": []}  # pycocotools does not accept an empty list of results
        empty.createIndex()
        measure = COCOeval(truth, truth.loadRes(results) if results else empty, kind)
        measure.params.imgIds = sorted(image_ids)
        measure.evaluate()
        measure.accumulate()
        measure.summarize()
    return [100 * float(value) if value >= 0 else float("nan") for value in measure.stats[:3]]
