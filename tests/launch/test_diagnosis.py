"""Why a job failed: pods and events as the kubelet, the scheduler and the node controller write them."""

from typing import Any

import pytest

from previts.launch import conditions
from previts.launch.diagnosis import Finding, diagnose, to_markdown, waiting_for

JOB: dict[str, Any] = {
    "metadata": {"name": "job", "namespace": "team"},
    "spec": {"pytorchReplicaSpecs": {"Master": {"replicas": 1}, "Worker": {"replicas": 2}}},
    "status": {"conditions": [{"type": "Failed", "status": "True", "message": "the operator's word"}]},
}


def pod(replica: str, **status: Any) -> dict[str, Any]:
    kind, index = replica.rsplit("-", 1)
    labels = {"training.kubeflow.org/replica-type": kind, "training.kubeflow.org/replica-index": index}
    return {"metadata": {"name": f"job-{replica}", "labels": labels}, "spec": {"nodeName": "n"}, "status": status}


def ended(replica: str, code: int, at: str = "10:00", reason: str = "Error", **status: Any) -> dict[str, Any]:
    end = {"exitCode": code, "finishedAt": f"2026-11-27T{at}:00Z", "reason": reason}
    return pod(replica, containerStatuses=[{"name": "pytorch", "state": {"terminated": end}}], **status)


def event(replica: str, reason: str, message: str = "") -> dict[str, Any]:
    about = {"kind": "Pod", "name": f"job-{replica}"}
    return {"involvedObject": about, "reason": reason, "message": message, "lastTimestamp": "2026-11-27T10:30:00Z"}


DISRUPTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "DeletionByTaintManager",
    "lastTransitionTime": None,
}


@pytest.mark.parametrize(
    ("pods", "events", "where", "what", "taken"),
    [
        ([ended("worker-1", 1, "10:02"), ended("worker-0", 2, "10:01")], [], "worker-0", "exit code 2", False),
        ([ended("master-0", 137, reason="OOMKilled")], [], "master-0", "OOMKilled", False),
        ([ended("master-0", 137)], [], "master-0", "killed by SIGKILL (exit code 137, often for want of mem", False),
        ([ended("master-0", 139)], [], "master-0", "killed by SIGSEGV", False),
        # A neighbour's complaint comes before the node is missed.
        ([ended("master-0", 1), pod("worker-0", conditions=[DISRUPTED])], [], "worker-0", "lost its node", True),
        ([ended("master-0", 1)], [event("worker-1", "NodeNotReady")], "job-worker-1", "lost its node", True),
        ([pod("worker-0", phase="Failed", reason="NodeShutdown")], [], "worker-0", "(NodeShutdown)", True),
        ([pod("worker-0", phase="Failed", reason="Terminated", message="shut")], [], "worker-0", "shut", True),
        # Its own doing: the same would come again elsewhere.
        (
            [pod("worker-0", phase="Failed", reason="Evicted", message="Pod ephemeral storage usage exceeds 1Gi")],
            [], "worker-0", "was evicted: Pod ephemeral", False,
        ),
        ([ended("worker-0", 0)], [event("worker-0", "Scheduled")], "the job", "the operator's word", False),
        ([], [], "the job", "the operator's word", False),
    ],
)  # fmt: skip
def test_the_cause_is_found(pods, events, where, what, taken):
    finding = diagnose(JOB, pods, events)
    assert (finding.where, finding.taken) == (where, taken)
    assert what in finding.what


def test_a_replica_that_falls_silent_while_all_others_miss_it_has_lost_its_node():
    pods = [ended("master-0", 1), ended("worker-0", 1), pod("worker-1", phase="Running")]
    missed = "previts: process 0: ConnectionError: another process was lost"
    finding = diagnose(JOB, pods, [], {"job-master-0": missed, "job-worker-0": missed})
    assert (finding.where, finding.taken) == ("job-worker-1", True)
    finding = diagnose(JOB, pods, [], {"job-master-0": missed, "job-worker-0": "previts: process 8: broken"})
    assert not finding.taken


def test_what_pods_wait_for_is_told():
    message = "0/3 nodes are available"
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    pods = [
        pod("master-0", conditions=[{"type": "PodScheduled", "status": "False", "message": message}]),
        pod("worker-0", containerStatuses=[{"name": "pytorch", "state": waiting}]),
        pod("worker-1", phase="Running"),
    ]
    assert waiting_for(pods, []) == f"master-0 finds no node: {message}; worker-0: ImagePullBackOff: no such image"
    refused = {
        "involvedObject": {"kind": "PyTorchJob", "name": "job"},
        "reason": "FailedCreatePod",
        "message": "exceeded quota",
    }
    assert waiting_for([], [refused]) == "exceeded quota"
    assert waiting_for([], []) == ""


def test_the_page_is_markdown_with_the_last_lines_of_the_one_at_fault():
    pods = [ended("worker-0", 2, phase="Failed"), pod("master-0", phase="Running")]
    said = {"job-worker-0": "\n".join(f"line {number}" for number in range(50))}
    page = to_markdown(JOB, diagnose(JOB, pods, []), pods, said)
    assert page.startswith("### PyTorchJob job failed\n\n**worker-0: ended with exit code 2**\n")
    assert page.index("| master-0 | n | Running |  |") < page.index(
        "| worker-0 | n | Failed | ended with exit code 2 |"
    )
    assert page.rstrip().endswith("line 49\n```")
    assert "line 30\n" in page
    assert "line 29\n" not in page


@pytest.mark.parametrize(
    ("held", "name"),
    [
        ([], ""),
        ([("Created", "True")], "Created"),
        ([("Created", "True"), ("Running", "True")], "Running"),
        ([("Created", "True"), ("Running", "False"), ("Restarting", "True")], "Restarting"),
        ([("Created", "True"), ("Running", "True"), ("Restarting", "False")], "Running"),
        ([("Created", "True"), ("Running", "False"), ("Failed", "True")], "Failed"),
        ([("Failed", "False"), ("Succeeded", "True")], "Succeeded"),
        ([("Created", "True"), ("Suspended", "True")], "Suspended"),
    ],
)
def test_only_a_condition_that_holds_counts(held, name):
    job = {"status": {"conditions": [{"type": kind, "status": status} for kind, status in held]}}
    assert conditions.name(job) == name
    assert conditions.is_over(job) == (name in ("Succeeded", "Failed"))


def test_a_finding_without_a_pod_has_no_last_lines():
    assert "Last lines" not in to_markdown(JOB, Finding("", "the job", "gave up"), [], {"job-master-0": "words"})


def test_a_replica_whose_wait_for_the_first_ended_is_told():
    end = {"exitCode": 1, "finishedAt": "2026-11-27T10:00:00Z", "reason": "Error"}
    waited = pod("worker-0", initContainerStatuses=[{"name": "init-pytorch", "state": {"terminated": end}}])
    finding = diagnose(JOB, [waited], [])
    assert finding.what.startswith("ended with exit code 1 in its init container init-pytorch, which waits for")
