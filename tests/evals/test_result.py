"""Oracles: results as they were written, and documents of earlier versions."""

import json
import math
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


OTHER = '{"row": "1/a", "benchmark": "voc07", "checkpoint": "abc", %s}'


def test_a_number_that_is_not_defined_is_null(tmp_path: Path) -> None:
    protocol = {"by_run": [1.0, math.inf], "note": "x"}
    write_result(str(tmp_path), Result("1/a", "coco", "abc", metrics={"a": math.nan, "b": 1.0}, protocol=protocol))
    found = read_result(str(tmp_path))
    assert found.metrics == {"a": None, "b": 1.0}
    assert found.protocol == {"by_run": [1.0, None], "note": "x"}


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
    ("text", "reason"),
    [
        (None, "is missing"),
        ('{"benchmark": "voc07"', "damaged or not JSON"),
        ("[]", "must be an object with the fields row, .*got \\[\\]"),
        ("null", "got None"),
        ('{"benchmark": "voc07", "checkpoint": "abc"}', "got the fields benchmark, checkpoint"),
        (OTHER % '"metrics": 3', "metrics must be an object, got 3"),
        (OTHER % '"metrics": {"a": NaN}', "NaN is not a finite number"),
        (OTHER % '"metrics": {"a": "high"}', "metrics.a must be a number or null, got 'high'"),
        (OTHER % '"status": "fine"', "status must be one of ok, failed, got 'fine'"),
        (OTHER % '"seconds": true', "seconds must be a number, got True"),
        (OTHER % '"figures": ["a", 1]', r"figures\[1\] must be text, got 1"),
        (OTHER % '"populations": {"voc07/map": {"count": 3}}', "populations.voc07/map must be an object"),
    ],
)
def test_the_error_of_a_missing_or_damaged_file_names_it_and_the_remedy(
    tmp_path: Path, text: str | None, reason: str
) -> None:
    if text is not None:
        (tmp_path / "result.json").write_text(text)
    with pytest.raises(InputError, match=rf"result\.json.*{reason}.*run `previts evaluate` again"):
        read_result(str(tmp_path))
