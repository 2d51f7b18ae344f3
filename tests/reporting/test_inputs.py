"""Oracles: short logs and configurations by hand."""

from pathlib import Path

import numpy as np
import pytest
from report_world import (
    World,
    make_result,
)

from previts.errors import InputError
from previts.reporting import inputs
from previts.reporting.page import build_report


def test_a_step_logged_twice_counts_once_and_incomplete_lines_are_skipped(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1, "loss": 5}\n{"step": 2, "loss": NaN}\n{"step": 1, "loss": 4, "lr": null}\n{"st')
    curves = inputs._read_log(str(tmp_path))
    assert set(curves) == {"step", "loss"}
    np.testing.assert_array_equal(curves["loss"], [[1], [4]])


def test_a_configuration_is_flattened_to_text_by_dotted_name() -> None:
    found = inputs.flatten({"a": {"b": 1 / 3, "c": [1, 0.5]}, "d": [{"e": 1}] * 2, "f": list(range(9)), "g": {}})
    assert found == {"a.b": "0.333333", "a.c": "1, 0.5", "d": "a list of 2", "f": "a list of 9"}


def test_curves_have_a_last_value_a_late_mean_and_a_median() -> None:
    steps = np.arange(30.0)
    checkpoint = inputs.Checkpoint("", "", "", [], None, "", {}, {"loss": (steps, steps**2)})
    assert checkpoint.last("loss") == 29**2
    assert checkpoint.late("loss") == np.mean([27**2, 28**2, 29**2])
    assert checkpoint.median("loss") == (14**2 + 15**2) / 2
    assert checkpoint.last("other") is checkpoint.late("other") is checkpoint.median("other") is None


def test_text_from_data_is_one_short_line_without_control_characters() -> None:
    assert inputs.short("a\x00b\u202ec\n d", 20) == "a\ufffdb\ufffdc d"
    assert len(inputs.short("y" * 999)) == 300


def test_numbers_from_documents_are_finite_and_no_truth_values() -> None:
    values = [1, 2.5, float("nan"), float("inf"), True, None, "1", 10**400, -(10**400), 1e308]
    assert [inputs.is_finite(value) for value in values] == [True, True, *[False] * 8]


def test_wrong_input_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one row"):
        build_report([], str(tmp_path), [])
    with pytest.raises(InputError, match="give the URIs that `evaluate` returns"):
        build_report([world.rows[0].checkpoint], str(tmp_path), world.rows)
    again = make_result(tmp_path, "voc07", world.rows[0].checkpoint, {})
    with pytest.raises(InputError, match="two results of voc07"):
        build_report([*world.results, again], str(tmp_path), world.rows)
    assert not (tmp_path / "report.html").exists()
