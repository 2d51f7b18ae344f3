"""VOC 2007 classification: linear support vector machines on the features of a frozen encoder.

PreViTS section 4.2, table 1 (VOC07 clf.). The encoder only computes features; its weights do not change.

Shape suffixes: N images, D features, C classes.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from previts.config.evaluation import EvaluationConfig, SvmConfig
from previts.errors import InputError
from previts.evals import features, frozen, labelled_images, metrics
from previts.evals.features import Features, Labels
from previts.evals.outcome import ITEMS, Outcome, Population, item_scores, pack
from previts.models.moco import MoCo
from previts.processes import prefetch
from previts.processes.progress import progress
from previts.storage import file_names, files

if TYPE_CHECKING:
    from sklearn.svm import LinearSVC

# not stated: VirTex's VOC07 classification, with the squared hinge loss. The cost is chosen by folds of trainval.
COSTS = (0.01, 0.1, 1.0, 10.0)
FOLDS = 3
POSITIVE_WEIGHT = 2.0
MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class VocResult:
    """By class: average precision in percent, or -1 if a split has no positive or no negative; the chosen cost.

    `scores` NC are those of the test images, 0 for a class that is not scored.
    """

    precision: list[float]
    cost: list[float]
    scores: NDArray[np.float64]


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
    root = files.join(data_uri, "VOCdevkit", "VOC2007")
    classes = voc_classes(root)
    before = frozen.weights_digest(model)
    split_features, split_labels, test_uris = {}, {}, []
    load = partial(labelled_images.load_centre, resize=config.resize, crop=config.crop)
    for split in ("trainval", "test"):
        ids, labels_NC = read_voc_labels(root, classes, split)
        chosen = labelled_images.evenly(len(ids), config.limit)
        uris = [files.join(root, "JPEGImages", f"{ids[i]}.jpg") for i in chosen]
        split_labels[split], test_uris = labels_NC[chosen], uris
        split_features[split] = features.extract(model, uris, load, batch_size=config.batch_size, what=f"VOC07 {split}")
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
            **frozen.unchanged(model, before),
        },
        files=_items(test_uris, split_labels["test"], result) if config.svm.average_precision == "area" else {},
        populations={
            "voc07/map": Population(
                len(split_labels["test"]), "images", _chance(split_labels["test"], result, config.svm)
            )
        },
    )


def _items(uris: list[str], test_labels_NC: Labels, result: VocResult) -> dict[str, bytes]:
    """Return the file with the scores of the test images for the classes that are scored."""
    scored_C = np.array(result.precision) >= 0
    items = item_scores(uris, result.scores[:, scored_C], test_labels_NC[:, scored_C])
    return {ITEMS: pack({"voc07/map": items})}


def _chance(test_labels_NC: Labels, result: VocResult, settings: SvmConfig) -> float | None:
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
    folder = files.join(root, "ImageSets", "Main")
    names = set(file_names.shown(files.names(folder)))
    classes = sorted(name.removesuffix("_trainval.txt") for name in names if name.endswith("_trainval.txt"))
    # "train" is a class as well as a split, so test.txt and train.txt do not identify classes.
    for name in classes:
        if f"{name}_test.txt" not in names:
            raise InputError(f"{files.join(folder, f'{name}_test.txt')} is missing; add the test lists")
    if not classes:
        raise InputError(f"there is no {files.join(folder, '<class>_trainval.txt')}; expected VOC 2007 as published")
    return classes


def read_voc_labels(root: str, classes: Sequence[str], split: str) -> tuple[list[str], Labels]:
    """Return the image names of a split and their labels, N x C: 1 present, -1 absent, 0 only difficult objects.

    Raises:
        InputError: If a list is missing, a line is invalid, or the lists do not name the same images.
    """
    columns: list[dict[str, int]] = []
    for name in classes:
        uri = files.join(root, "ImageSets", "Main", f"{name}_{split}.txt")
        column = {}
        for number, line in enumerate(files.read_regular(uri).decode("utf-8-sig", "replace").splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            if len(words) != 2 or words[1] not in ("-1", "0", "1"):
                raise InputError(f"{uri}, line {number}: expected '<image> <-1, 0 or 1>', got {line!r}")
            if words[0] in column:
                raise InputError(f"{uri}, line {number}: {words[0]} is listed twice; replace it by the original list")
            column[words[0]] = int(words[1])
        if columns and column.keys() != columns[0].keys():
            raise InputError(f"{uri} does not name the same images as the list of {classes[0]!r}")
        columns.append(column)
    ids = sorted(columns[0])
    if not ids:
        raise InputError(f"the lists {files.join(root, 'ImageSets', 'Main', f'*_{split}.txt')} name no image")
    return ids, np.array([[column[name] for column in columns] for name in ids], dtype=np.int64)


def probe_voc(
    train_ND: Features, train_labels_NC: Labels, test_ND: Features, test_labels_NC: Labels, *, method: str, seed: int
) -> VocResult:
    """Fit and score one linear SVM per class; labels as in `read_voc_labels`, features of any length."""
    train_ND, test_ND = _unit(train_ND), _unit(test_ND)
    dual = len(train_ND) < train_ND.shape[1]

    def probe(number: int) -> tuple[float, float, NDArray[np.float64]]:
        truth_N = train_labels_NC[:, number] == 1
        kept_N = test_labels_NC[:, number] != 0
        test_truth_N = test_labels_NC[kept_N, number] == 1
        if not test_truth_N.any() or truth_N.all() or not truth_N.any():
            return -1.0, COSTS[0], np.zeros(len(test_ND))
        cost = _best_cost(train_ND, truth_N, seed, dual)
        scores_N = np.zeros(len(test_ND))
        scores_N[kept_N] = _svm(cost, seed, dual).fit(train_ND, truth_N).decision_function(test_ND[kept_N])
        return 100 * _average_precision(method, test_truth_N, scores_N[kept_N]), cost, scores_N

    # The solvers release Python's lock. The dual one draws from one generator of the process, so its results would
    # depend on the other threads.
    with ThreadPoolExecutor(1 if dual else prefetch.THREADS) as pool:
        numbers = range(train_labels_NC.shape[1])
        found = list(progress(pool.map(probe, numbers), "VOC07 SVMs", unit="class", total=len(numbers)))
    precision, cost, scores = zip(*found, strict=True)
    return VocResult(list(precision), list(cost), np.stack(scores, axis=1))


def _unit(features_ND: Features) -> Features:
    return np.asarray(features_ND / np.maximum(np.linalg.norm(features_ND, axis=1, keepdims=True), 1e-12))


def _svm(cost: float, seed: int, dual: bool) -> "LinearSVC":
    from sklearn.svm import LinearSVC  # a second of imports, which the reader of the lists does not need

    weights = {True: POSITIVE_WEIGHT, False: 1.0}
    return LinearSVC(C=cost, class_weight=weights, max_iter=MAX_ITERATIONS, dual=dual, random_state=seed)


def _best_cost(train_ND: Features, truth_N: NDArray[np.bool_], seed: int, dual: bool) -> float:
    """Return the cost with the best mean average precision over the folds; the smallest if there are no folds."""
    folds = min(FOLDS, int(truth_N.sum()), int((~truth_N).sum()))
    if folds < 2:
        return COSTS[0]
    from sklearn.model_selection import StratifiedKFold

    parts = list(StratifiedKFold(folds).split(train_ND, truth_N))
    means = []
    for cost in COSTS:
        found = []
        for fit, held in parts:
            svm = _svm(cost, seed, dual).fit(train_ND[fit], truth_N[fit])
            found.append(metrics.average_precision(truth_N[held], svm.decision_function(train_ND[held])))
        means.append(np.mean(found))
    return COSTS[int(np.argmax(means))]


def _average_precision(method: str, truth_N: NDArray[np.bool_], scores_N: NDArray[np.floating[Any]]) -> float:
    if method == "11-point":
        return metrics.eleven_point_average_precision(truth_N, scores_N)
    return metrics.average_precision(truth_N, scores_N)
