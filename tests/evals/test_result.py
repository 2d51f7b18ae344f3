"""Oracles: results as they were written, and documents of earlier versions."""

import json
from pathlib import Path

import pytest

from previts.errors import InputError
from previts.evals.outcome import Population
from previts.evals.result import Result, read_result, write_result

FULL = Result(
    row="1/vgg/previts",
    benchmark="in1k",
    checkpoint="abc",
    metrics={"in1k/top1": 12.5},
    populations={"in1k/top1": Population(108, "images", 11.1), "in1k/other": Population(20, "sequences")},
    protocol={"epochs": 2, "by_run": {"in1k/top1": [12.0, 13.0]}},
    seconds=3.5,
    figures=("a.png", "b.npz"),
)


@pytest.mark.parametrize("result", [FULL, Result("1/a", "voc07", "abc", status="failed", error="no memory")])
def test_a_result_is_read_back_as_it_was_written(tmp_path: Path, result: Result) -> None:
    write_result(str(tmp_path), result)
    found = read_result(str(tmp_path))
    assert found.uri == str(tmp_path)
    assert found == Result(**{**result.__dict__, "uri": str(tmp_path)})


def test_the_file_has_the_fields_that_earlier_versions_wrote(tmp_path: Path) -> None:
    write_result(str(tmp_path), FULL)
    document = json.loads((tmp_path / "result.json").read_text())
    assert document == {
        "row": "1/vgg/previts", "benchmark": "in1k", "checkpoint": "abc", "status": "ok", "error": "",
        "metrics": {"in1k/top1": 12.5},
        "populations": {
            "in1k/top1": {"items": 108, "unit": "images", "chance": 11.1},
            "in1k/other": {"items": 20, "unit": "sequences", "chance": None},
        },
        "protocol": {"epochs": 2, "by_run": {"in1k/top1": [12.0, 13.0]}}, "seconds": 3.5, "figures": ["a.png", "b.npz"],
    }  # fmt: skip


def test_files_of_earlier_versions_are_readable(tmp_path: Path) -> None:
    failed = {"row": "1/a", "benchmark": "voc07", "checkpoint": "abc", "status": "failed", "error": "no memory"}
    (tmp_path / "result.json").write_text(json.dumps(failed))
    assert read_result(str(tmp_path)) == Result(
        "1/a", "voc07", "abc", status="failed", error="no memory", uri=str(tmp_path)
    )
    done = {
        "row": "1/a", "benchmark": "voc07", "checkpoint": "abc", "status": "ok", "error": "",
        "metrics": {"voc07/map": 31.25}, "protocol": {"limit": 0}, "seconds": 12.3, "figures": ["x.png"],
    }  # fmt: skip
    (tmp_path / "result.json").write_text(json.dumps(done))
    found = read_result(str(tmp_path))
    assert (found.metrics, found.populations, found.figures) == ({"voc07/map": 31.25}, {}, ("x.png",))


@pytest.mark.parametrize(
    "text",
    [
        None,
        '{"benchmark": "voc07"',
        "[]",
        "null",
        '{"benchmark": "voc07", "checkpoint": "abc"}',
        '{"benchmark": "voc07", "checkpoint": "abc", "status": "ok", "metrics": 3}',
        '{"benchmark": "voc07", "checkpoint": "abc", "status": "ok", "populations": {"voc07/map": {"count": 3}}}',
    ],
)
def test_the_error_of_a_missing_or_damaged_file_names_it_and_the_remedy(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "result.json").write_text(text)
    with pytest.raises(InputError, match=r"result\.json cannot be read .*run `previts evaluate` again"):
        read_result(str(tmp_path))
