import io
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from previts.config.evaluation import EvaluationConfig, LinearConfig, SvmConfig
from previts.config.experiment import Experiment, ModelConfig, ObjectiveConfig, OptimConfig
from previts.errors import InputError
from previts.evals import features, frozen, labelled_images, linear_classifier, metrics, training, voc07
from previts.evals.outcome import Population
from previts.evals.run import evaluate
from previts.models.moco import MoCo

SMALL = EvaluationConfig(resize=64, crop=64, batch_size=8, linear=LinearConfig(epochs=20, views="cached"))
COLOURS = {"cat": (200, 30, 30), "dog": (30, 200, 30), "train": (30, 30, 200)}


@pytest.fixture(scope="module")
def model() -> MoCo:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    experiment = Experiment(
        model=ModelConfig(encoder="resnet18"),
        objective=ObjectiveConfig(queue_size=64, batch_norm_groups=1),
        optim=OptimConfig(batch_size=8),
    )
    return MoCo(experiment).eval()


def write_image(path: Path, colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (80, 70)) -> None:
    noise = np.random.default_rng(seed).integers(-30, 31, (size[1], size[0], 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


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


def write_imagenet(root: Path, per_class: int = 6) -> Path:
    for split in ("train", "val"):
        for c, (name, colour) in enumerate(COLOURS.items()):
            for n in range(per_class):
                write_image(
                    root / "imagenet" / split / name / f"{n}.JPEG", colour, 1000 * c + n + 500 * (split == "val")
                )
    return root


def voc_labels(classes: np.ndarray, count: int) -> np.ndarray:
    return np.where(classes[:, None] == np.arange(count), 1, -1)


def planted(answer: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features of 5 classes: the answer in noise, or noise alone."""
    generator = np.random.default_rng(seed)
    classes = [np.arange(n) % 5 for n in (300, 400)]
    found = [generator.normal(size=(len(c), 32)).astype(np.float32) for c in classes]
    if answer:
        for rows, c in zip(found, classes, strict=True):
            rows[np.arange(len(c)), c] += 12
    return found[0], classes[0], found[1], classes[1]


@pytest.mark.parametrize("method", ["area", "11-point"])
def test_svm_finds_a_planted_answer_and_nothing_in_noise(method: str):
    train, train_classes, test, test_classes = planted(answer=True)
    result = voc07.probe_voc(
        train, voc_labels(train_classes, 5), test, voc_labels(test_classes, 5), method=method, seed=0
    )
    assert min(result.precision) > 99
    train, train_classes, test, test_classes = planted(answer=False)
    result = voc07.probe_voc(
        train, voc_labels(train_classes, 5), test, voc_labels(test_classes, 5), method=method, seed=0
    )
    assert 15 < np.mean(result.precision) < 27  # one image in five is positive


def test_difficult_is_negative_in_training_and_left_out_of_the_test():
    train, train_classes, test, test_classes = planted(answer=True)
    train_labels, test_labels = voc_labels(train_classes, 5), voc_labels(test_classes, 5)
    train_difficult, as_negative = train_labels.copy(), train_labels.copy()
    train_difficult[:60:5, 0], as_negative[:60:5, 0] = 0, -1
    test_difficult = test_labels.copy()
    test_difficult[1::5, 0] = 0  # negatives of class 0 that the test must not see
    kept = test_difficult[:, 0] != 0
    found = voc07.probe_voc(train, train_difficult, test, test_difficult, method="area", seed=0)
    expected = voc07.probe_voc(train, as_negative, test[kept], test_labels[kept], method="area", seed=0)
    assert found.precision[0] == expected.precision[0]
    assert found.cost == expected.cost
    # Not vacuous: with these rows as negatives the figure differs.
    noisy = test.copy()
    noisy[1::5, 0] += 100
    assert voc07.probe_voc(train, as_negative, noisy, test_labels, method="area", seed=0).precision[0] < 99
    assert voc07.probe_voc(train, as_negative, noisy, test_difficult, method="area", seed=0).precision[0] > 99


def test_cost_is_the_one_of_scikit_learns_cross_validation():
    generator = np.random.default_rng(3)
    train = voc07._unit(generator.normal(size=(120, 40)).astype(np.float32))
    truth = train[:, 0] + 0.1 * generator.normal(size=120) > 0.1
    means = [
        cross_val_score(voc07._svm(cost, 0), train, truth, cv=3, scoring="average_precision").mean()
        for cost in voc07.COSTS
    ]
    assert len(set(means)) == len(means)
    assert voc07._best_cost(train, truth, 0) == voc07.COSTS[int(np.argmax(means))]


def test_class_without_positives_is_marked_and_few_positives_are_no_error():
    train, train_classes, test, test_classes = planted(answer=True)
    train_labels, test_labels = voc_labels(train_classes, 5), voc_labels(test_classes, 5)
    train_labels[:, 1] = -1
    train_labels[np.flatnonzero(train_labels[:, 2] == 1)[1:], 2] = -1
    test_labels[:, 3] = -1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = voc07.probe_voc(train, train_labels, test, test_labels, method="area", seed=0)
    assert [value >= 0 for value in result.precision] == [True, False, True, False, True]


def test_voc_end_to_end_distinguishes_colours_and_does_not_change_the_model(model: MoCo, tmp_path: Path):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    outcome = evaluate("voc07", model, str(write_voc(tmp_path)), SMALL)
    assert outcome.metrics["voc07/map"] > 95
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


def test_voc_layout_errors_name_the_file(model: MoCo, tmp_path: Path):
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


def fit(train: np.ndarray, labels: np.ndarray, num_classes: int, config: EvaluationConfig, folder: str = ""):
    coming = partial(linear_classifier.cached_views, train, labels, config)
    epoch_steps = training.steps_an_epoch(len(labels), config.batch_size)
    sizes = (train.shape[1], num_classes)
    return linear_classifier.fit_softmax(
        coming, sizes, epoch_steps=epoch_steps, config=config, device=torch.device("cpu"), folder=folder, what="test"
    )


def test_softmax_finds_a_planted_answer_and_nothing_in_noise():
    for answer, low, high in ((True, 99.0, 100.0), (False, 10.0, 30.0)):
        train, train_classes, test, test_classes = planted(answer)
        head = fit(train, train_classes, 5, SMALL)
        accuracy = 100 * (head.scores(test).argmax(1) == test_classes).mean()
        assert low <= accuracy <= high


def test_softmax_comes_to_the_loss_of_scikit_learns_optimum():
    generator = np.random.default_rng(5)
    train = generator.normal(size=(400, 6)).astype(np.float32)
    labels = (train[:, :3] + generator.normal(size=(400, 3))).argmax(1)  # not separable
    head = fit(train, labels, 3, EvaluationConfig(batch_size=100, linear=LinearConfig("virtex", epochs=300)))
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(head.scores(train)), torch.from_numpy(labels))
    oracle = LogisticRegression(C=1e6, max_iter=1000).fit(train, labels).predict_log_proba(train)
    assert float(loss) == pytest.approx(-oracle[np.arange(400), labels].mean(), rel=0.01)


def test_learning_rate_follows_the_recipes():
    steps = [linear_classifier.learning_rate(EvaluationConfig(), step, 10) for step in (0, 599, 600, 799, 800, 999)]
    assert steps == pytest.approx([30, 30, 3, 3, 0.3, 0.3])
    virtex = EvaluationConfig(linear=LinearConfig("virtex"))
    cosine = [linear_classifier.learning_rate(virtex, step, 10) for step in (0, 500, 750)]
    assert cosine == pytest.approx([0.3, 0.15, 0.15 * (1 - 2**-0.5)])


@pytest.mark.parametrize("views", ["cached", "fresh"])
def test_imagenet_end_to_end(model: MoCo, tmp_path: Path, views: str):
    write_imagenet(tmp_path)
    config = replace(SMALL, linear=replace(SMALL.linear, views=views))
    before = frozen.weights_digest(model)
    outcome = evaluate("in1k", model, str(tmp_path), config)
    assert outcome.metrics["in1k/top1"] > 90
    assert outcome.metrics["in1k/top5"] == 100  # of three classes
    assert outcome.populations == {
        "in1k/top1": Population(18, "images", pytest.approx(100 / 3)), "in1k/top5": Population(18, "images", 100.0),
    }  # fmt: skip
    assert frozen.weights_digest(model) == before
    few, again = (evaluate("in1k", model, str(tmp_path), replace(config, limit=3)) for _ in range(2))
    assert few.metrics == again.metrics
    assert few.protocol["images"] == {"train": 3, "val": 3}
    assert few.protocol["classes"] == 3


def test_imagenet_layout_errors(model: MoCo, tmp_path: Path):
    with pytest.raises(InputError, match="imagenet/train/<class>"):
        evaluate("in1k", model, str(tmp_path), SMALL)
    write_imagenet(tmp_path, per_class=1)
    write_image(tmp_path / "imagenet" / "val" / "unicorn" / "0.png", (9, 9, 9), 0)
    with pytest.raises(InputError, match="unicorn is not a class"):
        evaluate("in1k", model, str(tmp_path), SMALL)


def test_chance_of_voc_is_the_mean_over_random_scores_without_difficult_and_unscored_classes():
    generator = np.random.default_rng(2)
    labels = np.where(generator.random((60, 4)) < [0.1, 0.3, 0.6, 0.2], 1, -1)
    labels[:10, 1] = 0
    result = voc07.VocResult([50.0, 40.0, 70.0, -1.0], [0.1] * 4)
    found = []
    for number in range(3):
        kept = labels[:, number] != 0
        truth = labels[kept, number] == 1
        found.append(np.mean([metrics.average_precision(truth, generator.random(len(truth))) for _ in range(400)]))
    chance = voc07._chance(labels, result, SvmConfig())
    assert chance == pytest.approx(100 * np.mean(found), abs=1.5)
    assert voc07._chance(labels, result, SvmConfig("11-point")) is None


def test_repeated_runs_keep_the_test_items_when_they_resume(model: MoCo, tmp_path: Path):
    write_imagenet(tmp_path, per_class=2)
    config = replace(SMALL, runs=2)
    first, resumed = (evaluate("in1k", model, str(tmp_path), config, folder=str(tmp_path / "work")) for _ in range(2))
    assert first.populations == resumed.populations == {
        "in1k/top1": Population(6, "images", pytest.approx(100 / 3)), "in1k/top5": Population(6, "images", 100.0),
    }  # fmt: skip


def test_unknown_benchmark_names_the_closest(model: MoCo, tmp_path: Path):
    with pytest.raises(InputError, match="did you mean 'voc07'"):
        evaluate("voc7", model, str(tmp_path), SMALL)


@pytest.mark.parametrize("size", [(80, 70), (70, 81), (333, 250), (64, 64), (65, 640)])
def test_centre_crop_is_torchvisions(size: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    oracle = Compose([Resize(72, InterpolationMode.BILINEAR), CenterCrop(64)])(image)
    assert (labelled_images.centre_crop(image, 72, 64) == np.asarray(oracle).transpose(2, 0, 1)).all()


def test_random_crop_depends_on_its_generator_alone():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    crops = [labelled_images.random_crop(image, 32, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert (crops[0] == crops[1]).all()
    assert (crops[0] != crops[2]).any()
    assert labelled_images.random_crop(Image.new("L", (400, 4)), 32, np.random.default_rng(0)).shape == (3, 32, 32)


def test_batches_keep_order_and_pass_errors_on():
    loaded = features.image_batches(list(range(11)), lambda n: np.full((1, 2, 2), n, np.uint8), 4)
    assert [batch[:, 0, 0, 0].tolist() for batch in loaded] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]

    def broken(number: int) -> np.ndarray:
        if number == 5:
            raise InputError("image 5")
        return np.zeros((1, 2, 2), np.uint8)

    with pytest.raises(InputError, match="image 5"):
        list(features.image_batches(list(range(11)), broken, 4))


def test_grey_palette_and_transparent_images_are_read(tmp_path: Path):
    for mode in ("L", "P", "RGBA", "CMYK", "1"):
        buffer = io.BytesIO()
        Image.new(mode, (70, 90)).save(buffer, "TIFF" if mode == "CMYK" else "PNG")
        (tmp_path / mode).write_bytes(buffer.getvalue())
        assert labelled_images.load_centre(str(tmp_path / mode), resize=64, crop=64).shape == (3, 64, 64)


def test_limit_takes_evenly_from_first_to_last():
    assert labelled_images.evenly(5, 0) == [0, 1, 2, 3, 4]
    assert labelled_images.evenly(9, 3) == [0, 4, 8]
    assert labelled_images.evenly(3, 9) == [0, 1, 2]
    assert labelled_images.evenly(9, 1) == [0]
    for count in range(1, 40):
        for limit in range(1, count + 1):
            assert len(set(labelled_images.evenly(count, limit))) == limit
