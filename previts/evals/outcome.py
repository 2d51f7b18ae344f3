"""The outcome of one benchmark on one model: its numbers and the scores of its test items, before they are stored.

`result.py` stores it together with the row and the checkpoint.

Shape suffixes: N items, C classes, R repetitions.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ITEMS = "items.npz"  # the file of a result with its item scores
_NAME_PARTS = 2  # of a URI: the folder of a class and the file; the place of the dataset does not count


@dataclass(frozen=True)
class Population:
    """The test items that a number is measured on.

    Attributes:
        items: How many.
        unit: What they are, such as images.
        chance: What a random answer is expected to score, in the unit of the number; None where that is not defined.
    """

    items: int
    unit: str
    chance: float | None = None


@dataclass
class Outcome:
    """The result of one benchmark on one model.

    Attributes:
        metrics: Numbers by name, in the units of the paper's tables: percent, or fractions for attention. NaN for a
            number that is not defined on the test items.
        protocol: How they were measured, and tables too long for `metrics`; JSON types only.
        figures: Images and arrays by name, `.png` or `.npz`.
        files: Further files by name.
        populations: By name of a metric: the test items that it is measured on, and its chance level.
    """

    metrics: dict[str, float]
    protocol: dict[str, Any]
    figures: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    populations: dict[str, Population] = field(default_factory=dict)


@dataclass(frozen=True)
class ItemScores:
    """What the test items contribute to a number, so that it can be computed for other samples of them.

    Attributes:
        items: Digest of the names of the items in their order. Two models can be compared on equal items only.
        values: N contributions, whose mean is the number. For a mean average precision in percent: RNC scores.
        labels: None. For a mean average precision, NC: 1 present, -1 absent, 0 left out. Every class has a 1.
    """

    items: str
    values: NDArray[np.floating[Any]]
    labels: NDArray[np.int8] | None = None

    @property
    def count(self) -> int:
        """The number of items."""
        return len(self.values) if self.labels is None else len(self.labels)


def item_scores(uris: Sequence[str], values: ArrayLike, labels: ArrayLike | None = None) -> ItemScores:
    """Return the scores of items, which are named by the ends of their URIs.

    Raises:
        ValueError: If there is not one value for each item.
    """
    names = "\n".join("/".join(uri.split("/")[-_NAME_PARTS:]) for uri in uris)
    found = np.asarray(values, np.float64) if labels is None else np.asarray(values, np.float32)[None]
    scores = ItemScores(
        hashlib.sha256(names.encode()).hexdigest(), found, None if labels is None else np.asarray(labels, np.int8)
    )
    if fault := _fault(scores) or ("" if scores.count == len(uris) else "has another number of values than items"):
        raise ValueError(f"the scores of {len(uris)} items: {fault}")
    return scores


def mean_of_splits(splits: Sequence[Mapping[str, ItemScores]]) -> dict[str, ItemScores]:
    """Return the item scores of numbers that are means over splits, in which each split counts the same."""
    if len(splits) == 1:
        return dict(splits[0])
    found = {}
    for name in splits[0]:
        parts = [split[name] for split in splits]
        total = sum(part.count for part in parts)
        values = [part.values * (total / (len(parts) * part.count)) for part in parts]
        found[name] = ItemScores(_joint(parts), np.concatenate(values))
    return found


def mean_of_runs(runs: Sequence[Mapping[str, ItemScores]]) -> dict[str, ItemScores]:
    """Return the item scores of numbers that are means over repetitions on the same items."""
    found = {}
    for name, first in runs[0].items():
        parts = [run[name] for run in runs if name in run]
        # An item that changes between the repetitions would make their mean meaningless.
        if len(parts) < len(runs) or any(part.items != first.items for part in parts):
            continue
        values = [part.values for part in parts]
        joined = np.mean(values, axis=0) if first.labels is None else np.concatenate(values)
        found[name] = ItemScores(first.items, joined, first.labels)
    return found


def _joint(parts: Sequence[ItemScores]) -> str:
    return hashlib.sha256("\n".join(part.items for part in parts).encode()).hexdigest()


def pack(scores: Mapping[str, ItemScores]) -> bytes:
    """Return item scores by name of the metric as a file for `unpack`."""
    arrays: dict[str, Any] = {
        "names": np.array(list(scores), dtype=np.str_),
        "items": np.array([item.items for item in scores.values()], dtype=np.str_),
    }
    for number, item in enumerate(scores.values()):
        arrays[f"values{number}"] = item.values
        if item.labels is not None:
            arrays[f"labels{number}"] = item.labels
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def unpack(data: bytes) -> dict[str, ItemScores]:
    """Return the item scores of a file of `pack`.

    Raises:
        ValueError: If the bytes are no such file; the message is the end of a sentence about it.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, EOFError, KeyError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"cannot be read ({type(error).__name__})") from None
    names, items = arrays.get("names", np.zeros(0)), arrays.get("items", np.zeros(0))
    if names.ndim != 1 or names.shape != items.shape or names.dtype.kind != "U" or items.dtype.kind != "U":
        raise ValueError("does not have one name and one digest for each number")
    found = {}
    for number, (name, digest) in enumerate(zip(names.tolist(), items.tolist(), strict=True)):
        if f"values{number}" not in arrays:
            raise ValueError(f"has no values of {name}")
        scores = ItemScores(digest, arrays[f"values{number}"], arrays.get(f"labels{number}"))
        if fault := _fault(scores):
            raise ValueError(f"is damaged: {name} {fault}")
        found[name] = scores
    return found


def _fault(scores: ItemScores) -> str:
    """Return what is wrong with the arrays of item scores; "" if nothing is."""
    values, labels = scores.values, scores.labels
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        return "has values that are not finite numbers"
    if labels is None:
        return "" if values.ndim == 1 and values.size else f"has values of the shape {values.shape}"
    if labels.dtype != np.int8 or values.ndim != 3 or values.shape[1:] != labels.shape or not values.size:
        return f"has values of the shape {values.shape} and labels of the shape {labels.shape}"
    if not np.isin(labels, (-1, 0, 1)).all() or not (labels == 1).any(axis=0).all():
        return "has labels other than -1, 0 and 1, or a class without a positive"
    return ""
