"""Oracle: classes with a visible difference."""

from dataclasses import replace
from pathlib import Path

import pytest
from colour_images import SMALL, image_model, write_image, write_imagenet
from item_checks import check_items

from previts.errors import InputError
from previts.evals import frozen
from previts.evals.outcome import Population
from previts.evals.run import evaluate
from previts.models.moco import MoCo


@pytest.fixture(scope="module")
def model() -> MoCo:
    return image_model()


@pytest.mark.parametrize("views", ["cached", "fresh"])
def test_benchmark_distinguishes_colours_and_does_not_change_the_model(model: MoCo, tmp_path: Path, views: str):
    write_imagenet(tmp_path)
    config = replace(SMALL, linear=replace(SMALL.linear, views=views))
    before = frozen.weights_digest(model)
    outcome = evaluate("in1k", model, str(tmp_path), config)
    assert outcome.metrics["in1k/top1"] > 90
    check_items(outcome, {"in1k/top1", "in1k/top5"})
    assert outcome.metrics["in1k/top5"] == 100  # of three classes
    assert outcome.populations == {
        "in1k/top1": Population(18, "images", pytest.approx(100 / 3)), "in1k/top5": Population(18, "images", 100.0),
    }  # fmt: skip
    assert frozen.weights_digest(model) == before
    few, again = (evaluate("in1k", model, str(tmp_path), replace(config, limit=3)) for _ in range(2))
    assert few.metrics == again.metrics
    assert few.protocol["images"] == {"train": 3, "val": 3}
    assert few.protocol["classes"] == 3


def test_layout_errors_name_the_folder(model: MoCo, tmp_path: Path):
    with pytest.raises(InputError, match="imagenet/train/<class>"):
        evaluate("in1k", model, str(tmp_path), SMALL)
    write_imagenet(tmp_path, per_class=1)
    write_image(tmp_path / "imagenet" / "val" / "unicorn" / "0.png", (9, 9, 9), 0)
    with pytest.raises(InputError, match="unicorn is not a class"):
        evaluate("in1k", model, str(tmp_path), SMALL)


def test_hidden_files_are_no_class_and_no_image_and_the_outcome_counts_the_rest(model: MoCo, tmp_path: Path):
    write_imagenet(tmp_path)
    clean = evaluate("in1k", model, str(tmp_path), SMALL)
    train = tmp_path / "imagenet" / "train"
    write_image(train / ".ipynb_checkpoints" / "x.jpg", (9, 9, 9), 0)
    for name in ("cat/._0.JPEG", "__MACOSX/cat/0.JPEG", "cat/Thumbs.db", "dog/list.txt"):
        (train / name).parent.mkdir(parents=True, exist_ok=True)
        (train / name).write_bytes(b"not an image")
    outcome = evaluate("in1k", model, str(tmp_path), SMALL)
    assert outcome.metrics == clean.metrics
    assert outcome.protocol == {**clean.protocol, "left_aside": {"train": "4 hidden, 1 .txt"}}


def test_unreadable_test_images_are_all_named_before_any_training(model: MoCo, tmp_path: Path):
    write_imagenet(tmp_path)
    val = tmp_path / "imagenet" / "val"
    (val / "cat" / "1.JPEG").write_bytes(b"")
    (val / "dog" / "3.JPEG").write_bytes((val / "dog" / "3.JPEG").read_bytes()[:500])
    with pytest.raises(InputError, match=r"2 of the 18 files of ImageNet val cannot be used") as error:
        evaluate("in1k", model, str(tmp_path), SMALL, folder=str(tmp_path / "states"))
    assert f"{val}/cat/1.JPEG cannot be read as an image" in str(error.value)
    assert f"{val}/dog/3.JPEG cannot be read as an image" in str(error.value)
    assert not (tmp_path / "states").exists()
