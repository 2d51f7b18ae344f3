"""What a training on the node loses, what its step then says, and how it continues.

One node cannot be lost. What a lost node does to a pod comes from a taint here, which evicts the pod in the same way.
"""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from manifests import Document
from node import Node, NodeError
from steps import SPACE
from trainings import ENDLESS, EPOCHS, TOTALS, Training, Trainings, until

pytestmark = pytest.mark.cluster

REPLICAS = ("master-0", "worker-0")
TAINT, ROOM = "previts.test/reclaimed", "training-room"
MISSING = "previts/previts-train:missing"
SUSPEND, EXPIRED = '{"spec": {"suspend": %s}}', "previts/lease-until=2020-01-01T00:00:00Z"
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


def spare_others(node: Node, pod: str) -> None:
    """Let all pods but one tolerate the taint of `tainted`."""
    toleration = {"key": TAINT, "operator": "Exists"}

    def tolerate(item: Document) -> None:
        patch = {"spec": {"tolerations": [*item["spec"].get("tolerations", []), toleration]}}
        where = ("pod", item["metadata"]["name"], "-n", item["metadata"]["namespace"])
        try:
            node.kubectl("patch", *where, "-p", json.dumps(patch))
        except NodeError as fault:
            if "NotFound" not in str(fault):
                raise

    others = json.loads(node.kubectl("get", "pods", "-A", "-o", "json"))["items"]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tolerate, [item for item in others if item["metadata"]["name"] != pod]))


@contextmanager
def tainted(node: Node) -> Iterator[None]:
    """Evict the pods of the node that do not tolerate a taint, as the loss of the node would."""
    (machine,) = json.loads(node.kubectl("get", "nodes", "-o", "json"))["items"]
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
            node.kubectl("drain", machine, chosen, "--delete-emptydir-data", "--timeout=10s")
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
    # Whether the launcher can delete its job depends on the time that the executor leaves to it after SIGTERM.
    running.step.until(f"PyTorchJob {SPACE}/{running.name} is ")
    log = running.step.until("pretrain:")
    assert "is adopted" in log or int(TOTALS.findall(log)[-1]) < ENDLESS


def test_a_training_whose_worker_was_deleted_is_submitted_again_and_resumes(running: Training):
    job = running.job()["metadata"]["uid"]
    running.kubectl("delete", "pod", f"{running.name}-worker-0")
    log = until(lambda: TOTALS.search(running.step.log().partition("attempt 1 has failed")[2]), running.step.describe)
    assert int(log[1]) < ENDLESS
    assert "**worker-0: was deleted by another user or program**" in running.step.log()
    assert running.job()["metadata"]["uid"] != job


def test_a_killed_worker_of_a_rigid_job_is_the_cause_on_the_page(running: Training):
    kill(running, f"{running.name}-worker-0")
    ended = running.finish()
    assert not ended.succeeded
    assert f"### PyTorchJob {running.name} failed" in ended.log
    cause = (
        "ended with exit code 1: a training process was killed by SIGKILL, often because the container is out of memory"
    )
    assert f"**worker-0: {cause}**" in ended.log


def test_a_worker_with_too_little_memory_names_its_limit(trainings: Trainings):
    limits = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "150Mi"}}
    with trainings.start("memory", f"resources={json.dumps(limits)}", epochs=ENDLESS) as training:
        ended = training.finish()
    assert not ended.succeeded
    assert "ran out of memory (OOMKilled, exit code 137): it reached its limit of 150Mi" in ended.log
    assert "Raise limits.memory in the job option resources" in ended.log


def test_a_pod_that_fills_its_volume_is_evicted_and_its_job_is_not_submitted_again(trainings: Trainings):
    volume, mount = {"name": "tmp", "emptyDir": {"sizeLimit": "4Mi"}}, {"name": "tmp", "mountPath": "/tmp"}
    job = (f"volumes={json.dumps([volume])}", f"volume_mounts={json.dumps([mount])}")
    with trainings.start("volume", *job, epochs=ENDLESS) as training:
        training.step.until(f"PyTorchJob {training.name}: Running")
        training.kubectl("exec", f"{training.name}-master-0", "--", "python", "-c", FILL)
        ended = training.finish()
    assert not ended.succeeded
    assert '**master-0: was evicted: Usage of EmptyDir volume "tmp" exceeds the limit "4Mi".**' in ended.log
    assert ended.log.count("is submitted") == 1


def test_a_missing_image_is_named_while_the_step_waits_and_on_its_page(trainings: Trainings):
    with trainings.start("late", f"image={MISSING}", "deadline_seconds=60") as training:
        # The kubelet tries again after pauses: ErrImagePull at a try, ImagePullBackOff in a pause.
        log = training.step.until(f"PyTorchJob {training.name}: Created, master-0: ")
        ended = training.finish()
    assert MISSING in log
    assert not ended.succeeded
    page = ended.log[ended.log.index(f"### PyTorchJob {training.name} failed") :]
    assert "deadline" in page
    assert re.search(r"master-0: (ErrImagePull|ImagePullBackOff): .*previts-train:missing", page)


@pytest.fixture(scope="module")
def crowded(node: Node, trainings: Trainings) -> Iterator[Training]:
    """A training whose pods are refused, because a quota of their own has no room."""
    form = {"metadata": {"name": ROOM}, "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 0}
    node.apply(form, quota(0))
    try:
        node.kubectl("wait", f"quota/{ROOM}", "-n", SPACE, "--for=jsonpath={.status.hard.pods}=0")
        with trainings.start("crowded", f"priority_class={ROOM}", epochs=ENDLESS) as training:
            yield training
    finally:
        node.kubectl("delete", f"priorityclass/{ROOM}")
        node.kubectl("delete", f"quota/{ROOM}", "-n", SPACE)


def quota(pods: int) -> Document:
    """Return a quota for the pods of one priority class."""
    chosen = {"operator": "In", "scopeName": "PriorityClass", "values": [ROOM]}
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": ROOM, "namespace": SPACE},
        "spec": {"hard": {"pods": str(pods)}, "scopeSelector": {"matchExpressions": [chosen]}},
    }


def test_a_job_without_room_says_so_and_starts_when_there_is_room(node: Node, crowded: Training):
    crowded.step.until(f"exceeded quota: {ROOM}")
    assert not crowded.pod("master-0")
    node.apply(quota(10))
    crowded.step.until(f"PyTorchJob {crowded.name}: Running")


def test_a_job_that_another_user_deletes_is_reported(crowded: Training):
    crowded.kubectl("delete", "pytorchjob", crowded.name)
    ended = crowded.finish()
    assert not ended.succeeded
    assert f"PyTorchJob {SPACE}/{crowded.name} was deleted by another user or program while it ran" in ended.log
    assert "the same command resumes the run" in ended.log


def test_the_reaper_deletes_the_job_of_a_launcher_that_does_not_come_back(trainings: Trainings):
    with trainings.start("abandoned", f"image={MISSING}") as training:
        assert training.name
        kill_launcher(training)
        training.kubectl("patch", "cronjob", "previts-reaper", "-p", SUSPEND % "true")  # else it may come first
        try:
            assert training.name not in reap(training)  # its lease still holds
            training.kubectl("annotate", "--overwrite", "pytorchjob", training.name, EXPIRED)
            assert training.name in reap(training)
        finally:
            training.kubectl("patch", "cronjob", "previts-reaper", "-p", SUSPEND % "false")
        until(lambda: not training.job())


def reap(training: Training) -> str:
    """Run the reaper once, and return what it says."""
    name = f"reap-{time.time_ns():x}"
    training.kubectl("create", "job", name, "--from=cronjob/previts-reaper")
    try:
        training.kubectl("wait", f"job/{name}", "--for=condition=Complete", "--timeout=100s")
        return training.kubectl("logs", f"job/{name}")
    finally:
        training.kubectl("delete", "job", name)


def test_a_spot_training_replaces_reclaimed_workers_and_ends_with_the_same_weights(node: Node, trainings: Trainings):
    with trainings.start("spot", "spot=true") as training:
        lost = f"{training.name}-worker-1"
        before = until(lambda: training.pod("worker-1"))["metadata"]["uid"]
        until(lambda: training.pod("worker-0"))
        spare_others(node, lost)
        training.until_trains()  # so that it resumes also if there is no time to save the last step
        with tainted(node):
            until(lambda: training.pod("worker-1").get("metadata", {}).get("uid", before) != before)
        chosen = f"--field-selector=reason=TaintManagerEviction,involvedObject.name={lost}"
        assert training.kubectl("get", "events", chosen, "-o", "name")
        uri, ended = training.uri, training.finish()
        assert ended.succeeded, ended.log
        totals = [int(total) for total in TOTALS.findall(ended.log)]
        assert totals[0] == EPOCHS
        assert 0 < totals[-1] < EPOCHS
        model, expected = trainings.model(uri)["model"], trainings.expected["model"]
    assert not [name for name, value in model.items() if not torch.equal(value, expected[name])]
