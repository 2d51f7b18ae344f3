"""Oracles: the same evaluation without an interruption, objects counted from the annotations."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detection_settings import SMALL
from PIL import Image
from pycocotools import mask as run_lengths

from previts.config.evaluation import DetectionConfig
from previts.config.tables import TABLE_1
from previts.demo.sets import world_images
from previts.errors import InputError
from previts.evals import frozen, labelled_images
from previts.evals.detection import benchmarks, detector_inputs, object_sets, scores
from previts.evals.detection.object_sets import AnnotatedImage
from previts.evals.detection.scores import Detections
from previts.evals.outcome import Population
from previts.evals.run import evaluate
from previts.models.moco import MoCo

VOC = "voc/VOCdevkit/VOC2007"


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", [pytest.param("voc_det", marks=pytest.mark.long), "coco"])
def test_an_interrupted_benchmark_equals_an_uninterrupted_one(
    model: MoCo, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchmark: str
):
    straight = evaluate(benchmark, model, str(world), SMALL, folder=str(tmp_path / "straight"))
    table = {key for row in TABLE_1 for key in row.reported if key.startswith(benchmark + "/")}
    assert straight.metrics.keys() == table
    assert all(0 <= value <= 100 for value in straight.metrics.values())
    protocol = straight.protocol
    assert protocol["weights_before"] == protocol["weights_after"] == frozen.weights_digest(model)
    assert protocol["images"]["train"] == (6 if benchmark == "voc_det" else 4)
    assert protocol["train"] == (["VOC2007 trainval"] if benchmark == "voc_det" else ["train2017"])
    json.dumps(protocol)
    assert straight.figures["detections.png"].startswith(b"\x89PNG")

    opened, read = [], labelled_images.open_image
    checked = protocol["images"]["train_with_objects"] + protocol["images"]["test"]  # before the training

    def open_image(uri: str) -> Image.Image:  # unchanged, except that the fifth call of the training sends SIGTERM
        opened.append(uri)
        if len(opened) == checked + 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(uri)

    monkeypatch.setattr(labelled_images, "open_image", open_image)
    torch.manual_seed(99)  # the state of the global generator must not matter
    with pytest.raises(SystemExit) as stopped:
        evaluate(benchmark, model, str(world), SMALL, folder=str(tmp_path / "resumed"))
    assert stopped.value.code == 143
    last = f"state-{SMALL.detection.voc_steps if benchmark == 'voc_det' else SMALL.detection.coco_steps:08d}.pt"
    assert not (tmp_path / "resumed" / last).exists()
    resumed = evaluate(benchmark, model, str(world), SMALL, folder=str(tmp_path / "resumed"))
    assert resumed.metrics == straight.metrics
    assert resumed.figures == straight.figures
    states = [torch.load(tmp_path / run / last, weights_only=True)["module"] for run in ("straight", "resumed")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


IMAGE_FAULTS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "missing VOC image": (
        "voc_det",
        lambda root: (root / VOC / "JPEGImages/000001.jpg").unlink(),
        r"000001\.jpg is missing",
    ),
    "another VOC image": (
        "voc_det",
        lambda root: Image.new("RGB", (10, 10)).save(root / VOC / "JPEGImages/000001.jpg"),
        r"000001\.jpg has 10 x 10 but its annotations say \d+ x \d+",
    ),
    "missing COCO image": (
        "coco",
        lambda root: (root / "coco/train2017/000000000001.jpg").unlink(),
        r"000000000001\.jpg is missing",
    ),
}


@pytest.mark.parametrize("fault", IMAGE_FAULTS)
def test_errors_of_images_name_the_file(model: MoCo, world: Path, tmp_path: Path, fault: str):
    benchmark, damage, message = IMAGE_FAULTS[fault]
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        evaluate(benchmark, model, str(tmp_path), replace(SMALL, limit=0))


def test_ignored_objects_and_images_without_objects_are_not_trained_on(world: Path):
    classes = sorted(world_images.VOC_NAMES)
    read = object_sets.read_voc(str(world / VOC), "trainval", classes, 0)
    hard = replace(read[0], objects=replace(read[0].objects, ignored=np.ones_like(read[0].objects.ignored)))
    assert len(benchmarks._usable([hard, *read[1:]], "", ignored=True)) == len(read) - 1
    assert len(benchmarks._usable([hard, *read[1:]], "", ignored=False)) == len(read)
    with pytest.raises(InputError, match="has an object to train on"):
        benchmarks._usable([hard], "voc", ignored=True)
    assert len(read[0].objects.labels) == len(read[0].objects.boxes) > 0


def test_voc_2012_is_trained_on_if_it_exists(model: MoCo, world: Path, tmp_path: Path):
    shutil.copytree(world / "voc", tmp_path / "voc")
    shutil.copytree(tmp_path / VOC, tmp_path / "voc/VOCdevkit/VOC2012")
    config = replace(SMALL, limit=3, detection=replace(SMALL.detection, voc_steps=1, precise_bn=0, voc_sides=(64, 64)))
    outcome = evaluate("voc_det", model, str(tmp_path), config)
    assert outcome.protocol["train"] == ["VOC2007 trainval", "VOC2012 trainval"]
    assert outcome.protocol["images"] == {"train": 3, "train_with_objects": 3, "test": 3}
    test = object_sets.read_voc(str(tmp_path / VOC), "test", sorted(world_images.VOC_NAMES), 3)
    scored = sum(not ignored for image in test for ignored in image.objects.ignored)
    assert outcome.populations == dict.fromkeys(outcome.metrics, Population(scored, "objects", 0.0))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"voc_sides": (800, 480)}, r"evaluation\.detection\.voc_sides must be two sizes of 32 or more"),
        ({"coco_sides": (640, 700)}, r"evaluation\.detection\.coco_sides must be .* a multiple of 32 apart"),
        ({"proposals": 0}, r"evaluation\.detection\.proposals must be 1 or more, got 0"),
        ({"lr": 0.0}, r"evaluation\.detection\.lr must be more than 0"),
        ({"precise_bn": -1}, r"evaluation\.detection\.precise_bn must be 0 or more"),
    ],
)
def test_invalid_settings_are_refused(changed: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        DetectionConfig(**changed)


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["voc_det", "coco"])
def test_real_data(model: MoCo, real_data: Path, benchmark: str):
    if not (real_data / ("voc" if benchmark == "voc_det" else "coco")).is_dir():
        pytest.skip(f"no {benchmark} in {real_data}")
    # All annotations are read and checked; few images are used.
    outcome = evaluate(benchmark, model, str(real_data), replace(SMALL, limit=4))
    assert all(0 <= value <= 100 for value in outcome.metrics.values())
    if benchmark == "coco":
        whole = object_sets.read_coco(str(real_data / "coco"), "train", 0)
        assert any(image.objects.ignored.any() for image in whole.images)
        perfect = [
            Detections(
                p.objects.boxes, p.objects.labels, np.ones(len(p.objects.labels)), [_runs(s, p) for s in p.shapes]
            )
            for p in whole.images
        ]
        numbers = scores.coco_average_precision(whole.document, whole.image_ids, perfect, list(whole.categories))
        assert numbers["box_ap50"] > 99
        assert numbers["mask_ap"] > 95


def _runs(shape: object, image: AnnotatedImage) -> dict[str, object]:
    mask = detector_inputs.shape_mask(shape, image.size, image.size)
    return run_lengths.encode(np.asfortranarray(mask))
