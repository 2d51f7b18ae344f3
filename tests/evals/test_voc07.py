"""Oracles: planted classes, noise, scikit-learn's cross-validation, means over random scores."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_images import COLOURS, SMALL, image_model, planted_features, write_image
from item_checks import check_items
from sklearn.model_selection import cross_val_score

from previts.config.evaluation import SvmConfig
from previts.errors import InputError
from previts.evals import metrics, voc07
from previts.evals.run import evaluate
from previts.models.moco import MoCo


@pytest.fixture(scope="module")
def model() -> MoCo:
    return image_model()


def write_voc(root: Path, per_class: int = 8) -> Path:
    """VOC 2007 with images of one colour per class. The class "train" has lists with the name of a split."""
    base = root / "voc" / "VOCdevkit" / "VOC2007"
    lists = base / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    names = list(COLOURS)
    for split, first in (("trainval", 0), ("test", 500)):
        ids = [f"{first + n:06d}" for n in range(per_class * len(names))]
        for n, name in enumerate(ids):
            write_image(base / "JPEGImages" / f"{name}.jpg", COLOURS[names[n % 3]], first + n)
        for c, label in enumerate(names):
            lines = [f"{name} {1 if n % 3 == c else -1:2d}\n" for n, name in enumerate(ids)]
            (lists / f"{label}_{split}.txt").write_text("".join(lines))
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids))
    return root


def voc_labels(classes: np.ndarray, count: int) -> np.ndarray:
    return np.where(classes[:, None] == np.arange(count), 1, -1)


@pytest.mark.parametrize("method", ["area", "11-point"])
def test_svms_separate_planted_classes_and_are_at_chance_on_noise(method: str):
    train, train_classes, test, test_classes = planted_features(separable=True)
    result = voc07.probe_voc(
        train, voc_labels(train_classes, 5), test, voc_labels(test_classes, 5), method=method, seed=0
    )
    assert min(result.precision) > 99
    train, train_classes, test, test_classes = planted_features(separable=False)
    result = voc07.probe_voc(
        train, voc_labels(train_classes, 5), test, voc_labels(test_classes, 5), method=method, seed=0
    )
    assert 15 < np.mean(result.precision) < 27  # one image in five is positive


def test_difficult_images_are_negatives_in_training_and_left_out_of_the_test():
    train, train_classes, test, test_classes = planted_features(separable=True)
    train_labels, test_labels = voc_labels(train_classes, 5), voc_labels(test_classes, 5)
    train_difficult, as_negative = train_labels.copy(), train_labels.copy()
    train_difficult[:60:5, 0], as_negative[:60:5, 0] = 0, -1
    test_difficult = test_labels.copy()
    test_difficult[1::5, 0] = 0  # negatives of class 0 that are not scored
    kept = test_difficult[:, 0] != 0
    found = voc07.probe_voc(train, train_difficult, test, test_difficult, method="area", seed=0)
    expected = voc07.probe_voc(train, as_negative, test[kept], test_labels[kept], method="area", seed=0)
    assert found.precision[0] == expected.precision[0]
    assert found.cost == expected.cost
    # The test is not vacuous: with these rows as negatives the number differs.
    noisy = test.copy()
    noisy[1::5, 0] += 100
    assert voc07.probe_voc(train, as_negative, noisy, test_labels, method="area", seed=0).precision[0] < 99
    assert voc07.probe_voc(train, as_negative, noisy, test_difficult, method="area", seed=0).precision[0] > 99


def test_scores_of_few_images_are_repeatable():
    # The dual solver of all threads draws from one generator.
    generator = np.random.default_rng(0)
    train, test = generator.normal(size=(2, 45, 512)).astype(np.float32)
    train_labels, test_labels = np.where(generator.random((2, 45, 9)) < 0.3, 1, -1)
    found = [
        voc07.probe_voc(train, train_labels, test, test_labels, method="area", seed=0).scores.tobytes()
        for _ in range(12)
    ]
    assert len(set(found)) == 1


def test_cost_equals_that_of_scikit_learns_cross_validation():
    generator = np.random.default_rng(3)
    train = voc07._unit(generator.normal(size=(120, 40)).astype(np.float32))
    truth = train[:, 0] + 0.1 * generator.normal(size=120) > 0.1
    means = [
        cross_val_score(voc07._svm(cost, 0, dual=False), train, truth, cv=3, scoring="average_precision").mean()
        for cost in voc07.COSTS
    ]
    assert len(set(means)) == len(means)
    assert voc07._best_cost(train, truth, 0, dual=False) == voc07.COSTS[int(np.argmax(means))]


def test_class_without_positives_is_marked_and_few_positives_are_no_error():
    train, train_classes, test, test_classes = planted_features(separable=True)
    train_labels, test_labels = voc_labels(train_classes, 5), voc_labels(test_classes, 5)
    train_labels[:, 1] = -1
    train_labels[np.flatnonzero(train_labels[:, 2] == 1)[1:], 2] = -1
    test_labels[:, 3] = -1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = voc07.probe_voc(train, train_labels, test, test_labels, method="area", seed=0)
    assert [value >= 0 for value in result.precision] == [True, False, True, False, True]


def test_chance_is_the_mean_over_random_scores_without_difficult_and_unscored_classes():
    generator = np.random.default_rng(2)
    labels = np.where(generator.random((60, 4)) < [0.1, 0.3, 0.6, 0.2], 1, -1)
    labels[:10, 1] = 0
    result = voc07.VocResult([50.0, 40.0, 70.0, -1.0], [0.1] * 4, np.zeros((1, 4)))
    found = []
    for number in range(3):
        kept = labels[:, number] != 0
        truth = labels[kept, number] == 1
        found.append(np.mean([metrics.average_precision(truth, generator.random(len(truth))) for _ in range(400)]))
    chance = voc07._chance(labels, result, SvmConfig())
    assert chance == pytest.approx(100 * np.mean(found), abs=1.5)
    assert voc07._chance(labels, result, SvmConfig("11-point")) is None


def test_benchmark_distinguishes_colours_and_does_not_change_the_model(model: MoCo, tmp_path: Path):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    outcome = evaluate("voc07", model, str(write_voc(tmp_path)), SMALL)
    assert outcome.metrics["voc07/map"] > 95
    check_items(outcome, {"voc07/map"})
    assert sorted(outcome.protocol["average_precision_by_class"]) == ["cat", "dog", "train"]
    population = outcome.populations["voc07/map"]
    assert (population.items, population.unit) == (24, "images")
    # 8 of 24 test images have each class.
    generator, truth = np.random.default_rng(0), np.arange(24) < 8
    by_chance = [100 * metrics.average_precision(truth, generator.random(24)) for _ in range(400)]
    assert population.chance == pytest.approx(np.mean(by_chance), abs=2)
    assert outcome.protocol["weights_before"] == outcome.protocol["weights_after"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = evaluate("voc07", model, str(tmp_path), replace(SMALL, batch_size=5))
    assert again.metrics["voc07/map"] == pytest.approx(outcome.metrics["voc07/map"], abs=1e-3)


def test_layout_errors_name_the_file(model: MoCo, tmp_path: Path):
    with pytest.raises(InputError, match=r"_trainval\.txt"):
        evaluate("voc07", model, str(tmp_path), SMALL)
    base = write_voc(tmp_path, per_class=2) / "voc" / "VOCdevkit" / "VOC2007"
    (base / "ImageSets" / "Main" / "dog_test.txt").rename(tmp_path / "dog_test.txt")
    with pytest.raises(InputError, match=r"dog_test\.txt is missing"):
        evaluate("voc07", model, str(tmp_path), SMALL)
    (base / "ImageSets" / "Main" / "dog_test.txt").write_text("000500 yes\n")
    with pytest.raises(InputError, match=r"dog_test\.txt, line 1"):
        evaluate("voc07", model, str(tmp_path), SMALL)
    (tmp_path / "dog_test.txt").rename(base / "ImageSets" / "Main" / "dog_test.txt")
    (base / "JPEGImages" / "000001.jpg").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"000001\.jpg cannot be read"):
        evaluate("voc07", model, str(tmp_path), SMALL)
    (base / "JPEGImages" / "000001.jpg").unlink()
    with pytest.raises(InputError, match=r"000001\.jpg is missing"):
        evaluate("voc07", model, str(tmp_path), SMALL)


def test_hidden_lists_are_no_classes(tmp_path: Path):
    root = write_voc(tmp_path, per_class=2) / "voc" / "VOCdevkit" / "VOC2007"
    for name in ("._cat_trainval.txt", "._cat_test.txt", ".cat_trainval.txt"):
        (root / "ImageSets" / "Main" / name).write_bytes(b"\x00\x05\x16\x07")
    assert voc07.voc_classes(str(root)) == ["cat", "dog", "train"]


def test_lists_may_be_utf8_with_a_byte_order_mark(tmp_path: Path):
    root = write_voc(tmp_path, per_class=2) / "voc" / "VOCdevkit" / "VOC2007"
    for path in (root / "ImageSets" / "Main").glob("*_test.txt"):
        path.write_text("\ufeff" + path.read_text().replace("000500", "\u00e91").replace("000501", "\u00e81"))
    ids, labels_NC = voc07.read_voc_labels(str(root), voc07.voc_classes(str(root)), "test")
    assert ids[-2:] == ["\u00e81", "\u00e91"]
    assert labels_NC.shape == (6, 3)
