import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from mlflow.tracking import MlflowClient
from mlflow_runs import client_of, free_port, open_arm, runs_of

from previts.config import fields
from previts.errors import InputError
from previts.runlog import run_log, run_store

pytestmark = pytest.mark.usefixtures("mlflow_environment")


@pytest.fixture
def root(tmp_path: Path, mlflow_tables: Path) -> Path:
    (tmp_path / "root").mkdir()
    shutil.copy(mlflow_tables, tmp_path / "root" / "mlflow.db")
    return tmp_path / "root"


def test_run_holds_what_was_told_and_a_resumed_run_goes_on(tmp_path: Path, root: Path):
    (tmp_path / "note.txt").write_text("hello")
    first = open_arm(root, lr=0.03, seed=0)
    first.metrics({"loss": 2.0, "iou": 0.1}, step=1)
    with pytest.raises(KeyboardInterrupt), run_log.reporting(first):
        raise KeyboardInterrupt
    client = client_of(root)
    found = runs_of(client)
    assert [run.info.status for run in found["arms"]] == ["KILLED"]
    assert [run.info.status for run in found["groups"]] == ["KILLED"]

    second = open_arm(root, lr=0.99, seed=0, added=True)
    found = runs_of(client)
    assert [run.info.status for run in found["arms"]] == ["RUNNING"]
    assert [run.info.status for run in found["groups"]] == ["RUNNING"]
    with run_log.reporting(second):
        second.metrics({"loss": 1.0}, step=2)
        second.tag("previts.pretraining.checkpoint", "somewhere")
        second.artifact(str(tmp_path / "note.txt"), "notes")
    run_log.log_result(str(root), "f1", {"voc07/map": 50.0})
    (tmp_path / "there" / "report").mkdir(parents=True)
    (tmp_path / "there" / "report" / "report.html").write_text("<p>page</p>")
    run_log.log_report(str(root), group="corpus", report="there/report")

    found = runs_of(client)
    (arm,), (group,) = found["arms"], found["groups"]
    assert arm.info.status == group.info.status == "FINISHED"
    assert arm.data.tags["mlflow.parentRunId"] == group.info.run_id
    assert arm.data.tags["previts.pretraining.checkpoint"] == "somewhere"
    assert arm.info.run_name == "arm f1"
    # Parameters are what the first start said.
    assert arm.data.params == {"lr": "0.03", "seed": "0", "added": "True"}
    history = client.get_metric_history(arm.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0)]
    assert arm.data.metrics["voc07/map"] == 50
    assert group.data.tags["previts.reporting.page"] == "there/report"
    assert (root / "mlartifacts").is_dir()
    assert client.list_artifacts(arm.info.run_id, "notes")[0].path == "notes/note.txt"
    assert not (root / "runlog").exists()
    assert not (tmp_path / "mlruns").exists()


def test_failure_is_reported_and_marks_the_group(root: Path):
    with pytest.raises(ZeroDivisionError), run_log.reporting(open_arm(root, "bad")):
        raise ZeroDivisionError
    with run_log.reporting(open_arm(root, "good")):
        pass
    found = runs_of(client_of(root))
    statuses = {run.info.run_name: run.info.status for run in found["arms"]}
    assert statuses == {"arm bad": "FAILED", "arm good": "FINISHED"}
    assert [run.info.status for run in found["groups"]] == ["FAILED"]
    with run_log.reporting(None):
        pass


def test_result_of_an_unknown_checkpoint_gets_a_run_of_its_own(root: Path):
    run_log.log_result(str(root), "f9", {"in1k/top1": 1.5})
    (arm,) = runs_of(client_of(root))["arms"]
    assert arm.data.metrics == {"in1k/top1": 1.5}
    assert arm.info.status == "FINISHED"


def test_a_run_of_kubeflow_is_adopted_as_parent(root: Path, monkeypatch: pytest.MonkeyPatch):
    client = client_of(root)
    experiment = client.create_experiment("theirs", artifact_location=str(root / "theirs"))
    theirs = client.create_run(experiment)
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs.info.run_id)
    open_arm(root).finish("FAILED")
    found = client.search_runs([experiment])
    arms = [run for run in found if run.info.run_id != theirs.info.run_id]
    assert [run.data.tags["mlflow.parentRunId"] for run in arms] == [theirs.info.run_id]
    assert client.get_run(theirs.info.run_id).info.status == "RUNNING"
    assert client.get_experiment_by_name("previts") is None


def test_rejected_entries_are_dropped_with_a_warning(root: Path, caplog: pytest.LogCaptureFixture):
    run = open_arm(root)
    run.metrics({"not @ name": 1.0}, step=0)
    run.metrics({"loss": 3.0}, step=0)
    run.finish()
    (arm,) = runs_of(client_of(root))["arms"]
    assert arm.data.metrics == {"loss": 3.0}
    assert arm.info.status == "FINISHED"
    assert "rejects" in caplog.text


def test_names_with_quotes_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="without quotes"):
        run_log.open_run(str(tmp_path), group="it's", name="x", fingerprint="f", params={})


def test_flatten_names_settings_by_their_path():
    nested = {"seed": 0, "optim": {"lr": 0.03, "deep": {"on": True}}, "sizes": (1, 2)}
    assert fields.flatten(nested) == {"seed": 0, "optim.lr": 0.03, "optim.deep.on": True, "sizes": (1, 2)}


def test_many_params_and_metrics_are_sent_in_parts(root: Path):
    run = open_arm(root, **{f"p{n}": "x" * 9000 for n in range(130)})
    run.metrics({f"m{n}": float(n) for n in range(1500)}, step=0)
    run.finish()
    (arm,) = runs_of(client_of(root))["arms"]
    assert len(arm.data.params) == 130
    assert len(arm.data.metrics) == 1500


def test_processes_that_start_at_once_share_group_and_store(tmp_path: Path):
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
    assert sorted(run.data.tags[run_store.FINGERPRINT_TAG] for run in found["arms"]) == ["fa", "fb"]
    lengths = {
        run.data.tags[run_store.FINGERPRINT_TAG]: len(client.get_metric_history(run.info.run_id, "loss"))
        for run in found["arms"]
    }
    assert lengths == {"fa": 30, "fb": 60}
    assert "MLflow does not accept" not in "".join(errors)


class Server:
    """A real MLflow server on loopback, that can be taken down and brought up again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        self.folder.mkdir(exist_ok=True)
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.folder}/server.db",
            "--artifacts-destination", f"{self.folder}/files",
        ]  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=self.folder, start_new_session=True
            )
        for _ in range(600):
            try:
                if requests.get(f"{self.uri}/health", timeout=1).ok:
                    return
            except requests.RequestException:
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
            time.sleep(0.1)
        raise AssertionError("the server did not come up")

    def down(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server(tmp_path / "server")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    yield server
    server.down()


@pytest.mark.slow
def test_outages_never_stop_the_work_and_lose_nothing(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    root = tmp_path / "root"
    (tmp_path / "note.txt").write_text("hello")
    caplog.set_level(logging.WARNING, "previts.runlog.run_log")

    # Down from start to end: everything is kept, with one warning.
    started = time.monotonic()
    run = open_arm(root, "down", lr=1)
    for step in range(50):
        run.metrics({"loss": float(step)}, step)
    run.tag("previts.pretraining.checkpoint", "somewhere")
    run.artifact(str(tmp_path / "note.txt"))
    run.finish("FAILED")
    assert time.monotonic() - started < 10
    assert caplog.text.count("does not accept entries") == 1
    (spool,) = (root / "runlog").glob("*.jsonl")
    with open(spool, "a") as file:
        file.write('{"kind": "metr')  # the process was killed in the middle of a line

    # Up: the next run sends what was left, then itself.
    server.up()
    run = open_arm(root, "next", lr=2)
    assert not list((root / "runlog").iterdir())
    client = MlflowClient(server.uri)
    (arm,) = runs_of(client)["arms"][1:]
    assert arm.info.run_name == "arm down"
    assert arm.info.status == "FAILED"
    assert arm.data.params == {"lr": "1"}
    assert arm.data.tags["previts.pretraining.checkpoint"] == "somewhere"
    history = client.get_metric_history(arm.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(step, float(step)) for step in range(50)]
    assert [file.path for file in client.list_artifacts(arm.info.run_id)] == ["note.txt"]

    # Down in the middle, up before the end: the same run sends it itself.
    run.metrics({"loss": 9.0}, step=1)
    server.down()
    run.metrics({"loss": 8.0}, step=2)
    (spool,) = (root / "runlog").glob("*.jsonl")
    assert len(spool.read_text().splitlines()) == 2
    # While its run is at work, nobody else sends a spool.
    other = open_arm(root, "other")
    assert len(list((root / "runlog").glob("*.jsonl"))) == 2
    server.up()
    monkeypatch.setattr(run_log, "RETRY_SECONDS", 0.0)
    other.metrics({"loss": 1.0}, step=1)
    other.finish()
    assert spool.exists()
    run.finish()
    assert not list((root / "runlog").iterdir())
    arms = {run.info.run_name: run for run in runs_of(client)["arms"]}
    assert {name: run.info.status for name, run in arms.items()} == {
        "arm down": "FAILED", "arm next": "FINISHED", "arm other": "FINISHED",
    }  # fmt: skip
    history = client.get_metric_history(arms["arm next"].info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 9.0), (2, 8.0)]
    assert len(runs_of(client)["groups"]) == 1
