import json
import shutil
from pathlib import Path

import fsspec
import pytest
from mlflow_runs import client_of, free_port, open_arm, runs_of

from previts.runlog import run_log

pytestmark = pytest.mark.usefixtures("mlflow_environment")


def test_spool_of_a_remote_root_is_put_beside_the_results_and_sent_from_there(
    tmp_path: Path, mlflow_tables: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copy(mlflow_tables, tmp_path / "mlflow.db")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    root = "memory://bucket/root"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    run = run_log.open_run(root, group="corpus", name="n", fingerprint="f1", params={})
    run.metrics({"loss": 4.0}, step=7)
    run.finish("KILLED")
    (copy,) = fsspec.filesystem("memory").ls("/bucket/root/runlog", detail=False)
    for spool in tmp_path.glob("previts-runlog-*/*"):
        spool.unlink()  # the pod is gone, and its disk with it
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "report.html").write_text("<p>page</p>")
    run_log.log_report(root, group="corpus", report="r")
    (arm,) = runs_of(client_of(tmp_path))["arms"]
    assert arm.data.metrics == {"loss": 4.0}
    assert arm.info.status == "KILLED"
    assert not fsspec.filesystem("memory").exists(copy)


def test_spool_lines_are_plain_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    run = open_arm(tmp_path, lr=0.1)
    run.metrics({"loss": 1.5}, step=3)
    (spool,) = (tmp_path / "runlog").glob("*.jsonl")
    identity, entry = [json.loads(line) for line in spool.read_text().splitlines()]
    assert identity["fingerprint"] == "f1"
    assert identity["params"] == {"lr": "0.1"}
    assert (entry["values"], entry["step"]) == ({"loss": 1.5}, 3)
    run.close()
