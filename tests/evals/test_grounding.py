"""Oracles: planted maps, and small images with planted objects."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from item_checks import check_items
from PIL import Image

from previts import demo
from previts.config.evaluation import EvaluationConfig
from previts.config.experiment import Experiment, ModelConfig, ObjectiveConfig, OptimConfig
from previts.demo.sets import world_images
from previts.errors import InputError
from previts.evals import features, frozen, grounding, labelled_images
from previts.evals.detection import object_sets
from previts.evals.run import evaluate
from previts.models.moco import MoCo

SMALL = EvaluationConfig(resize=96, crop=96)


@pytest.fixture(scope="module")
def model() -> MoCo:
    objective = ObjectiveConfig(queue_size=8, batch_norm_groups=1)
    return MoCo(Experiment(model=ModelConfig("resnet18"), objective=objective, optim=OptimConfig(batch_size=4))).eval()


def write(root: Path, boxes: list[list[tuple[int, int, int, int]]], crowd: bool = False) -> Path:
    """Write images of 96 x 96 with rectangular objects of the categories 3 and 7 in turn."""
    annotations = []
    for number, objects in enumerate(boxes):
        image = np.full((96, 96, 3), 90, np.uint8)
        for place, (x0, y0, x1, y1) in enumerate(objects):
            image[y0:y1, x0:x1] = ((220, 30, 30), (30, 30, 220))[place % 2]
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": number, "category_id": (3, 7)[place % 2],
                    "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": int(crowd),
                    "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
                }
            )  # fmt: skip
        (root / "val2017").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "val2017" / f"{number:012d}.png")
    images = [{"id": n, "file_name": f"{n:012d}.png", "width": 96, "height": 96} for n in range(len(boxes))]
    categories = [{"id": 7, "name": "car"}, {"id": 3, "name": "dog"}]
    (root / "annotations").mkdir(exist_ok=True)
    document = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(document))
    return root


def test_images_with_two_large_separate_objects_are_chosen(tmp_path: Path) -> None:
    pair = [(0, 0, 48, 96), (48, 0, 96, 96)]
    alone, small, overlapping = [(0, 0, 48, 96)], [(0, 0, 48, 96), (90, 90, 96, 96)], [(0, 0, 48, 96), (0, 0, 40, 96)]
    images = grounding.read_two_object_images(str(write(tmp_path, [alone, pair, small, overlapping])))
    assert [item.uri[-5:] for item in images] == ["1.png"]
    assert images[0].names == ("dog", "car")
    expected = np.zeros((2, 96, 96), bool)
    expected[0, :, :48] = expected[1, :, 48:] = True
    assert np.array_equal(images[0].masks, expected)
    with pytest.raises(InputError, match=r"no image of .*val2017 has two objects"):
        grounding.read_two_object_images(str(write(tmp_path / "crowds", [pair], crowd=True)))


def test_keys_are_distinguished_only_if_each_draws_attention_to_its_own_object() -> None:
    shares = np.zeros((2, 4, 4), np.float32)
    shares[0, :, :2] = 1
    shares[1, 0, 3] = 1  # smaller: attention counts per area
    assert grounding.tells_apart(shares, shares)
    assert not grounding.tells_apart(shares[::-1], shares)
    same = np.broadcast_to(shares[0], shares.shape)
    assert not grounding.tells_apart(same, shares)
    assert not grounding.tells_apart(np.zeros_like(shares), shares)
    even = np.ones_like(shares)
    even[1, 0, 3] = 1.1
    assert not grounding.tells_apart(even[[1, 1]], shares)


def test_the_map_of_a_key_equals_that_of_the_model(model: MoCo, tmp_path: Path) -> None:
    (item,) = grounding.read_two_object_images(str(write(tmp_path, [[(0, 0, 48, 96), (48, 0, 96, 96)]])))
    image = labelled_images.load_whole(item.uri, size=96)
    cam, shares = grounding.attend(model, image, item.masks)
    clip = features.normalised(image[None], features.device_of(model))
    for number in range(2):
        mask = torch.from_numpy(item.masks[number][None])
        expected = model.attend(clip[None].transpose(1, 2), clip.transpose(0, 1)[None], mask[None])
        assert np.allclose(cam[number], expected[0, 0].detach().numpy(), atol=1e-6)
    assert cam.shape == shares.shape == (2, 3, 3)
    assert shares[0].sum() == pytest.approx(4.5)


def test_chance_of_pointing_is_the_score_of_a_random_cell(model: MoCo, tmp_path: Path) -> None:
    # On a grid of 3 x 3 cells of 32 pixels: the first object covers 3 cells, the second 6.
    write(tmp_path / "coco", [[(0, 0, 32, 96), (32, 0, 96, 96)]])
    populations = evaluate("grounding", model, str(tmp_path), SMALL).populations
    assert populations["grounding/pointing"].chance == pytest.approx((3 + 6) / 18)
    assert populations["grounding/energy"].chance == pytest.approx((3 + 6) / 18)


def test_the_benchmark_on_the_synthetic_world(model: MoCo, tmp_path: Path) -> None:
    world_images.write_coco(str(tmp_path / "coco"), replace(demo.TINY, coco_val=12, coco_train=1))
    before = frozen.weights_digest(model)
    outcome = evaluate("grounding", model, str(tmp_path), SMALL)
    assert all(0 <= value <= 1 for value in outcome.metrics.values())
    check_items(outcome, set(outcome.metrics))
    assert set(outcome.metrics) == {"grounding/energy", "grounding/pointing", "grounding/told_apart"}
    assert frozen.weights_digest(model) == before
    scored = outcome.protocol["pictures_scored"]
    populations = outcome.populations
    assert {name: (item.items, item.unit) for name, item in populations.items()} == {
        "grounding/energy": (2 * scored, "objects"), "grounding/pointing": (2 * scored, "objects"),
        "grounding/told_apart": (scored, "images"),
    }  # fmt: skip
    # An even map has the mean area of the objects, which the grid's cells keep.
    assert populations["grounding/energy"].chance == pytest.approx(outcome.protocol["mean_area_of_an_object"], abs=0.02)
    assert populations["grounding/told_apart"].chance == 0.25
    figure = np.load(io.BytesIO(outcome.figures["keys.npz"]))
    assert len(figure["names"]) == 2 * min(6, outcome.protocol["pictures_scored"])
    assert figure["cams"].shape[1:] == (1, 3, 3)
    assert figure["frames"].shape[1:] == (1, *figure["key_frames"].shape[1:])


@pytest.mark.slow
def test_real_images(model: MoCo, real_data: Path) -> None:
    outcome = evaluate("grounding", model, str(real_data), replace(SMALL, limit=8))
    assert outcome.protocol["pictures_scored"] == 8
    split = object_sets.read_coco(str(real_data / "coco"), "val", 0)
    assert outcome.metrics["grounding/energy"] < 1
    assert len(split.images) == 80
