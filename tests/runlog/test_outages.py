"""Outages of a real MLflow server, and killed writers. Oracle: what MLflow has, read with its own client."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from mlflow_runs import Server, client_of, free_port, open_trial, runs_of

from previts.runlog import run_log
from previts.runlog.run_store import open_stored
from previts.runlog.spool import Spool

pytestmark = pytest.mark.usefixtures("mlflow_environment")

# Records every kind of entry; the argument says after which of them the process pauses.
PROGRAM = """
import sys, time
from previts.runlog import run_log
from previts.runlog.description import Dataset, LoggedModel
root, pause = sys.argv[1], int(sys.argv[2])
index = Dataset("crawl-1 (9 videos)", "0123456789ab", "/root/index/corpus", {"videos": 9.0})
model = LoggedModel(
    "f1", "1-vgg-moco", "resnet18", 3, {"optim.lr": "0.1"}, {"row": "1/vgg/moco"}, {"experiment.json": "{}"},
    {"images": [-1, 3, 8, 8]}, {"features": [-1, 512]},
)
run = run_log.open_run(
    root, group="corpus", name="trial", fingerprint="f1", params={"lr": 1},
    tags={"row": "1/vgg/moco", "diff": "baseline"}, corpus="crawl-1 (9 videos)",
)
steps = [
    lambda: run.dataset(index, "training"),
    lambda: run.note("what it is"),
    lambda: run.metrics({"loss": 3.0}, 1),
    lambda: run.rename("trial, renamed"),
    lambda: run.metrics({"loss": 2.0}, 2),
    lambda: run.tag("diff.sampling.gap", "zero"),
    lambda: run.model(model),
    lambda: run.measured({"loss": 1.0}, 3, "f1", index),
    lambda: run.artifact(root + "/note.txt", "notes"),
    lambda: run.finish("FAILED"),
]
for number, step in enumerate(steps):
    if number == pause:
        print("paused", flush=True)
        sys.stdin.readline()
    step()
print("ended", flush=True)
"""


def start(root: Path, pause: int) -> "subprocess.Popen[str]":
    (root / "note.txt").parent.mkdir(parents=True, exist_ok=True)
    (root / "note.txt").write_text("hello")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root), str(pause)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "paused\n"
    return process


def proceed(process: "subprocess.Popen[str]") -> None:
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ended\n"
    assert process.wait(60) == 0


def check_whole(client: MlflowClient) -> None:
    """Check that MLflow has everything that the program records, once."""
    (trial,), (group,) = (runs_of(client)[role] for role in ("trials", "groups"))
    assert (trial.info.run_name, trial.info.status) == ("trial, renamed", "FAILED")
    assert group.info.run_name.startswith("crawl-1 (9 videos) · ")
    assert {name: trial.data.tags[name] for name in ("row", "diff", "diff.sampling.gap", "mlflow.note.content")} == {
        "row": "1/vgg/moco", "diff": "baseline", "diff.sampling.gap": "zero", "mlflow.note.content": "what it is",
    }  # fmt: skip
    assert trial.data.params == {"lr": "1"}
    history = client.get_metric_history(trial.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert [item.dataset.digest for item in trial.inputs.dataset_inputs] == ["0123456789ab"]
    (model,) = client.search_logged_models([trial.info.experiment_id])
    assert (model.name, model.status) == ("1-vgg-moco", "READY")
    assert [(item.key, item.value, item.dataset_digest) for item in model.metrics] == [("loss", 1.0, "0123456789ab")]
    assert [output.model_id for output in trial.outputs.model_outputs] == [model.model_id]
    assert {item.path for item in client.list_logged_model_artifacts(model.model_id)} == {"MLmodel", "experiment.json"}
    assert [item.path for item in client.list_artifacts(trial.info.run_id, "notes")] == ["notes/note.txt"]


@pytest.mark.slow
@pytest.mark.parametrize("pause", [pytest.param(2, marks=pytest.mark.long), 7])
def test_an_outage_between_any_two_entries_loses_nothing(tmp_path: Path, server: Server, pause: int):
    root = tmp_path / "root"
    server.up()
    process = start(root, pause)
    server.down()
    proceed(process)
    (spool,) = (root / "runlog").glob("*.jsonl")
    assert len(spool.read_text().splitlines()) == 1 + 10 - pause
    server.up()
    run_log.log_generations(str(root), {}, [], fingerprint="f1")  # the next command with this root
    assert not list((root / "runlog").iterdir())
    check_whole(MlflowClient(server.uri))


@pytest.mark.slow
def test_a_writer_that_is_killed_in_an_outage_loses_nothing_that_it_recorded(tmp_path: Path, server: Server):
    root = tmp_path / "root"
    server.up()
    process = start(root, pause=2)
    server.down()
    proceed(process)
    (spool,) = (root / "runlog").glob("*.jsonl")
    lines = spool.read_text().splitlines(keepends=True)
    spool.write_text("".join(lines[:-1]) + lines[-1][:9])  # it was killed while it wrote its last line
    server.up()
    again = start(root, pause=9)  # the resumed run sends the spool, then all its entries again
    again.send_signal(signal.SIGKILL)
    again.wait()
    proceed(start(root, pause=9))
    client = MlflowClient(server.uri)
    (trial,) = runs_of(client)["trials"]
    assert trial.info.status == "FAILED"
    assert len(client.search_logged_models([trial.info.experiment_id])) == 1
    assert len(trial.inputs.dataset_inputs) == len(trial.outputs.model_outputs) == 1
    history = {(point.step, point.value) for point in client.get_metric_history(trial.info.run_id, "loss")}
    assert history == {(1, 3.0), (2, 2.0), (3, 1.0)}
    assert not list((root / "runlog").iterdir())


def test_a_writer_that_is_killed_leaves_a_spool_that_the_next_run_sends(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as offline:
        offline.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
        process = start(root, pause=9)
        process.send_signal(signal.SIGKILL)
        process.wait()
    (spool,) = (root / "runlog").glob("*.jsonl")
    assert len(spool.read_text().splitlines()) == 10
    proceed(start(root, pause=9))
    client = client_of(root)
    (trial,) = runs_of(client)["trials"]
    assert (trial.info.run_name, trial.info.status) == ("trial, renamed", "FAILED")
    (model,) = client.search_logged_models([trial.info.experiment_id])
    assert model.name == "1-vgg-moco"
    assert len(trial.inputs.dataset_inputs) == len(trial.outputs.model_outputs) == 1


def test_entries_that_are_sent_again_change_nothing(root: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as offline:
        offline.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
        proceed(start(root, pause=0))
    (spool,) = Spool.left_behind(str(root))
    identity, entries = spool.identity(), spool.entries()
    assert identity is not None
    client = client_of(root)
    for count in range(len(entries) + 1):  # interrupted after each entry, then whole
        open_stored(str(root), identity, working=False).send_entries(entries[:count])
    check_whole(client)
    open_stored(str(root), identity, working=False).send_entries(entries)
    check_whole(client)


def test_recording_does_not_wait_for_a_server_that_does_not_answer(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    started = time.monotonic()
    run = open_trial(root)
    for step in range(100):
        run.note(f"note {step}")
        run.rename(f"name {step}")
    run.finish()
    assert time.monotonic() - started < 5
