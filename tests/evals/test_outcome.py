"""Oracles: the arrays themselves, means by hand, literally damaged files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from previts.errors import InputError
from previts.evals import outcome
from previts.evals.outcome import ITEMS, ItemScores
from previts.evals.result import Result, read_items, write_result
from previts.storage import files, folders

NAMES = ["gs://bucket/val/cat/1.jpg", "gs://bucket/val/dog/1.jpg", "gs://bucket/val/dog/2.jpg"]
LABELS = np.array([[1, -1], [0, 1], [-1, -1]])


def scores() -> dict[str, ItemScores]:
    random = np.random.default_rng(0)
    return {
        "in1k/top1": outcome.item_scores(NAMES, [100.0, 0.0, 100.0]),
        "voc07/map": outcome.item_scores(NAMES, random.random((3, 2)), LABELS),
    }


def test_scores_are_read_back_as_they_were_packed():
    found = outcome.unpack(outcome.pack(scores()))
    assert list(found) == ["in1k/top1", "voc07/map"]
    np.testing.assert_array_equal(found["in1k/top1"].values, [100, 0, 100])
    np.testing.assert_array_equal(found["voc07/map"].values, scores()["voc07/map"].values)
    np.testing.assert_array_equal(found["voc07/map"].labels, LABELS)  # type: ignore[arg-type]
    assert found["in1k/top1"].items == found["voc07/map"].items
    assert [item.count for item in found.values()] == [3, 3]


def test_items_are_equal_wherever_the_dataset_is_and_differ_by_name_and_order():
    digest = outcome.item_scores(NAMES, [0.0] * 3).items
    assert outcome.item_scores([name.replace("gs://bucket", "/data") for name in NAMES], [1.0] * 3).items == digest
    assert outcome.item_scores(NAMES[::-1], [0.0] * 3).items != digest
    assert outcome.item_scores([*NAMES[:2], "gs://bucket/val/dog/3.jpg"], [0.0] * 3).items != digest


def test_fifty_thousand_answers_take_less_than_a_byte_each():
    hits = np.random.default_rng(0).random(50_000) < 0.7
    names = [f"n{number % 1000}/{number}.jpg" for number in range(len(hits))]
    assert len(outcome.pack({"in1k/top1": outcome.item_scores(names, 100.0 * hits)})) < 50_000


def test_a_mean_over_splits_counts_each_split_the_same():
    splits = [{"a/b": outcome.item_scores(NAMES[:n], values)} for n, values in ((1, [100.0]), (3, [0.0, 100.0, 0.0]))]
    found = outcome.mean_of_splits(splits)["a/b"]
    assert found.values.mean() == pytest.approx((100 + 100 / 3) / 2)
    assert found.count == 4
    assert outcome.mean_of_splits(splits[::-1])["a/b"].items != found.items


def test_a_mean_over_repetitions_needs_the_same_items():
    first, second = scores(), scores()
    second["in1k/top1"] = outcome.item_scores(NAMES, [0.0, 0.0, 100.0])
    found = outcome.mean_of_runs([first, second])
    np.testing.assert_array_equal(found["in1k/top1"].values, [50, 0, 100])
    assert found["voc07/map"].values.shape == (2, 3, 2)
    second["in1k/top1"] = outcome.item_scores(NAMES[::-1], [0.0, 0.0, 100.0])
    assert list(outcome.mean_of_runs([first, second])) == ["voc07/map"]


def changed(**arrays: Any) -> bytes:
    """A file of scores with other arrays."""
    with np.load(io.BytesIO(outcome.pack(scores()))) as file:
        content = {name: file[name] for name in file.files}
    buffer = io.BytesIO()
    np.savez(buffer, **{name: value for name, value in (content | arrays).items() if value is not None})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cannot be read"),
        (outcome.pack(scores())[:200], "cannot be read"),
        (changed(values0=None), "has no values of in1k/top1"),
        (changed(values0=np.array([1.0, np.nan, 0.0])), "in1k/top1 has values that are not finite"),
        (changed(values0=np.array(["a", "b", "c"])), "in1k/top1 has values that are not finite"),
        (changed(values0=np.zeros((3, 1))), r"in1k/top1 has values of the shape \(3, 1\)"),
        (changed(values0=np.zeros(0)), r"in1k/top1 has values of the shape \(0,\)"),
        (changed(labels1=LABELS[:2].astype(np.int8)), r"labels of the shape \(2, 2\)"),
        (changed(labels1=np.full((3, 2), 2, np.int8)), "has labels other than"),
        (changed(labels1=np.zeros((3, 2), np.int8)), "without a positive"),
        (changed(items=np.array(["x"])), "one name and one digest"),
        (changed(names=np.array([1, 2])), "one name and one digest"),
        (changed(names=np.array([{}, {}], dtype=object)), "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(data: bytes, words: str):
    with pytest.raises(ValueError, match=words):
        outcome.unpack(data)


def stored(uri: str, data: bytes | None) -> Result:
    result = Result("row", "in1k", "abc", metrics={"in1k/top1": 66.7, "voc07/map": 50.0}, uri=uri)
    write_result(uri, result)
    if data is not None:
        files.write_bytes(files.join(uri, ITEMS), data)
    folders.commit(uri, {}, files=["result.json", *([ITEMS] if data is not None else [])])
    return result


def test_a_result_has_scores_or_none_and_a_damaged_file_is_named_with_the_remedy(tmp_path: Path):
    assert set(read_items(stored(str(tmp_path / "new"), outcome.pack(scores())))) == {"in1k/top1", "voc07/map"}
    assert read_items(stored(str(tmp_path / "old"), None)) == {}
    with pytest.raises(InputError, match=r"items\.npz cannot be read .*previts evaluate"):
        read_items(stored(str(tmp_path / "damaged"), b"PK"))
    foreign = outcome.pack({"in1k/top7": outcome.item_scores(NAMES, [1.0] * 3)})
    with pytest.raises(InputError, match=r"scores of in1k/top7, which result\.json does not have"):
        read_items(stored(str(tmp_path / "foreign"), foreign))
    lost = stored(str(tmp_path / "lost"), outcome.pack(scores()))
    (tmp_path / "lost" / ITEMS).unlink()
    with pytest.raises(InputError, match=r"items\.npz is missing"):
        read_items(lost)
