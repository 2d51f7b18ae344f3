"""An evaluation in a subprocess: failures with their reasons, and the end of the engine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from small_verbs import SMALL

from previts import stages
from previts.errors import InputError
from previts.processes import workers
from previts.runs import steps
from previts.stages.subprocess_evaluation import Evaluation, evaluate_in_subprocess
from previts.storage import files, folders


def test_a_failed_benchmark_is_stored_with_its_reason_and_is_tried_again(made, tmp_path, capfd):
    for name in ("voc", "davis"):
        shutil.copytree(f"{made['data']}/{name}", tmp_path / name)
    image = next((tmp_path / "voc" / "VOCdevkit" / "VOC2007" / "JPEGImages").iterdir())
    intact = image.read_bytes()
    image.write_bytes(intact[:100])
    root, data = made["root"], str(tmp_path)
    place = {"row": "1/vgg/previts", "checkpoint": made["checkpoint"], "data": data, "root": root}
    place |= {"profile": "demo", "set": SMALL}
    both = [Evaluation(benchmark=name, **place) for name in ("voc07", "davis")]
    failed, other = evaluate_in_subprocess(both)  # the second runs although the first fails
    with pytest.raises(InputError, match="cannot be read as an image"):
        stages.evaluate(benchmark="voc07", **place)
    assert "VOC07 trainval" in capfd.readouterr().err  # the messages of the subprocess are relayed
    report = stages.report(["1/vgg/previts"], made["index"], [failed, other], root, "demo", SMALL)
    page = files.read_bytes(files.join(report, "report.md")).decode()
    assert f"{image.name} cannot be read as an image" in page
    assert folders.read_manifest(report).counts["measured"] > 0
    with pytest.raises(InputError, match=r"1 of 2 evaluations failed:\n  voc07 of .*cannot be read as an image"):
        steps.check_evaluations(report, root)
    image.write_bytes(intact)
    repaired, same = evaluate_in_subprocess(both)
    assert same == other
    assert folders.read_manifest(repaired).counts["voc07/map"] >= 0
    steps.check_evaluations(
        stages.report(["1/vgg/previts"], made["index"], [repaired, other], root, "demo", SMALL), root
    )


def test_evaluations_in_one_process_have_the_results_of_separate_processes(made, tmp_path, mlflow_tables):
    found = []
    for root in (tmp_path / "together", tmp_path / "apart"):
        root.mkdir()
        shutil.copy(mlflow_tables, root / "mlflow.db")
        each = [
            Evaluation("1/vgg/previts", name, made["checkpoint"], made["data"], str(root), "demo", SMALL)
            for name in ("in9", "voc07")
        ]
        groups = [each] if root.name == "together" else [[one] for one in each]
        uris = [uri for group in groups for uri in evaluate_in_subprocess(group)]
        found.append([files.read_bytes(files.join(uri, "items.npz")) for uri in uris])
        found.append([folders.read_manifest(uri).counts for uri in uris])
    assert found[:2] == found[2:]
    assert all(found[1])


def test_an_evaluation_that_is_finished_starts_no_process(made, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/program")
    finished = Evaluation(
        row="1/vgg/previts", benchmark="davis", checkpoint=made["checkpoint"], data=made["data"], root=made["root"],
        profile="demo", set=SMALL,
    )  # fmt: skip
    assert evaluate_in_subprocess([finished]) == [made["result"]]


def test_an_evaluation_that_ends_with_its_engine_is_not_stored_as_failed(made, tmp_path):
    place = {
        "row": "1/vgg/previts",
        "benchmark": "voc07",
        "checkpoint": made["checkpoint"],
        "data": made["data"],
        "root": str(tmp_path),
        "profile": "demo",
        "set": SMALL,
    }
    step = """
import json, sys
from previts.processes.exits import readable_errors
from previts.stages import subprocess_evaluation
with readable_errors():
    subprocess_evaluation.evaluate_in_subprocess([subprocess_evaluation.Evaluation(**json.loads(sys.argv[1]))])
"""
    engine = subprocess.Popen(["sleep", "600"])
    environment = {**os.environ, workers.STARTED_BY: str(engine.pid)}
    process = psutil.Popen([sys.executable, "-c", step, json.dumps(place)], env=environment)
    while not (tmp_path / "results").exists():
        assert process.poll() is None
        time.sleep(0.05)
    evaluations = process.children()
    # The evaluation must not watch the engine itself: its end would look like a failure.
    assert [child.environ()[workers.STARTED_BY] for child in evaluations] == [str(process.pid)]
    engine.kill()
    engine.wait()
    assert process.wait(60) == -signal.SIGKILL
    assert not psutil.wait_procs(evaluations, 60)[1]
    assert not list(tmp_path.rglob("result.json"))
