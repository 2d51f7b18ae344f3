"""Linear probes of a frozen encoder: support vector machines on VOC 2007, softmax regression on ImageNet-1k.

PreViTS section 4.2, table 1 (VOC07 clf., IN-1k clf.). The encoder only computes features; a digest of its weights,
taken before and after, is part of the outcome.

Shape suffixes: N B images, D features, C classes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC
from torch import Tensor, nn
from torch.nn import functional as F

from previts import storage
from previts.errors import InputError
from previts.evals import features, metrics, training
from previts.evals.protocol import Outcome, Population
from previts.evaluation import EvaluationConfig, SvmConfig
from previts.moco import MoCo
from previts.progress import progress

Features = NDArray[np.float32]
Labels = NDArray[np.int64]

# not stated: VirTex's VOC07 classification. Squared hinge, positives weighted 2 to 1, cost by 3 folds of trainval.
COSTS = (0.01, 0.1, 1.0, 10.0)
FOLDS = 3
POSITIVE_WEIGHT = 2.0
MAX_ITERATIONS = 2000
# MoCo's linear classification, and VirTex's
RATES = {"moco": 30.0, "virtex": 0.3}
MOMENTUM, INITIAL_DEVIATION = 0.9, 0.01
STEPS, STEP_FACTOR = (0.6, 0.8), 0.1  # epochs 60 and 80 of 100
# On a small dataset a hundred epochs are about a hundred steps; the recipe takes 500,000 on ImageNet. The result would
# depend on the last batches by chance. With cached features, training takes at least this many steps.
LEAST_STEPS = 2000
SCORED_AT_ONCE = 4096


def voc07(model: MoCo, data_uri: str, config: EvaluationConfig) -> Outcome:
    """Train one linear SVM per class on VOC 2007 trainval and score test: `voc07/map` in percent.

    Features come from a centre crop and are scaled to unit length. An image whose objects of a class are all
    "difficult" is a negative in training and is left out of the test of that class (VirTex).

    Args:
        model: In eval mode.
        data_uri: Folder with `VOCdevkit/VOC2007/{ImageSets/Main,JPEGImages}`.
        config: Uses resize, crop, batch_size, svm, limit, seed.

    Raises:
        InputError: If a file of the layout is missing or damaged.
    """
    root = storage.join(data_uri, "VOCdevkit", "VOC2007")
    classes = voc_classes(root)
    before = features.weights_digest(model)
    split_features, split_labels = {}, {}
    load = partial(features.load_centre, resize=config.resize, crop=config.crop)
    for split in ("trainval", "test"):
        ids, labels_NC = read_voc_labels(root, classes, split)
        chosen = features.evenly(len(ids), config.limit)
        uris = [storage.join(root, "JPEGImages", f"{ids[i]}.jpg") for i in chosen]
        split_labels[split] = labels_NC[chosen]
        split_features[split] = features.extract(model, uris, load, config.batch_size, f"VOC07 {split}")
    result = probe_voc(
        split_features["trainval"], split_labels["trainval"], split_features["test"], split_labels["test"],
        method=config.svm.average_precision, seed=config.seed,
    )  # fmt: skip
    scored = {name: round(value, 2) for name, value in zip(classes, result.precision, strict=True) if value >= 0}
    if not scored:
        raise InputError(f"no class of {root} has positives in both trainval and test; nothing can be scored")
    return Outcome(
        metrics={"voc07/map": float(np.mean([value for value in result.precision if value >= 0]))},
        protocol={
            "classifier": "one-vs-all LinearSVC, squared hinge, on unit-length pooled features of one centre crop",
            "average_precision": config.svm.average_precision,
            "difficult": "negative in training, left out of the test",
            "costs": dict(zip(classes, result.cost, strict=True)),
            "average_precision_by_class": scored,
            "classes_without_positives": [name for name in classes if name not in scored],
            "images": {split: len(labels) for split, labels in split_labels.items()},
            **features.unchanged(model, before),
        },
        populations={
            "voc07/map": Population(
                len(split_labels["test"]), "images", _voc_chance(split_labels["test"], result, config.svm)
            )
        },
    )


def _voc_chance(test_labels_NC: Labels, result: "VocResult", settings: SvmConfig) -> float | None:
    """Return the expected mean AP of random scores in percent; None for 11-point AP, which has no closed form."""
    if settings.average_precision != "area":
        return None
    scored_NC = test_labels_NC[:, np.array(result.precision) >= 0].T
    chances = [
        metrics.chance_average_precision(int((labels == 1).sum()), int((labels != 0).sum())) for labels in scored_NC
    ]
    return 100 * float(np.mean(chances))


def voc_classes(root: str) -> list[str]:
    """Return the classes for which VOC 2007 has lists, sorted.

    Raises:
        InputError: If there is no class, or a class has no list of test images.
    """
    folder = storage.join(root, "ImageSets", "Main")
    names = set(storage.names(folder))
    classes = sorted(name.removesuffix("_trainval.txt") for name in names if name.endswith("_trainval.txt"))
    # "train" is a class as well as a split, so test.txt and train.txt do not identify classes.
    for name in classes:
        if f"{name}_test.txt" not in names:
            raise InputError(f"{storage.join(folder, f'{name}_test.txt')} is missing; add the test lists")
    if not classes:
        raise InputError(f"there is no {storage.join(folder, '<class>_trainval.txt')}; expected VOC 2007 as published")
    return classes


def read_voc_labels(root: str, classes: Sequence[str], split: str) -> tuple[list[str], Labels]:
    """Return the image names of a split and their labels, N x C: 1 present, -1 absent, 0 only difficult objects.

    Raises:
        InputError: If a list is missing, a line is invalid, or the lists do not name the same images.
    """
    columns: list[dict[str, int]] = []
    for name in classes:
        uri = storage.join(root, "ImageSets", "Main", f"{name}_{split}.txt")
        column = {}
        for number, line in enumerate(storage.read_bytes(uri).decode("ascii", "replace").splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            if len(words) != 2 or words[1] not in ("-1", "0", "1"):
                raise InputError(f"{uri}, line {number}: expected '<image> <-1, 0 or 1>', got {line!r}")
            column[words[0]] = int(words[1])
        if columns and column.keys() != columns[0].keys():
            raise InputError(f"{uri} does not name the same images as the list of {classes[0]!r}")
        columns.append(column)
    ids = sorted(columns[0])
    if not ids:
        raise InputError(f"the lists {storage.join(root, 'ImageSets', 'Main', f'*_{split}.txt')} name no image")
    return ids, np.array([[column[name] for column in columns] for name in ids], dtype=np.int64)


@dataclass(frozen=True)
class VocResult:
    """By class: average precision in percent, or -1 if a split has no positive or no negative; the chosen cost."""

    precision: list[float]
    cost: list[float]


def probe_voc(
    train_ND: Features, train_labels_NC: Labels, test_ND: Features, test_labels_NC: Labels, *, method: str, seed: int
) -> VocResult:
    """Fit and score one linear SVM per class; labels as in `read_voc_labels`, features of any length."""
    train_ND, test_ND = _unit(train_ND), _unit(test_ND)

    def probe(number: int) -> tuple[float, float]:
        truth_N = train_labels_NC[:, number] == 1
        kept_N = test_labels_NC[:, number] != 0
        test_truth_N = test_labels_NC[kept_N, number] == 1
        if not test_truth_N.any() or truth_N.all() or not truth_N.any():
            return -1.0, COSTS[0]
        cost = _best_cost(train_ND, truth_N, seed)
        scores_N = _svm(cost, seed).fit(train_ND, truth_N).decision_function(test_ND[kept_N])
        return 100 * _average_precision(method, test_truth_N, scores_N), cost

    with ThreadPoolExecutor(features.THREADS) as pool:  # the solver releases Python's lock
        numbers = range(train_labels_NC.shape[1])
        found = list(progress(pool.map(probe, numbers), "VOC07 SVMs", unit="class", total=len(numbers)))
    return VocResult([precision for precision, _ in found], [cost for _, cost in found])


def _unit(features_ND: Features) -> Features:
    return np.asarray(features_ND / np.maximum(np.linalg.norm(features_ND, axis=1, keepdims=True), 1e-12))


def _svm(cost: float, seed: int) -> LinearSVC:
    weights = {True: POSITIVE_WEIGHT, False: 1.0}
    return LinearSVC(C=cost, class_weight=weights, max_iter=MAX_ITERATIONS, dual="auto", random_state=seed)


def _best_cost(train_ND: Features, truth_N: NDArray[np.bool_], seed: int) -> float:
    """Return the cost with the best mean average precision over the folds; the smallest if there are no folds."""
    folds = min(FOLDS, int(truth_N.sum()), int((~truth_N).sum()))
    if folds < 2:
        return COSTS[0]
    parts = list(StratifiedKFold(folds).split(train_ND, truth_N))
    means = []
    for cost in COSTS:
        found = []
        for fit, held in parts:
            svm = _svm(cost, seed).fit(train_ND[fit], truth_N[fit])
            found.append(metrics.average_precision(truth_N[held], svm.decision_function(train_ND[held])))
        means.append(np.mean(found))
    return COSTS[int(np.argmax(means))]


def _average_precision(method: str, truth_N: NDArray[np.bool_], scores_N: NDArray[np.floating[Any]]) -> float:
    if method == "11-point":
        return metrics.eleven_point_average_precision(truth_N, scores_N)
    return metrics.average_precision(truth_N, scores_N)


def imagenet(model: MoCo, data_uri: str, config: EvaluationConfig, folder: str) -> Outcome:
    """Train softmax regression on the features of ImageNet train and score val: `in1k/top1`, `in1k/top5` in percent.

    Args:
        model: In eval mode.
        data_uri: Folder with `{train,val}/<class>/<image>`.
        config: Uses resize, crop, batch_size, linear, limit, seed.
        folder: URI for the states to resume from.

    Raises:
        InputError: If a split is missing, or val has a class that train does not have.
    """
    before = features.weights_digest(model)
    train = features.limited(features.read_image_folder(storage.join(data_uri, "train")), config.limit)
    val = features.limited(features.read_image_folder(storage.join(data_uri, "val"), train.classes), config.limit)
    load = partial(features.load_centre, resize=config.resize, crop=config.crop)
    head = train_head(model, train, load, config, folder, "ImageNet")
    val_ND = features.extract(model, val.uris, load, config.batch_size, "ImageNet val")
    scores_NC, labels_N = head.scores(val_ND), np.array(val.labels)
    return Outcome(
        metrics={f"in1k/top{k}": metrics.top_k_accuracy(scores_NC, labels_N, k) for k in (1, 5)},
        protocol={
            **head_protocol(config, head, "one centre crop per image"),
            "classes": len(train.classes),
            "images": {"train": len(train.uris), "val": len(val.uris)},
            **features.unchanged(model, before),
        },
        populations={
            f"in1k/top{k}": Population(len(val.uris), "images", metrics.chance_accuracy(len(train.classes), k))
            for k in (1, 5)
        },
    )


def head_protocol(config: EvaluationConfig, head: "Head", view: str) -> dict[str, Any]:
    """Return how a classifier was trained, for an outcome's protocol; `view` describes the output of its `load`."""
    cached = config.linear.views == "cached"
    return {
        "classifier": "softmax regression on pooled features, SGD",
        # Paper: follows MoCo, which draws new crops in each epoch; "cached" differs, to save compute.
        "views": f"{view}, encoded once" if cached else "random crops and flips, encoded every epoch",
        "recipe": config.linear.recipe,
        "learning_rate": RATES[config.linear.recipe],
        "epochs": head.epochs,
        "batch_size": config.batch_size,
    }


@dataclass(frozen=True)
class Head:
    """A linear classifier: weight CD, bias C, and the number of training epochs."""

    weight: Tensor
    bias: Tensor
    epochs: int

    def scores(self, features_ND: Features) -> Features:
        """Return the class scores of features, N x C."""
        parts = [
            F.linear(torch.from_numpy(part).to(self.weight.device), self.weight, self.bias).cpu().numpy()
            for part in np.array_split(features_ND, max(1, len(features_ND) // SCORED_AT_ONCE))
        ]
        return np.concatenate(parts)


def train_head(
    model: MoCo,
    train: features.LabelledImages,
    load: Callable[[str], features.Pixels],
    config: EvaluationConfig,
    folder: str,
    what: str,
) -> Head:
    """Return a linear classifier trained on images, on the device of the model; the encoder does not change.

    Args:
        model: In eval mode.
        train: The training images.
        load: Converts an image's URI to the input of the encoder; "fresh" views use random crops instead.
        config: Uses linear, batch_size, crop, seed.
        folder: URI for the states to resume from.
        what: Text of the progress line.
    """
    labels_N = np.array(train.labels)
    epoch_steps = training.steps_an_epoch(len(labels_N), config.batch_size)
    if config.linear.views == "fresh":
        coming = partial(fresh_views, model, train.uris, labels_N, config)
        channels = model.encoder.channels
    else:
        train_ND = features.extract(model, train.uris, load, config.batch_size, f"{what} train")
        epochs = max(config.linear.epochs, math.ceil(LEAST_STEPS / epoch_steps))
        config = replace(config, linear=replace(config.linear, epochs=epochs))
        coming = partial(cached_views, train_ND, labels_N, config)
        channels = train_ND.shape[1]
    sizes = (channels, len(train.classes))
    return fit_softmax(coming, sizes, epoch_steps, config, features.device_of(model), folder, what)


Batch = tuple[Tensor, Tensor]  # features_BD, labels_B


def cached_views(features_ND: Features, labels_N: Labels, config: EvaluationConfig, first: int) -> Iterator[Batch]:
    """Yield this process's share of the batches from step `first` on, of cached features."""
    for _, chosen in training.shares(len(labels_N), config.batch_size, config.seed, first):
        yield torch.from_numpy(features_ND[chosen]), torch.from_numpy(labels_N[chosen])


def fresh_views(
    model: MoCo, uris: Sequence[str], labels_N: Labels, config: EvaluationConfig, first: int
) -> Iterator[Batch]:
    """Yield this process's share of the batches from step `first` on, of random crops encoded on the fly (MoCo)."""

    def load(item: tuple[int, int]) -> tuple[features.Pixels, int]:
        epoch, number = item
        generator = np.random.default_rng((config.seed, epoch, number))
        return features.random_crop(features.open_image(uris[number]), config.crop, generator), int(labels_N[number])

    device = features.device_of(model)
    shares = training.shares(len(labels_N), config.batch_size, config.seed, first)
    groups = ([(epoch, number) for number in chosen] for epoch, chosen in shares)
    for loaded in features.loaded(groups, load):
        images, labels = zip(*loaded, strict=True)
        yield (
            features.pooled_features(model, features.normalised(np.stack(images), device)),
            torch.tensor(labels),
        )


def fit_softmax(
    coming: Callable[[int], Iterator[Batch]],
    sizes: tuple[int, int],
    epoch_steps: int,
    config: EvaluationConfig,
    device: torch.device,
    folder: str,
    what: str,
) -> Head:
    """Return a linear classifier, trained by SGD with momentum and without weight decay.

    Args:
        coming: Called with the first step; yields this process's share of the batches from that step on.
        sizes: Numbers of features and of classes.
        epoch_steps: Batches in an epoch.
        config: Uses linear, seed.
        device: The device to train on.
        folder: URI for the states to resume from.
        what: Text of the progress line.

    Raises:
        FloatingPointError: If the loss is not finite.
    """
    head = nn.Linear(*sizes)
    with torch.no_grad():
        head.weight.normal_(0, INITIAL_DEVIATION, generator=torch.Generator().manual_seed(config.seed))
        head.bias.zero_()
    head = head.to(device)
    training.run_steps(
        head,
        torch.optim.SGD(head.parameters(), lr=RATES[config.linear.recipe], momentum=MOMENTUM),
        steps=config.linear.epochs * epoch_steps,
        batches=coming,
        loss_of=lambda learner, batch: F.cross_entropy(learner(batch[0].to(device)), batch[1].to(device)),
        rate_at=lambda step: learning_rate(config, step, epoch_steps),
        folder=folder,
        what=f"{what} head",
    )
    return Head(head.weight.detach(), head.bias.detach(), config.linear.epochs)


def learning_rate(config: EvaluationConfig, step: int, epoch_steps: int) -> float:
    """Return the rate of a step: MoCo's drops after whole epochs, or VirTex's cosine over all steps."""
    rate, epochs = RATES[config.linear.recipe], config.linear.epochs
    if config.linear.recipe == "virtex":
        return rate * 0.5 * (1 + math.cos(math.pi * step / (epochs * epoch_steps)))
    passed = sum(step // epoch_steps >= round(drop * epochs) for drop in STEPS)
    return float(rate * STEP_FACTOR**passed)
