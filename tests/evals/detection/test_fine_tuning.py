import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as run_lengths

from previts.config.evaluation import DetectionConfig, EvaluationConfig
from previts.config.experiment import Experiment, ModelConfig, ObjectiveConfig, OptimConfig
from previts.config.paper import TABLE_1
from previts.demo import TINY
from previts.demo.sets import world_images
from previts.errors import InputError
from previts.evals import frozen, labelled_images
from previts.evals.detection import benchmarks, detector_inputs, fine_tuning, object_sets, scores
from previts.evals.detection.object_sets import AnnotatedImage
from previts.evals.detection.scores import Detections
from previts.evals.outcome import Population
from previts.evals.run import evaluate
from previts.models.moco import MoCo

SMALL = EvaluationConfig(
    detection=DetectionConfig(
        lr=0.005,
        batch_size=2,
        voc_steps=6,
        coco_steps=3,
        voc_sides=(64, 96),
        coco_sides=(64, 96),
        proposals=8,
        regions=8,
        cells=4,
        precise_bn=2,
    ),
    limit=6,
)


def build(kind: str = "resnet18") -> MoCo:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    experiment = Experiment(
        model=ModelConfig(encoder=kind),
        objective=ObjectiveConfig(queue_size=64, batch_norm_groups=2),
        optim=OptimConfig(batch_size=8),
    )
    return MoCo(experiment).eval()


@pytest.fixture(scope="module")
def model() -> MoCo:
    return build()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    world_images.write_voc(str(root / "voc"), replace(TINY, voc_images=8))
    world_images.write_coco(str(root / "coco"), TINY)
    return root


# --- training and testing ---


def test_the_rate_warms_up_and_drops():
    voc = fine_tuning.Schedule(24_000, (3 / 4, 11 / 12), 100, (480, 800), masks=False)
    rates = [voc.factor(step) for step in (0, 50, 100, 17_999, 18_000, 21_999, 22_000, 23_999)]
    assert rates == pytest.approx([0.001, 0.5005, 1, 1, 0.1, 0.1, 0.01, 0.01])
    for steps, drops in ((90_000, (60_000, 80_000)), (180_000, (120_000, 160_000))):
        coco = fine_tuning.Schedule(steps, (2 / 3, 8 / 9), 1000, (640, 800), masks=True)
        rates = [coco.factor(step) for drop in drops for step in (drop - 1, drop)]
        assert rates == pytest.approx([1, 0.1, 0.1, 0.01])
    assert fine_tuning.Schedule(30, (3 / 4, 11 / 12), 100, (64, 96), masks=False).factor(3) == 1


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["voc_det", "coco"])
def test_end_to_end_and_resumed(
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

    def open_image(uri: str) -> Image.Image:  # the file as it is; a tripwire that stops the run in its third step
        opened.append(uri)
        if len(opened) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(uri)

    monkeypatch.setattr(labelled_images, "open_image", open_image)
    torch.manual_seed(99)  # what else was drawn must not matter
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


def write_squares(root: Path, count: int) -> None:
    """VOC with a red or a green square before noise."""
    base = root / "voc" / "VOCdevkit" / "VOC2007"
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (base / folder).mkdir(parents=True)
    for split, first in (("trainval", 0), ("test", 500)):
        names = [f"{first + n:06d}" for n in range(count)]
        for n, name in enumerate(names):
            generator = np.random.default_rng(first + n)
            pixels = generator.integers(90, 130, (96, 96, 3), dtype=np.uint8)
            side = int(generator.integers(36, 60))
            x, y = (int(value) for value in generator.integers(0, 96 - side, 2))
            pixels[y : y + side, x : x + side] = (220, 20, 20) if n % 2 else (20, 220, 20)
            Image.fromarray(pixels).save(base / "JPEGImages" / f"{name}.jpg", quality=95)
            (base / "Annotations" / f"{name}.xml").write_text(
                f"<annotation><size><width>96</width><height>96</height><depth>3</depth></size><object>"
                f"<name>{'red' if n % 2 else 'green'}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin>"
                f"<ymin>{y + 1}</ymin><xmax>{x + side}</xmax><ymax>{y + side}</ymax></bndbox></object></annotation>"
            )
        (base / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
        for label in ("green", "red"):
            (base / "ImageSets" / "Main" / f"{label}_{split}.txt").write_text("\n".join(f"{name} 1" for name in names))


@pytest.mark.slow
def test_squares_are_found_after_some_training(model: MoCo, tmp_path: Path):
    write_squares(tmp_path, 16)
    config = replace(
        SMALL, limit=0, detection=replace(SMALL.detection, lr=0.02, batch_size=4, voc_steps=50, voc_sides=(64, 64))
    )
    assert evaluate("voc_det", model, str(tmp_path), config).metrics["voc_det/ap50"] > 30


TOGETHER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
from previts.evals.run import evaluate
from previts.processes import distributed
from test_fine_tuning import SMALL, build

with distributed.process_group():
    config = replace(SMALL, limit=5, detection=replace(SMALL.detection, voc_steps=2, voc_sides=(64, 64)))
    print(json.dumps(evaluate("voc_det", build(), sys.argv[2], config, folder=sys.argv[3]).metrics))
"""


@pytest.mark.slow
def test_two_processes_share_training_and_test(world: Path, tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, str(Path(__file__).parent), str(world), str(tmp_path)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    numbers = [json.loads(text.splitlines()[-1]) for text in said]
    # Each returns the measure of all images; only one writes states.
    assert numbers[0] == numbers[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state-00000002.pt", "state-00000002.pt.sha256"]


# --- layouts ---


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


VOC = "voc/VOCdevkit/VOC2007"
FIRST = f"{VOC}/Annotations/000001.xml"
VOC_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no list": (lambda root: (root / VOC / "ImageSets/Main/trainval.txt").unlink(), r"Main/trainval\.txt is missing"),
    "no XML": (lambda root: (root / FIRST).unlink(), r"000001\.xml is missing"),
    "cut XML": (lambda root: (root / FIRST).write_text("<annotation>"), r"000001\.xml is not XML"),
    "no image": (lambda root: (root / VOC / "JPEGImages/000001.jpg").unlink(), r"000001\.jpg is missing"),
    "another image": (
        lambda root: Image.new("RGB", (10, 10)).save(root / VOC / "JPEGImages/000001.jpg"),
        r"000001\.jpg has 10 x 10 but its annotations say \d+ x \d+",
    ),
    "unknown class": (
        lambda root: edit(root / FIRST, "<name>dog<", "<name>unicorn<"),
        r"000001\.xml: name of object 1 must be a class of the dataset .*aeroplane.* got 'unicorn'",
    ),
    "box outside": (
        lambda root: edit(root / FIRST, "<xmax>", "<xmax>9"),
        r"000001\.xml: bndbox of object 1 \(dog\) must be inside the image of \d+ x \d+ pixels",
    ),
    "box without number": (
        lambda root: edit(root / FIRST, "<xmin>", "<xmin>a"),
        r"000001\.xml: bndbox/xmin of object must be a number, got 'a",
    ),
}
COCO = "coco/annotations/instances_train2017.json"
COCO_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no annotations": (lambda root: (root / COCO).unlink(), r"instances_train2017\.json is missing"),
    "cut JSON": (lambda root: (root / COCO).write_text("{"), r"instances_train2017\.json is not JSON"),
    "no image": (lambda root: (root / "coco/train2017/000000000001.jpg").unlink(), r"000000000001\.jpg is missing"),
    "unknown class": (
        lambda root: change(root, "annotations", 0, "category_id", 999),
        r"annotations\[0\] has category_id 999, which has no category",
    ),
    "unknown image": (
        lambda root: change(root, "annotations", 0, "image_id", 999),
        r"annotations\[0\] has image_id 999, which has no image",
    ),
    "box outside": (
        lambda root: change(root, "annotations", 0, "bbox", [0, 0, 9999, 5]),
        r"bbox of annotations\[0\] must be inside the image",
    ),
    "no box": (
        lambda root: change(root, "annotations", 0, "bbox", [1, 2]),
        r"must be x, y, width, height, got \[1, 2\]",
    ),
    "no field": (lambda root: change(root, "images", 1, "width", None), r"images\[1\] must have the fields .*'width'"),
}


def change(root: Path, section: str, place: int, field: str, value: object) -> None:
    document = json.loads((root / COCO).read_text())
    document[section][place][field] = value
    if value is None:
        del document[section][place][field]
    (root / COCO).write_text(json.dumps(document))


@pytest.mark.parametrize("fault", VOC_FAULTS)
def test_voc_layout_errors_name_file_and_field(model: MoCo, world: Path, tmp_path: Path, fault: str):
    shutil.copytree(world / "voc", tmp_path / "voc")
    damage, message = VOC_FAULTS[fault]
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        evaluate("voc_det", model, str(tmp_path), replace(SMALL, limit=0))


@pytest.mark.parametrize("fault", COCO_FAULTS)
def test_coco_layout_errors_name_file_and_field(model: MoCo, world: Path, tmp_path: Path, fault: str):
    shutil.copytree(world / "coco", tmp_path / "coco")
    damage, message = COCO_FAULTS[fault]
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        evaluate("coco", model, str(tmp_path), replace(SMALL, limit=0))


def test_what_is_ignored_is_not_trained_on_and_empty_images_are_left_out(world: Path):
    classes = sorted(world_images.VOC_NAMES)
    read = object_sets.read_voc(str(world / VOC), "trainval", classes, 0)
    hard = replace(read[0], objects=replace(read[0].objects, ignored=np.ones_like(read[0].objects.ignored)))
    assert len(benchmarks._usable([hard, *read[1:]], "", ignored=True)) == len(read) - 1
    assert len(benchmarks._usable([hard, *read[1:]], "", ignored=False)) == len(read)
    with pytest.raises(InputError, match="has an object to train on"):
        benchmarks._usable([hard], "voc", ignored=True)
    assert len(read[0].objects.labels) == len(read[0].objects.boxes) > 0


def test_2012_is_trained_on_where_it_is_there(model: MoCo, world: Path, tmp_path: Path):
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
def test_settings_are_checked(changed: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        DetectionConfig(**changed)


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["voc_det", "coco"])
def test_real_data(model: MoCo, real_data: Path, benchmark: str):
    if not (real_data / ("voc" if benchmark == "voc_det" else "coco")).is_dir():
        pytest.skip(f"no {benchmark} in {real_data}")
    # All annotations are read and checked; few images are looked at.
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
    mask = detector_inputs.shape_mask(shape, image.size, image.size, image.uri)
    return run_lengths.encode(np.asfortranarray(mask))
