"""A training of two pods that the step `pretrain` starts: its weights, its outputs and its run in MLflow."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from manifests import Document
from steps import Ended
from trainings import EPOCHS, Trainings

pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class Trained:
    """A finished training: the folder of its checkpoint, its pods while they ran, and how its step ended."""

    uri: str
    pods: dict[str, Document]
    ended: Ended


@pytest.fixture(scope="module")
def trained(trainings: Trainings) -> Iterator[Trained]:
    """A training that nothing disturbs."""
    with trainings.start("undisturbed") as training:
        assert trainings.expected  # the same training on this machine, at the same time
        pods = {replica: training.pod(replica) for replica in ("master-0", "worker-0", "worker-1")}
        yield Trained(training.uri, pods, training.finish())


def test_two_pods_learn_the_weights_of_two_processes_of_one_machine(trainings: Trainings, trained: Trained):
    assert trained.ended.succeeded, trained.ended.log
    model, expected = trainings.model(trained.uri), trainings.expected
    assert model["step"] == expected["step"] == EPOCHS
    assert model["model"].keys() == expected["model"].keys()
    assert not [name for name, value in model["model"].items() if not torch.equal(value, expected["model"][name])]


def test_the_job_has_two_pods_of_one_process_without_rights(trained: Trained):
    assert [replica for replica, pod in trained.pods.items() if pod] == ["master-0", "worker-0"]
    for pod in filter(None, trained.pods.values()):
        (container,) = pod["spec"]["containers"]
        variables = {item["name"]: item.get("value") for item in container["env"]}
        assert (variables["PET_NNODES"], variables["PET_NPROC_PER_NODE"]) == ("2", "1")
        assert pod["spec"]["serviceAccountName"] == "previts-training"
        assert not [volume for volume in pod["spec"]["volumes"] if "projected" in volume]  # no token


def test_the_outputs_of_the_step_describe_the_checkpoint(trained: Trained):
    assert trained.ended.values == {"Output": [trained.uri]}
    page = trained.ended.files["summary"].decode()
    assert page.startswith("### checkpoints ")
    assert f"`{trained.uri}`" in page
    assert f"| steps | {EPOCHS} |" in page
    said = json.loads(trained.ended.files["executor_output.json"])
    (metrics,) = said["artifacts"]["metrics"]["artifacts"]
    assert metrics["metadata"]["steps"] == EPOCHS
    assert metrics["metadata"]["videos"] == 4


def test_mlflow_on_the_node_has_the_run_of_the_job(trainings: Trainings, trained: Trained):
    tags = {
        "previts.checkpoint": trained.uri,
        "previts.pytorchjob": trained.pods["master-0"]["metadata"]["labels"]["training.kubeflow.org/job-name"],
    }
    (run,) = [
        run
        for run in trainings.bucket.mlflow_runs()
        if tags.items() <= {item["key"]: item["value"] for item in run["data"]["tags"]}.items()
    ]
    assert run["info"]["status"] == "FINISHED"
    metrics = {item["key"]: item for item in run["data"]["metrics"]}
    assert metrics["loss"]["step"] == EPOCHS
