"""What a training on the node loses, what its step then says, and how it continues.

One node cannot be lost. What a lost node does to a pod comes from a taint here, which evicts the pod in the same way.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from manifests import Document
from node import Node, NodeError
from probes import wait_for
from steps import SPACE
from trainings import ENDLESS, TOTALS, Training, Trainings, until

pytestmark = pytest.mark.cluster

REPLICAS = ("master-0", "worker-0")
TAINT, ROOM = "previts.test/reclaimed", "training-room"
MISSING = "previts/previts-train:missing"
# Run in a container: kills all of its processes but the first, which the kernel protects from its own container.
KILL = """
import os
for name in os.listdir("/proc"):
    if name.isdigit() and int(name) not in (1, os.getpid()):
        os.kill(int(name), 9)
"""
FILL = "open('/tmp/big', 'wb').write(bytes(8 << 20))"


def ids(training: Training) -> list[str]:
    """Return the uids of the pods of a training."""
    return [training.pod(replica)["metadata"]["uid"] for replica in REPLICAS]


def kill(training: Training, pod: str) -> None:
    """Kill the work in a pod, as the kernel does when memory is short."""
    training.kubectl("exec", pod, "--", "python", "-c", KILL)


def kill_launcher(training: Training) -> None:
    """Kill the launcher, and wait for the end of its pod."""
    kill(training, training.step.pods()[-1]["metadata"]["name"])
    training.kubectl("wait", f"job/{training.step.name}", "--for=condition=Failed", "--timeout=60s")


@contextmanager
def tainted(node: Node, pod: str) -> Iterator[None]:
    """Evict one pod from its node as a node that is lost does: by a taint, which all other pods tolerate."""
    (machine,) = json.loads(node.kubectl("get", "nodes", "-o", "json"))["items"]
    toleration = {"key": TAINT, "operator": "Exists"}
    for item in json.loads(node.kubectl("get", "pods", "-A", "-o", "json"))["items"]:
        if item["metadata"]["name"] != pod:
            patch = {"spec": {"tolerations": [*item["spec"].get("tolerations", []), toleration]}}
            where = ("pod", item["metadata"]["name"], "-n", item["metadata"]["namespace"])
            node.kubectl("patch", *where, "-p", json.dumps(patch))
    name = machine["metadata"]["name"]
    node.kubectl("taint", "node", name, f"{TAINT}=yes:NoExecute")
    try:
        yield
    finally:
        node.kubectl("taint", "node", name, f"{TAINT}-")


@pytest.fixture(scope="module")
def running(trainings: Trainings) -> Iterator[Training]:
    """A training that does not end by itself. The tests disturb it in their order, and the last one ends it."""
    with trainings.start("running", epochs=ENDLESS) as training:
        training.until_trains()
        yield training


def test_draining_the_node_leaves_a_training_alone(node: Node, running: Training):
    before = ids(running)
    machine = running.pod("master-0")["spec"]["nodeName"]
    chosen = f"--pod-selector=training.kubeflow.org/job-name={running.name}"
    try:
        with pytest.raises(NodeError, match="would violate the pod's disruption budget"):
            node.kubectl("drain", machine, chosen, "--delete-emptydir-data", "--timeout=2s")
    finally:
        node.kubectl("uncordon", machine)
    assert ids(running) == before
    assert [running.pod(replica)["status"]["phase"] for replica in REPLICAS] == ["Running", "Running"]


def test_the_next_attempt_of_a_killed_launcher_takes_over_its_job(running: Training):
    job, before = running.job()["metadata"]["uid"], ids(running)
    kill_launcher(running)
    running.again()
    running.step.until(f"PyTorchJob {SPACE}/{running.name} is adopted")
    running.step.until("pretrain:")  # the log of the job
    assert (running.job()["metadata"]["uid"], ids(running)) == (job, before)


def test_an_evicted_launcher_is_reported_and_the_next_attempt_continues_its_training(running: Training):
    pod = running.step.pods()[-1]["metadata"]["name"]
    assert running.evict(pod) == ""
    conditions = {item["type"]: item for item in running.step.pods()[-1]["status"]["conditions"]}
    assert conditions["DisruptionTarget"]["reason"] == "EvictionByEvictionAPI"
    running.kubectl("wait", f"job/{running.step.name}", "--for=condition=Failed", "--timeout=60s")
    running.again()
    # The launcher deletes its job if it lives long enough after SIGTERM; the executor of Argo waits for a second.
    running.step.until(f"PyTorchJob {SPACE}/{running.name} is ")
    log = running.step.until("pretrain:")
    assert "is adopted" in log or int(TOTALS.findall(log)[-1]) < ENDLESS


def test_a_killed_worker_of_a_rigid_job_is_the_cause_on_the_page(running: Training):
    kill(running, f"{running.name}-worker-0")
    ended = running.finish()
    assert not ended.succeeded
    assert f"### PyTorchJob {running.name} failed" in ended.log
    assert "**worker-0: " in ended.log
    assert "SIGKILL" in ended.log
