"""Oracle: the runs in MLflow, read with its own client."""

import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from mlflow_runs import Server, client_of, free_port, open_trial, runs_of

from previts.errors import InputError
from previts.runlog import run_log
from previts.storage import leases

pytestmark = pytest.mark.usefixtures("mlflow_environment")


def test_a_resumed_run_continues_with_its_first_parameters_and_all_metrics(tmp_path: Path, root: Path):
    (tmp_path / "note.txt").write_text("hello")
    first = open_trial(root, lr=0.03, seed=0)
    first.metrics({"loss": 2.0, "iou": 0.1}, step=1)
    with pytest.raises(KeyboardInterrupt), run_log.reporting(first):
        raise KeyboardInterrupt
    client = client_of(root)
    found = runs_of(client)
    assert [run.info.status for run in found["trials"]] == ["KILLED"]
    assert [run.info.status for run in found["groups"]] == ["KILLED"]

    second = open_trial(root, lr=0.99, seed=0, added=True)
    found = runs_of(client)
    assert [run.info.status for run in found["trials"]] == ["RUNNING"]
    assert [run.info.status for run in found["groups"]] == ["RUNNING"]
    with run_log.reporting(second):
        second.metrics({"loss": 1.0}, step=2)
        second.tag("previts.checkpoint", "somewhere")
        second.artifact(str(tmp_path / "note.txt"), "notes")
    run_log.log_result(str(root), "f1", {"voc07/map": 50.0})
    (tmp_path / "there" / "report").mkdir(parents=True)
    (tmp_path / "there" / "report" / "report.html").write_text("<p>page</p>")
    run_log.log_report(str(root), group="corpus", report="there/report")

    found = runs_of(client)
    (trial,), (group,) = found["trials"], found["groups"]
    assert trial.info.status == group.info.status == "FINISHED"
    assert trial.data.tags["mlflow.parentRunId"] == group.info.run_id
    assert trial.data.tags["previts.checkpoint"] == "somewhere"
    assert trial.info.run_name == "trial f1"
    # The parameters of the first start are kept.
    assert trial.data.params == {"lr": "0.03", "seed": "0", "added": "True"}
    history = client.get_metric_history(trial.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0)]
    assert trial.data.metrics["voc07/map"] == 50
    assert group.data.tags["previts.report"] == "there/report"
    assert (root / "mlartifacts").is_dir()
    assert client.list_artifacts(trial.info.run_id, "notes")[0].path == "notes/note.txt"
    assert not (root / "runlog").exists()
    assert not (tmp_path / "mlruns").exists()


def test_a_failure_marks_the_arm_and_its_group(root: Path):
    with pytest.raises(ZeroDivisionError), run_log.reporting(open_trial(root, "bad")):
        raise ZeroDivisionError
    with run_log.reporting(open_trial(root, "good")):
        pass
    found = runs_of(client_of(root))
    statuses = {run.info.run_name: run.info.status for run in found["trials"]}
    assert statuses == {"trial bad": "FAILED", "trial good": "FINISHED"}
    assert [run.info.status for run in found["groups"]] == ["FAILED"]
    with run_log.reporting(None):
        pass


def test_a_result_of_an_unknown_checkpoint_gets_its_own_run(root: Path):
    run_log.log_result(str(root), "f9", {"in1k/top1": 1.5})
    (trial,) = runs_of(client_of(root))["trials"]
    assert trial.data.metrics == {"in1k/top1": 1.5}
    assert trial.info.status == "FINISHED"


GENERATIONS = """
import sys
from previts.runlog import run_log
points = [(step, {"generations/voc07/map": 40.0 + step, "corpus/videos": step * 1e6}) for step in range(1, 40)]
for _ in range(2):
    run_log.log_generations(sys.argv[1], {"previts.generation": "39"}, points, fingerprint="f1")
    run_log.log_generations(sys.argv[1], {"previts.generation": "39"}, points, group="corpus")
"""


def test_metrics_over_generations_are_in_mlflow_once_however_often_they_are_logged(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    open_trial(root).finish()
    program = [sys.executable, "-c", GENERATIONS, str(root)]
    both = [subprocess.Popen(program, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    with monkeypatch.context() as offline:
        offline.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
        more = {"generations/voc07/map": 80.0, "voc07/map.change": 1.0}
        run_log.log_generations(str(root), {"previts.generation": "40"}, [(39, more), (40, more)], fingerprint="f1")
        assert list((root / "runlog").glob("*.jsonl"))
    for _ in range(2):  # the first call sends the spool
        run_log.log_generations(str(root), {"previts.generation": "40"}, [(40, more)], fingerprint="f1")
    assert not list((root / "runlog").iterdir())
    client = client_of(root)
    (trial,), (group,) = (runs_of(client)[role] for role in ("trials", "groups"))
    history = client.get_metric_history(trial.info.run_id, "generations/voc07/map")
    wanted = [(step, 40.0 + step) for step in range(1, 40)] + [(39, 80.0), (40, 80.0)]
    assert sorted((point.step, point.value) for point in history) == sorted(wanted)
    assert (trial.data.metrics["generations/voc07/map"], trial.data.metrics["voc07/map.change"]) == (80, 1)
    assert trial.data.tags["previts.generation"] == "40"
    assert trial.info.status == group.info.status == "FINISHED"
    sizes = client.get_metric_history(group.info.run_id, "corpus/videos")
    assert [(point.step, point.value) for point in sizes] == [(step, step * 1e6) for step in range(1, 40)]
    assert group.data.tags["previts.generation"] == "39"


def test_names_with_quotes_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="without quotes"):
        run_log.open_run(str(tmp_path), group="it's", name="x", fingerprint="f", params={})


HOLD = """
import sys, time
from previts.storage import leases
with leases.working("pretrain"):
    leases.take(sys.argv[1], leases.OUTPUT)
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_outages_never_stop_the_run_and_lose_no_entry(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    root = tmp_path / "root"
    (tmp_path / "note.txt").write_text("hello")
    caplog.set_level(logging.WARNING, "previts.runlog.run_log")

    # Down during the whole run: all entries are kept, with one warning.
    started = time.monotonic()
    run = open_trial(root, "down", lr=1)
    for step in range(50):
        run.metrics({"loss": float(step)}, step)
    run.tag("previts.checkpoint", "somewhere")
    run.artifact(str(tmp_path / "note.txt"))
    run.finish("FAILED")
    assert time.monotonic() - started < 10
    assert caplog.text.count("does not accept entries") == 1
    (spool,) = (root / "runlog").glob("*.jsonl")
    with open(spool, "a") as file:
        file.write('{"kind": "metr')  # the process was killed while writing a line

    # Up: the next run sends the spool of the first, then its own entries.
    server.up()
    run = open_trial(root, "next", lr=2)
    assert not list((root / "runlog").iterdir())
    client = MlflowClient(server.uri)
    (trial,) = runs_of(client)["trials"][1:]
    assert trial.info.run_name == "trial down"
    assert trial.info.status == "FAILED"
    assert trial.data.params == {"lr": "1"}
    assert trial.data.tags["previts.checkpoint"] == "somewhere"
    history = client.get_metric_history(trial.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(step, float(step)) for step in range(50)]
    assert [file.path for file in client.list_artifacts(trial.info.run_id)] == ["note.txt"]

    # Down in the middle, up before the end: the run sends its own spool.
    run.metrics({"loss": 9.0}, step=1)
    server.down()
    run.metrics({"loss": 8.0}, step=2)
    (spool,) = (root / "runlog").glob("*.jsonl")
    assert len(spool.read_text().splitlines()) == 2
    # No other run sends the spool of a run that still works.
    other = open_trial(root, "other")
    assert len(list((root / "runlog").glob("*.jsonl"))) == 2
    server.up()
    monkeypatch.setattr(run_log, "RETRY_SECONDS", 0.0)
    other.metrics({"loss": 1.0}, step=1)
    other.finish()
    assert spool.exists()
    run.finish()
    assert not list((root / "runlog").iterdir())
    trials = {run.info.run_name: run for run in runs_of(client)["trials"]}
    assert {name: run.info.status for name, run in trials.items()} == {
        "trial down": "FAILED", "trial next": "FINISHED", "trial other": "FINISHED",
    }  # fmt: skip
    history = client.get_metric_history(trials["trial next"].info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 9.0), (2, 8.0)]
    assert len(runs_of(client)["groups"]) == 1


def test_close_runs_marks_only_running_arms_as_failed(tmp_path: Path, root: Path):
    assert run_log.close_runs(str(tmp_path / "new")) == 0  # no database yet
    open_trial(root, "killed")
    open_trial(root, "done").finish()
    client = client_of(root)
    assert run_log.close_runs(str(root)) == 1
    statuses = {run.info.run_name: run.info.status for run in runs_of(client)["trials"]}
    assert statuses == {"trial killed": "FAILED", "trial done": "FINISHED"}
    assert run_log.close_runs(str(root)) == 0


def test_close_runs_leaves_an_arm_on_which_another_process_works(root: Path):
    for name in ("killed", "working"):
        open_trial(root, name)
    killed, working = (str(root / "checkpoints" / f"resnet18-previts-{name}") for name in ("killed", "working"))
    process = subprocess.Popen([sys.executable, "-c", HOLD, killed], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "holds\n"
    process.kill()
    process.wait()
    with leases.working("pretrain"):
        leases.take(working, leases.OUTPUT)
        assert leases.names(killed) == leases.names(working) == [leases.OUTPUT]
        assert run_log.close_runs(str(root)) == 1
    statuses = {run.info.run_name: run.info.status for run in runs_of(client_of(root))["trials"]}
    assert statuses == {"trial killed": "FAILED", "trial working": "RUNNING"}
