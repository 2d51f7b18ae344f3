"""The verb `pretrain` on a small synthetic world. Oracle: the same training by another launcher."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from operator_by_hand import Operator, open_namespace, run_pods
from small_verbs import SMALL

from previts import stages
from previts.errors import InputError
from previts.launch import app
from previts.launch.options import JobOptions
from previts.launch.pytorchjob import build_manifest
from previts.media import normalisation
from previts.runlog import run_store
from previts.storage import files, folders, tensors


def test_the_training_log_has_every_step_once(made):
    lines = [json.loads(line) for line in files.read_bytes(files.join(made["checkpoint"], "log.jsonl")).splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))


def test_the_run_log_has_a_run_with_the_settings_and_the_metrics_of_the_row(made):
    from mlflow.tracking import MlflowClient

    assert (Path(made["root"]) / "mlflow.db").is_file()
    client = MlflowClient(run_store.tracking_uri(made["root"]))
    (experiment,) = [item for item in client.search_experiments() if item.name == "previts"]
    runs = client.search_runs([experiment.experiment_id])
    fingerprint = folders.read_manifest(made["checkpoint"]).fingerprint
    (arm,) = [run for run in runs if run.data.tags.get("previts.fingerprint") == fingerprint]
    assert arm.info.status == "FINISHED"
    assert arm.data.params["objective.attention_weight"] == "3.0"
    assert "davis/j_mean" in arm.data.metrics
    assert arm.data.tags["mlflow.parentRunId"] in {run.info.run_id for run in runs}


def test_an_index_without_tubes_is_refused_by_a_row_with_tracking(world, tmp_path):
    grey = (np.full((64, 96, 3), 128, np.uint8) for _ in range(24))
    (tmp_path / "crawl").mkdir()
    normalisation.encode_video(grey, 12.0, str(tmp_path / "crawl" / "grey.mp4"))
    root = str(tmp_path / "root")
    videos = stages.download(str(tmp_path / "crawl"), root, "demo", SMALL)
    regions = stages.saliency(videos, stages.fit_saliency(videos, root, "demo", SMALL), root, "demo", SMALL)
    index = stages.index(videos, stages.track(videos, regions, root, "demo", SMALL), root)
    with pytest.raises(InputError, match=r"no video of .* has a tube"):
        stages.pretrain("1/vgg/previts", index, root, "demo", SMALL)


def test_a_damaged_model_is_made_again_after_its_manifest_is_deleted(made, tmp_path):
    shutil.copytree(made["root"], tmp_path, dirs_exist_ok=True)
    at = {name: uri.replace(made["root"], str(tmp_path)) for name, uri in made.items()}
    model = Path(at["checkpoint"]) / "model.pt"
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"model\.pt was changed after manifest\.json was written; delete both"):
        stages.evaluate("1/vgg/previts", "voc07", at["checkpoint"], at["data"], str(tmp_path), "demo", SMALL)
    (Path(at["checkpoint"]) / "manifest.json").unlink()
    assert stages.pretrain("1/vgg/previts", at["index"], str(tmp_path), "demo", SMALL) == at["checkpoint"]
    result = stages.evaluate("1/vgg/previts", "voc07", at["checkpoint"], at["data"], str(tmp_path), "demo", SMALL)
    assert folders.is_committed(result)


def test_a_row_with_a_frozen_encoder_keeps_its_initial_weights(made, tmp_path):
    index, root, data = made["index"], made["root"], made["data"]
    random = stages.pretrain("1/random", index, root, "demo", SMALL)
    assert folders.read_manifest(random).counts["steps"] == 0
    assert folders.is_committed(stages.evaluate("1/random", "davis", random, data, root, "demo", SMALL))
    with pytest.raises(InputError, match=r"--set 1/supervised:model\.weights=URI"):
        stages.pretrain("1/supervised", index, root, "demo", SMALL)
    weights = str(tmp_path / "torchvision.pt")
    network = torchvision.models.resnet18()
    torch.save(network.state_dict(), weights)
    chosen = [*SMALL, f"1/supervised:model.weights={weights}"]
    given = stages.pretrain("1/supervised", index, root, "demo", chosen)
    encoder = tensors.read_checked(files.join(given, tensors.ENCODER), "cpu")
    assert all(torch.equal(encoder[name], value) for name, value in network.state_dict().items() if "fc." not in name)
    assert stages.pretrain("1/random", index, root, "demo", chosen) == random


def test_a_row_with_supervised_tracking_refuses_other_tubes(made):
    chosen = [item for item in SMALL if not item.startswith("saliency.method")]
    for verb in (
        lambda: stages.pretrain("6d/supervised", made["index"], made["root"], "demo", chosen),
        lambda: stages.report(["6d/supervised"], made["index"], [made["result"]], made["root"], "demo", chosen),
    ):
        with pytest.raises(InputError, match=r"row 6d/supervised needs tubes of saliency\.method=supervised.* of rbd"):
            verb()


CHANGED = [*SMALL, "objective.batch_norm_groups=2", "optim.epochs=3"]


@pytest.fixture(scope="module")
def two_processes(made):
    """The checkpoint of two processes that the local launcher started."""
    return stages.pretrain("1/vgg/previts", made["index"], made["root"], "demo", [*CHANGED, "seed=3"], processes=2)


def weights_of(checkpoint: str) -> dict[str, torch.Tensor]:
    return tensors.read_checked(files.join(checkpoint, "model.pt"), "cpu")["model"]


@pytest.mark.slow
def test_two_processes_under_torchrun_train_one_checkpoint(made, two_processes):
    one = stages.pretrain("1/vgg/previts", made["index"], made["root"], "demo", [*CHANGED, "seed=1"])
    logs = [files.read_bytes(files.join(uri, "log.jsonl")).splitlines() for uri in (one, two_processes)]
    assert len(logs[0]) == len(logs[1]) > 0
    assert folders.read_manifest(two_processes).counts["steps"] == folders.read_manifest(one).counts["steps"]
    with pytest.raises(InputError, match=r"batch_norm_groups = 1 must be a multiple of the number of processes, 2"):
        stages.pretrain("1/vgg/previts", made["index"], made["root"], "demo", [*SMALL, "seed=2"], processes=2)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["torchx", pytest.param("rigid", marks=pytest.mark.long), "spot"])
def test_torchx_and_the_pods_of_a_job_train_the_same_weights_as_the_local_launcher(made, two_processes, tmp_path, way):
    root = str(tmp_path)
    arguments = ["--row", "1/vgg/previts", "--index", made["index"], "--profile", "demo", "--root", root]
    arguments += ["--set", *CHANGED, "seed=3"]
    if way == "torchx":
        torchx = [sys.executable, "-m", "torchx.cli.main", "run", "-s", "local_cwd", "--workspace", "", "--wait"]
        torchx += [f"{app.__file__}:torchx_component", "--verb", "pretrain", "--processes", "2", "--", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        processes = [subprocess.Popen(torchx, env=environment)]
    else:
        job = app.training_app("pretrain", 1, arguments, nodes=2, image="x")
        processes = run_pods(build_manifest(job, JobOptions(spot=way == "spot")))
    assert [process.wait(300) for process in processes] == [0] * len(processes)
    weights, found = weights_of(two_processes), weights_of(two_processes.replace(made["root"], root))
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.slow
def test_a_cluster_trains_the_same_weights_as_the_local_launcher(
    made, two_processes, tmp_path, plane, kubelet, monkeypatch, capfd
):
    open_namespace(plane, "training")
    monkeypatch.setenv("KUBECONFIG", plane.kubeconfig("launcher", "training"))

    def script(operator: Operator, job: dict[str, Any]) -> None:
        operator.condition(job, "Created")
        processes = run_pods(job)
        operator.condition(job, "Running")
        codes = [process.wait(300) for process in processes]
        operator.condition(job, "Failed" if any(codes) else "Succeeded")

    where = {"launcher": "pytorchjob", "processes": 2, "job": ["image=x", "processes_per_node=1", "accelerator="]}
    arguments = ("1/vgg/previts", made["index"], str(tmp_path), "demo", [*CHANGED, "seed=3"])
    with Operator(plane, kubelet, "training", script):
        trained = stages.pretrain(*arguments, **where)
    weights, found = weights_of(two_processes), weights_of(trained)
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    capfd.readouterr()
    assert stages.pretrain(*arguments, **where) == trained  # without a request to the cluster
    assert "already there" in capfd.readouterr().err
