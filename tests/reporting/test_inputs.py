from pathlib import Path

import numpy as np

from previts.reporting import inputs


def test_a_step_logged_twice_counts_once_and_torn_lines_are_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1, "loss": 5}\n{"step": 2, "loss": NaN}\n{"step": 1, "loss": 4, "lr": null}\n{"st')
    curves = inputs._read_log(str(log))
    assert set(curves) == {"step", "loss"}
    np.testing.assert_array_equal(curves["loss"], [[1], [4]])
