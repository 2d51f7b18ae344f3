"""Oracles: the rules of VOC's development kit written out, pycocotools on files, torchvision."""

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import box_iou

from previts.evals.detection.scores import (
    OVERLAPS,
    Detections,
    Objects,
    box_overlap,
    coco_average_precision,
    voc_average_precision,
)

CLASSES = 3


def random_boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    low = generator.integers(0, 60, (count, 2))
    return np.concatenate([low, low + generator.integers(4, 40, (count, 2))], axis=1).astype(np.float64)


def labelled(generator: np.random.Generator, images: int = 12) -> list[Objects]:
    counts = generator.integers(0, 5, images)
    return [
        Objects(random_boxes(generator, n), generator.integers(1, CLASSES + 1, n), generator.random(n) < 0.25)
        for n in counts
    ]


def perturbed(generator: np.random.Generator, truth: Sequence[Objects]) -> list[Detections]:
    """Return most objects, some twice, shifted by pixels or with another label, and boxes without an object."""
    found = []
    for objects in truth:
        again = np.flatnonzero(generator.random(len(objects.labels)) < 0.7)
        again = np.concatenate([again, again[: len(again) // 2]])
        boxes = objects.boxes[again] + generator.integers(-3, 4, (len(again), 4))
        labels = np.where(generator.random(len(again)) < 0.85, objects.labels[again], 1)
        others = int(generator.integers(0, 3))
        boxes = np.concatenate([boxes, random_boxes(generator, others)])
        labels = np.concatenate([labels, generator.integers(1, CLASSES + 1, others)])
        found.append(Detections(boxes, labels, generator.random(len(labels))))
    return found


def perfect(truth: Sequence[Objects]) -> list[Detections]:
    return [Detections(objects.boxes, objects.labels, np.full(len(objects.labels), 0.9)) for objects in truth]


def overlap_of_inclusive(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the overlap as VOC defines it: the corners belong to the box."""
    width = min(one[2], other[2]) - max(one[0], other[0]) + 1
    height = min(one[3], other[3]) - max(one[1], other[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def literal(truth: Sequence[Objects], found: Sequence[Detections], label: int, threshold: float, method: str) -> float:
    """Return average precision by the rules of the development kit: each detection claims an object or is wrong."""
    ranked = sorted(
        (-score, image, place)
        for image, detected in enumerate(found)
        for place, score in enumerate(detected.scores)
        if detected.labels[place] == label
    )
    claimed, marks = set(), []
    positives = sum(
        1 for objects in truth for n in range(len(objects.labels))
        if objects.labels[n] == label and not objects.ignored[n]
    )  # fmt: skip
    for _, image, place in ranked:
        objects, best, best_overlap = truth[image], None, -1.0
        x0, y0, x1, y1 = found[image].boxes[place]
        for n in range(len(objects.labels)):
            if objects.labels[n] == label:
                a0, b0, a1, b1 = objects.boxes[n]
                overlap = overlap_of_inclusive((x0 + 1, y0 + 1, x1, y1), (a0 + 1, b0 + 1, a1, b1))
                if overlap > best_overlap:
                    best, best_overlap = n, overlap
        if best is not None and best_overlap > threshold:
            if objects.ignored[best]:
                continue
            marks.append((image, best) not in claimed)
            claimed.add((image, best))
        else:
            marks.append(False)
    curve = [(sum(marks[: n + 1]) / positives, sum(marks[: n + 1]) / (n + 1)) for n in range(len(marks))]

    def best_at(recall: float) -> float:
        return max((precision for reached, precision in curve if reached >= recall - 1e-9), default=0.0)

    if method == "11-point":
        return 100 * sum(best_at(tenth / 10) for tenth in range(11)) / 11
    return 100 * sum(best_at(n / positives) for n in range(1, positives + 1)) / positives


@pytest.mark.parametrize("method", ["11-point", "area"])
def test_voc_follows_the_rules_of_the_development_kit(method: str):
    values = set()
    for seed in range(6):
        generator = np.random.default_rng(seed)
        truth = labelled(generator)
        found = perturbed(generator, truth)
        figures = voc_average_precision(truth, found, CLASSES, method)
        assert figures.shape == (CLASSES, len(OVERLAPS))
        for label in range(1, CLASSES + 1):
            for number, threshold in enumerate(OVERLAPS):
                assert figures[label - 1, number] == pytest.approx(literal(truth, found, label, threshold, method))
        values.update(figures.round(3).ravel().tolist())
    assert len(values) > 30  # not all 0 or 100


def test_overlap_equals_torchvision():
    generator = np.random.default_rng(0)
    one, other = random_boxes(generator, 7), random_boxes(generator, 5)
    oracle = box_iou(torch.from_numpy(one), torch.from_numpy(other)).numpy()
    assert box_overlap(one, other) == pytest.approx(oracle)
    assert box_overlap(one, other[:0]).shape == (7, 0)


def test_perfect_detections_score_100_and_shuffled_labels_almost_0():
    truth = labelled(np.random.default_rng(1), 40)
    for method in ("11-point", "area"):
        assert voc_average_precision(truth, perfect(truth), CLASSES, method) == pytest.approx(100)
        shuffled = [
            Detections(detected.boxes, detected.labels % CLASSES + 1, detected.scores) for detected in perfect(truth)
        ]
        assert voc_average_precision(truth, shuffled, CLASSES, method).max() < 10


def found_nothing() -> Detections:
    return Detections(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))


def test_classes_without_objects_difficult_objects_and_repeated_detections():
    box = np.array([[10.0, 10.0, 30.0, 40.0]])
    one = Objects(box, np.array([1]), np.array([False]))
    hard = Objects(box, np.array([1]), np.array([True]))
    hit = Detections(box, np.array([1]), np.array([0.5]))
    # Without detections AP is 0. A class without objects has no AP, even if there are detections.
    figures = voc_average_precision([one], [found_nothing()], 2, "area")
    assert (figures[0] == 0).all()
    assert np.isnan(figures[1]).all()
    assert np.isnan(voc_average_precision([one], [Detections(box, np.array([2]), np.array([0.5]))], 2, "area")[1]).all()
    # A class with difficult objects only has no AP. The detection of a difficult object does not count.
    assert np.isnan(voc_average_precision([hard], [hit], 1, "11-point")).all()
    both = [Objects(np.concatenate([box, box + 100]), np.array([1, 1]), np.array([True, False]))]
    found = [Detections(both[0].boxes, np.array([1, 1]), np.array([0.9, 0.8]))]
    assert (voc_average_precision(both, found, 1, "area") == 100).all()
    # The second detection of an object is wrong. It lowers AP if another object is detected later.
    pair = [Objects(np.concatenate([box, box + 100]), np.array([1, 1]), np.array([False, False]))]
    doubled = np.concatenate([box, box, box + 100])
    costly = [Detections(doubled, np.array([1, 1, 1]), np.array([0.9, 0.8, 0.7]))]
    free = [Detections(doubled, np.array([1, 1, 1]), np.array([0.9, 0.6, 0.7]))]
    assert voc_average_precision(pair, costly, 1, "area") == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert voc_average_precision(pair, free, 1, "area") == pytest.approx(100)
    # The overlap must exceed the threshold: exactly 0.5 is not enough.
    half = [Detections(np.array([[10.0, 10.0, 30.0, 25.0]]), np.array([1]), np.array([0.5]))]
    assert (voc_average_precision([one], half, 1, "area") == 0).all()
    assert voc_average_precision([], [], 1, "area").shape == (1, 10)
    with pytest.raises(ValueError, match="must be of the labelled images"):
        voc_average_precision([one], [], 1, "area")


def test_three_of_ten_objects_are_a_recall_of_three_tenths():
    boxes = np.array([[40.0 * n, 0.0, 40.0 * n + 20, 20.0] for n in range(10)])
    truth = [Objects(boxes, np.ones(10, np.int64), np.zeros(10, bool))]
    found = [Detections(boxes[:3], np.ones(3, np.int64), np.array([0.9, 0.8, 0.7]))]
    assert voc_average_precision(truth, found, 1, "11-point")[0, 0] == pytest.approx(100 * 4 / 11)
    assert voc_average_precision(truth, found, 1, "area")[0, 0] == pytest.approx(30)


CATEGORIES = (3, 7, 90)
SIDE = 100


def ellipse(box: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    middle, half = (box[:2] + box[2:]) / 2, np.maximum((box[2:] - box[:2]) / 2, 0.5)
    return ((x - middle[0]) / half[0]) ** 2 + ((y - middle[1]) / half[1]) ** 2 <= 1


def coded(mask: np.ndarray) -> dict[str, Any]:
    return run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))


def as_json(mask: np.ndarray) -> dict[str, Any]:
    runs = coded(mask)
    return {"size": runs["size"], "counts": runs["counts"].decode()}


def coco_document(truth: Sequence[Objects]) -> dict[str, Any]:
    annotations = []
    for image, objects in enumerate(truth):
        for box, label, crowd in zip(objects.boxes, objects.labels, objects.ignored, strict=True):
            x0, y0, x1, y1 = box.tolist()
            annotations.append({
                "id": len(annotations) + 1, "image_id": 10 + image, "category_id": CATEGORIES[label - 1],
                "bbox": [x0, y0, x1 - x0, y1 - y0], "area": float(ellipse(box).sum()), "iscrowd": int(crowd),
                "segmentation": as_json(ellipse(box)),
            })  # fmt: skip
    return {
        "images": [{"id": 10 + n, "file_name": f"{n}.jpg", "width": SIDE, "height": SIDE} for n in range(len(truth))],
        "annotations": annotations,
        "categories": [{"id": number, "name": str(number)} for number in CATEGORIES],
    }


def with_masks(found: Sequence[Detections]) -> list[Detections]:
    return [
        Detections(detected.boxes, detected.labels, detected.scores, [coded(ellipse(box)) for box in detected.boxes])
        for detected in found
    ]


def test_coco_equals_pycocotools_on_files(tmp_path: Path):
    generator = np.random.default_rng(4)
    truth = labelled(generator, 15)
    found = with_masks(perturbed(generator, truth))
    document = coco_document(truth)
    (tmp_path / "truth.json").write_text(json.dumps(document))
    numbers = coco_average_precision(document, [10 + n for n in range(15)], found, CATEGORIES)
    assert json.loads((tmp_path / "truth.json").read_text()) == document  # the input is unchanged
    for name, kind in (("box", "bbox"), ("mask", "segm")):
        shapes = {"bbox": lambda box: [*box[:2], *(box[2:] - box[:2])], "segm": lambda box: as_json(ellipse(box))}
        field = {"bbox": "bbox", "segm": "segmentation"}[kind]
        results = [
            {"image_id": 10 + n, "category_id": CATEGORIES[label - 1], "score": score, field: shapes[kind](box)}
            for n, detected in enumerate(found)
            for box, label, score in zip(detected.boxes, detected.labels, detected.scores.tolist(), strict=True)
        ]
        (tmp_path / "found.json").write_text(json.dumps(results))
        with contextlib.redirect_stdout(io.StringIO()):
            oracle = COCO(str(tmp_path / "truth.json"))
            measure = COCOeval(oracle, oracle.loadRes(str(tmp_path / "found.json")), kind)
            measure.evaluate()
            measure.accumulate()
            measure.summarize()
        mine = [numbers[f"{name}_{key}"] for key in ("ap", "ap50", "ap75")]
        assert mine == pytest.approx((100 * measure.stats[:3]).tolist())
        assert 5 < mine[0] < mine[1] < 95


def test_coco_of_perfect_detections_is_100_and_of_shuffled_or_no_detections_almost_0():
    truth = labelled(np.random.default_rng(5), 15)
    document, ids = coco_document(truth), [10 + n for n in range(15)]
    crowd_free = [
        Detections(o.boxes[~o.ignored], o.labels[~o.ignored], np.full((~o.ignored).sum(), 0.9)) for o in truth
    ]
    right = with_masks(crowd_free)
    assert set(coco_average_precision(document, ids, right, CATEGORIES).values()) == {100.0}
    wrong = [
        Detections(detected.boxes, detected.labels % CLASSES + 1, detected.scores, detected.masks) for detected in right
    ]
    assert max(coco_average_precision(document, ids, wrong, CATEGORIES).values()) < 10
    nothing = coco_average_precision(document, ids, [found_nothing()] * 15, CATEGORIES)
    assert set(nothing.values()) == {0.0}
    # Detections on crowds and images that were not tested do not count.
    on_crowds = [
        Detections(o.boxes, o.labels, np.where(o.ignored, 0.99, 0.5), [coded(ellipse(box)) for box in o.boxes])
        for o in truth
    ]
    assert coco_average_precision(document, ids, on_crowds, CATEGORIES)["box_ap"] > 99.9
    assert coco_average_precision(document, ids[:7], right[:7], CATEGORIES)["mask_ap"] == 100
    empty = {**document, "annotations": []}
    assert np.isnan(list(coco_average_precision(empty, ids, right, CATEGORIES).values())).all()
    with pytest.raises(ValueError, match="must be of the labelled images"):
        coco_average_precision(document, ids, right[:3], CATEGORIES)
