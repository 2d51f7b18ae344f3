"""Oracle: the runs in MLflow, read with its own client."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow_runs import client_of, open_trial, runs_of

from previts.runlog import run_log, run_store, stored_run

pytestmark = pytest.mark.usefixtures("mlflow_environment")


def test_the_tracking_uri_is_the_configured_one_or_a_file_in_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert run_store.tracking_uri(str(tmp_path / "root")) == f"sqlite:///{tmp_path}/root/mlflow.db"
    assert run_store.tracking_uri("memory://bucket/root") == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert run_store.tracking_uri(str(tmp_path)) == "http://mlflow:5000"


@pytest.mark.parametrize("name", ["quest?x", "percent%20x", "odd #&'\"é;[x]::*"])
def test_the_runs_of_a_root_with_any_name_are_in_its_own_database(tmp_path: Path, mlflow_tables: Path, name: str):
    root = tmp_path / "roots" / name
    root.mkdir(parents=True)
    shutil.copy(mlflow_tables, root / "mlflow.db")
    (tmp_path / "note.txt").write_text("kept")
    run = open_trial(root)
    run.artifact(str(tmp_path / "note.txt"))
    run.close()  # as after a kill: the run has the status running
    with sqlite3.connect(root / "mlflow.db") as database:
        ((identifier, status),) = database.execute("SELECT run_uuid, status FROM runs WHERE name = 'trial f1'")
    assert status == "RUNNING"
    assert (root / "mlartifacts" / identifier / "artifacts" / "note.txt").read_text() == "kept"
    assert run_log.close_runs(str(root)) == 1
    assert run_log.close_runs(str(root)) == 0
    assert [path.name for path in root.parent.iterdir()] == [name]
    assert not (root / "runlog").exists()


def test_a_given_database_is_found_under_its_quoted_name(tmp_path: Path):
    assert run_store.database_file(f"sqlite:///{tmp_path}/a%20b.db?timeout=3") == f"{tmp_path}/a b.db"
    assert run_store.database_file("sqlite:///runs.db") == f"{tmp_path}/runs.db"
    assert [run_store.database_file(uri) for uri in ("http://mlflow:5000", "sqlite://", "sqlite:///:memory:")] == [
        ""
    ] * 3


def test_a_run_of_kubeflow_becomes_the_parent(root: Path, monkeypatch: pytest.MonkeyPatch):
    client = client_of(root)
    experiment = client.create_experiment("theirs", artifact_location=str(root / "theirs"))
    theirs = client.create_run(experiment)
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs.info.run_id)
    open_trial(root).finish("FAILED")
    found = client.search_runs([experiment])
    trials = [run for run in found if run.info.run_id != theirs.info.run_id]
    assert [run.data.tags["mlflow.parentRunId"] for run in trials] == [theirs.info.run_id]
    assert client.get_run(theirs.info.run_id).info.status == "RUNNING"
    assert client.get_experiment_by_name("previts") is None


def test_rejected_entries_are_dropped_with_a_warning(root: Path, caplog: pytest.LogCaptureFixture):
    run = open_trial(root)
    run.metrics({"not @ name": 1.0}, step=0)
    run.metrics({"loss": 3.0}, step=0)
    run.finish()
    (trial,) = runs_of(client_of(root))["trials"]
    assert trial.data.metrics == {"loss": 3.0}
    assert trial.info.status == "FINISHED"
    assert "rejects" in caplog.text


def test_many_parameters_and_metrics_are_all_stored(root: Path):
    run = open_trial(root, **{f"p{n}": "x" * 9000 for n in range(130)})
    run.metrics({f"m{n}": float(n) for n in range(1500)}, step=0)
    run.finish()
    (trial,) = runs_of(client_of(root))["trials"]
    assert len(trial.data.params) == 130
    assert len(trial.data.metrics) == 1500


def test_processes_that_start_at_once_share_group_and_database(tmp_path: Path):
    program = (
        "import sys; from previts.runlog import run_log\n"
        "run = run_log.open_run(sys.argv[1], group='corpus', name='n', fingerprint=sys.argv[2], params={'a': 1})\n"
        "for step in range(30): run.metrics({'loss': float(step)}, step)\n"
        "run.finish()\n"
    )
    root = tmp_path / "root"
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(root), name], stderr=subprocess.PIPE, text=True)
        for name in ("fa", "fb", "fb")
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    client = client_of(root)
    found = runs_of(client)
    assert len(found["groups"]) == 1
    assert sorted(run.data.tags[stored_run.FINGERPRINT_TAG] for run in found["trials"]) == ["fa", "fb"]
    lengths = {
        run.data.tags[stored_run.FINGERPRINT_TAG]: len(client.get_metric_history(run.info.run_id, "loss"))
        for run in found["trials"]
    }
    assert lengths == {"fa": 30, "fb": 60}
    assert "MLflow does not accept" not in "".join(errors)
