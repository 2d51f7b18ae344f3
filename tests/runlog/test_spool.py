"""Oracles: the entries that were written, and the runs in MLflow, read with its own client."""

import json
import shutil
from pathlib import Path

import fsspec
import pytest
from mlflow_runs import client_of, free_port, open_trial, runs_of

from previts.runlog import run_log
from previts.runlog.entries import Identity
from previts.runlog.spool import Spool

pytestmark = pytest.mark.usefixtures("mlflow_environment")


def test_the_spool_of_a_remote_root_is_copied_to_the_root_and_sent_from_there(
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
        spool.unlink()  # the pod and its disk no longer exist
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "report.html").write_text("<p>page</p>")
    run_log.log_report(root, group="corpus", report="r")
    (trial,) = runs_of(client_of(tmp_path))["trials"]
    assert trial.data.metrics == {"loss": 4.0}
    assert trial.info.status == "KILLED"
    assert not fsspec.filesystem("memory").exists(copy)


def test_each_line_of_a_spool_is_a_json_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    run = open_trial(tmp_path, lr=0.1)
    run.metrics({"loss": 1.5}, step=3)
    (spool,) = (tmp_path / "runlog").glob("*.jsonl")
    identity, entry = [json.loads(line) for line in spool.read_text().splitlines()]
    assert identity["fingerprint"] == "f1"
    assert identity["params"] == {"lr": "0.1"}
    assert (entry["values"], entry["step"]) == ({"loss": 1.5}, 3)
    run.close()


MODEL: dict[str, object] = {
    "kind": "model", "fingerprint": "f1", "name": "n", "type": "resnet18", "step": 9, "params": {}, "tags": {},
    "files": {}, "inputs": {"images": [-1, 3, 8, 8]}, "outputs": {},
}  # fmt: skip
IDENTITY = Identity("trial", "previts", "corpus", "name", "f1", {"lr": "0.1"})
ENTRIES = [{"kind": "tag", "key": "a", "value": "b"}, {"kind": "end", "status": "FAILED", "time": 5}]


def test_a_spool_is_left_to_others_only_after_it_is_closed(tmp_path: Path):
    spool = Spool.create(str(tmp_path), IDENTITY)
    spool.write(ENTRIES)
    assert list(Spool.left_behind(str(tmp_path))) == []  # locked by its run
    spool.leave()
    (found,) = Spool.left_behind(str(tmp_path))
    assert (found.identity(), found.entries()) == (IDENTITY, ENTRIES)
    found.delete()
    assert list(Spool.left_behind(str(tmp_path))) == []
    assert list((tmp_path / "runlog").iterdir()) == []


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_an_incomplete_last_line_is_ignored(tmp_path: Path, kept: int):
    spool = Spool.create(str(tmp_path), IDENTITY)
    spool.write(ENTRIES)
    spool.leave()
    path = Path(spool.path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:kept]) + lines[kept][:5])
    (found,) = Spool.left_behind(str(tmp_path))
    assert found.identity() == (IDENTITY if kept else None)
    assert found.entries() == ENTRIES[: max(0, kept - 1)]
    found.delete()


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000, "null", "[]", '{"kind": "tag", "key": 1, "value": "b"}', '{"kind": "gone"}', '{"kind": []}',
        "\udcff", '{"kind": "metrics", "values": [1], "step": 3}',
        '{"kind": "end", "status": "MAYBE", "time": 5}',
        '{"kind": "label", "field": "colour", "value": "red"}', '{"kind": "label", "field": "note"}',
        '{"kind": "dataset", "name": "a", "digest": "b", "source": "c", "profile": {"n": "1"}, "context": "eval"}',
        '{"kind": "dataset", "name": "a", "digest": "b", "source": "c", "profile": {}, "context": "anything"}',
        json.dumps({**MODEL, "files": {"a": 1}}), json.dumps({**MODEL, "inputs": {"a": ["x"]}}),
        json.dumps({**MODEL, "step": "9"}), json.dumps({**MODEL, "weights": ""}),
        '{"kind": "metrics", "values": {"a": 1.0}, "step": 3, "model": 5}',
    ],
)  # fmt: skip
def test_a_damaged_entry_is_left_out_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str):
    spool = Spool.create(str(tmp_path), IDENTITY)
    spool.write(ENTRIES[:1])
    spool.leave()
    with open(spool.path, "a", errors="surrogateescape") as file:
        file.write(f"{line}\n{json.dumps(ENTRIES[1])}\n")
    (found,) = Spool.left_behind(str(tmp_path))
    assert (found.identity(), found.entries()) == (IDENTITY, ENTRIES)
    assert f"{spool.path}: " in caplog.text
    assert "the line is left out" in caplog.text
    found.delete()


@pytest.mark.parametrize("line", ["{", '{"kind": "trial"}', '{"kind": "trial", "experiment": "x", "params": {"a": 1}}'])
def test_entries_of_an_unknown_run_are_kept_and_do_not_stop_the_next_run(
    tmp_path: Path, mlflow_tables: Path, caplog: pytest.LogCaptureFixture, line: str
):
    shutil.copy(mlflow_tables, tmp_path / "mlflow.db")
    spool = Spool.create(str(tmp_path), IDENTITY)
    spool.leave()
    text = f"{line}\n{json.dumps(ENTRIES[0])}\n"
    Path(spool.path).write_text(text)
    open_trial(tmp_path, lr=0.1).finish()
    assert Path(f"{spool.path}.damaged").read_text() == text
    assert not Path(spool.path).exists()
    assert "belong to no run and are kept in" in caplog.text
    assert list(Spool.left_behind(str(tmp_path))) == []


# A spool of version 0.2.0, as it was written.
OLD = (
    '{"kind": "arm", "experiment": "previts", "group": "g", "name": "a", "fingerprint": "f7", "params": {"lr": "1"}}\n'
    '{"kind": "metrics", "values": {"loss": 1.5}, "step": 3, "time": 1700000000000}\n'
    '{"kind": "tag", "key": "previts.checkpoint", "value": "somewhere", "time": 1700000000001}\n'
    '{"kind": "artifact", "path": "/gone.png", "folder": "pictures", "time": 1700000000002}\n'
    '{"kind": "end", "status": "KILLED", "time": 1700000000003}\n'
)


def test_a_spool_of_an_earlier_version_is_sent(tmp_path: Path, mlflow_tables: Path):
    shutil.copy(mlflow_tables, tmp_path / "mlflow.db")
    (tmp_path / "runlog").mkdir()
    (tmp_path / "runlog" / "f7-12345678.jsonl").write_text(OLD)
    open_trial(tmp_path, lr=0.1).finish()
    trials = {run.data.tags["previts.fingerprint"]: run for run in runs_of(client_of(tmp_path))["trials"]}
    old = trials["f7"]
    assert (old.info.run_name, old.info.status, old.info.end_time) == ("a", "KILLED", 1700000000003)
    assert (old.data.params, old.data.metrics) == ({"lr": "1"}, {"loss": 1.5})
    assert old.data.tags["previts.checkpoint"] == "somewhere"
    assert not list((tmp_path / "runlog").iterdir())


def test_a_remote_root_keeps_a_copy_until_the_spool_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root = f"memory://{tmp_path.name}"
    spool = Spool.create(root, IDENTITY)
    spool.write(ENTRIES)
    spool.leave()
    (copy,) = fsspec.filesystem("memory").ls(f"/{tmp_path.name}/runlog", detail=False)
    Path(spool.path).unlink()
    (found,) = Spool.left_behind(root)
    assert found.entries() == ENTRIES
    found.delete()
    assert not fsspec.filesystem("memory").exists(copy)
