"""Causes of failed jobs, from pods and events as the kubelet, the scheduler and the node controller write them."""

from typing import Any

import pytest

from previts.launch.diagnosis import (
    OPERATOR_SECONDS,
    Finding,
    diagnose,
    to_markdown,
    waiting_for,
    waiting_for_operator,
)

JOB: dict[str, Any] = {
    "metadata": {"name": "job", "namespace": "team"},
    "spec": {"pytorchReplicaSpecs": {"Master": {"replicas": 1}, "Worker": {"replicas": 2}}},
    "status": {"conditions": [{"type": "Failed", "status": "True", "message": "the operator's message"}]},
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
    ("pods", "events", "where", "what", "disrupted"),
    [
        ([ended("worker-1", 1, "10:02"), ended("worker-0", 2, "10:01")], [], "worker-0", "exit code 2", False),
        ([ended("master-0", 137, reason="OOMKilled")], [], "master-0", "OOMKilled", False),
        ([ended("master-0", 137)], [], "master-0", "killed by SIGKILL (exit code 137, often out of mem", False),
        ([ended("master-0", 139)], [], "master-0", "killed by SIGSEGV", False),
        # The peers of a lost pod fail before Kubernetes notices that its node is lost.
        ([ended("master-0", 1), pod("worker-0", conditions=[DISRUPTED])], [], "worker-0", "lost its node", True),
        ([ended("master-0", 1)], [event("worker-1", "NodeNotReady")], "job-worker-1", "lost its node", True),
        ([pod("worker-0", phase="Failed", reason="NodeShutdown")], [], "worker-0", "(NodeShutdown)", True),
        ([pod("worker-0", phase="Failed", reason="Terminated", message="shut")], [], "worker-0", "shut", True),
        # The pod used too much itself, so another node would evict it too.
        (
            [pod("worker-0", phase="Failed", reason="Evicted", message="Pod ephemeral storage usage exceeds 1Gi. ")],
            [], "worker-0", "was evicted: Pod ephemeral storage usage exceeds 1Gi.", False,
        ),
        ([ended("worker-0", 0)], [event("worker-0", "Scheduled")], "the job", "the operator's message", False),
        ([], [], "the job", "the operator's message", False),
    ],
)  # fmt: skip
def test_the_cause_is_the_first_failure_or_a_lost_node(pods, events, where, what, disrupted):
    finding = diagnose(JOB, pods, events)
    assert (finding.where, finding.disrupted) == (where, disrupted)
    assert what in finding.what
    assert finding.what == finding.what.strip()


def deletion(replica: str, reason: str = "Killing", at: str = "10:30") -> dict[str, Any]:
    """Return the event of a pod that is being deleted, or that the operator deletes (SuccessfulDeletePod)."""
    when = f"2026-11-27T{at}:00Z"
    if reason == "Killing":
        return {**event(replica, reason, "Stopping container pytorch"), "lastTimestamp": when}
    about = {"kind": "PyTorchJob", "name": "job"}
    return {"involvedObject": about, "reason": reason, "message": f"Deleted pod: job-{replica}", "lastTimestamp": when}


JOINED = {
    **deletion("worker-9", "SuccessfulDeletePod"),
    "message": "(combined from similar events): Deleted pod: job-worker-9",
}
OPERATOR_DELETES_MASTER = [deletion("master-0"), deletion("master-0", "SuccessfulDeletePod")]


@pytest.mark.parametrize(
    ("pods", "events", "where", "disrupted"),
    [
        # The operator deletes the master because the worker is being deleted, before any container has ended.
        ([pod("master-0"), pod("worker-0")], [deletion("worker-0"), *OPERATOR_DELETES_MASTER], "worker-0", True),
        # The processes of the others end after the deletion, with errors of their own.
        ([ended("master-0", 1, "10:31")], [deletion("worker-0"), *OPERATOR_DELETES_MASTER], "worker-0", True),
        # A worker failed, and then its pods are deleted.
        ([ended("worker-0", 2, "10:29")], [deletion("worker-0"), *OPERATOR_DELETES_MASTER], "worker-0", False),
        ([ended("worker-0", 2, "10:29")], OPERATOR_DELETES_MASTER, "worker-0", False),
        ([], OPERATOR_DELETES_MASTER, "the job", False),  # its deadline is over
        # A worker failed, and no event says yet that the operator deletes the master.
        ([ended("worker-0", 2, "10:29")], [deletion("master-0")], "worker-0", False),
        ([ended("worker-0", 2, "10:30")], [deletion("master-0")], "worker-0", False),
        ([ended("worker-0", 143, "10:30")], [deletion("worker-0")], "worker-0", True),  # it ended at once
        # Kubernetes has joined the events of many pods.
        ([pod("worker-0")], [deletion("worker-0"), JOINED], "the job", False),
    ],
)
def test_a_pod_that_another_user_deleted_is_the_cause(pods, events, where, disrupted):
    finding = diagnose(JOB, pods, events)
    assert (finding.where, finding.disrupted) == (where, disrupted)
    assert ("was deleted by another user or program" in finding.what) == disrupted


def test_a_deleted_pod_of_an_earlier_job_or_of_an_elastic_one_is_not_the_cause():
    later = {**JOB, "metadata": {**JOB["metadata"], "creationTimestamp": "2026-11-27T10:31:00Z"}}
    elastic = {**JOB, "spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": 2}}}}
    for job in (later, elastic):
        assert diagnose(job, [], [deletion("worker-0")]).where == "the job"
    assert diagnose(JOB, [], [deletion("worker-0")]).where == "worker-0"


def test_what_a_job_waited_for_until_its_deadline_is_in_the_finding():
    stuck = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    pods = [pod("master-0", containerStatuses=[{"name": "pytorch", "state": stuck}]), pod("worker-0")]
    finding = diagnose(JOB, pods, OPERATOR_DELETES_MASTER)
    assert finding.what == "the operator's message; master-0: ImagePullBackOff: no such image"


def test_the_signal_that_ended_a_training_process_is_in_the_finding():
    report = "Root Cause (first observed failure):\n[0]:\n  rank      : 1\n  exitcode  : -9 (pid: 8)  (SIGKILL)\n"
    finding = diagnose(JOB, [ended("worker-0", 1)], [], {"job-worker-0": report})
    assert finding.what.startswith("ended with exit code 1: a training process was killed by SIGKILL, often because")
    finding = diagnose(JOB, [ended("worker-0", 1)], [], {"job-worker-0": report.replace("-9", "2 ")})
    assert finding.what == "ended with exit code 1"


def test_a_lack_of_memory_names_the_limit_that_was_reached():
    short = ended("master-0", 137, reason="OOMKilled")
    assert "it reached the memory of its node" in diagnose(JOB, [short], []).what
    sidecar = {"name": "proxy", "resources": {"limits": {"memory": "64Mi"}}}
    short["spec"]["containers"] = [sidecar, {"name": "pytorch", "resources": {"limits": {"memory": "150Mi"}}}]
    assert "it reached its limit of 150Mi. Raise limits.memory in the job option" in diagnose(JOB, [short], []).what


def test_a_replica_that_reports_nothing_while_all_others_lost_it_has_lost_its_node():
    pods = [ended("master-0", 1), ended("worker-0", 1), pod("worker-1", phase="Running")]
    lost = "previts: process 0: PeerLostError: another process was lost"
    finding = diagnose(JOB, pods, [], {"job-master-0": lost, "job-worker-0": lost})
    assert (finding.where, finding.disrupted) == ("job-worker-1", True)
    finding = diagnose(JOB, pods, [], {"job-master-0": lost, "job-worker-0": "previts: process 8: broken"})
    assert not finding.disrupted


def test_waiting_for_names_what_each_pod_waits_for():
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


def test_a_job_without_a_condition_for_two_minutes_has_no_operator():
    fresh = {"metadata": JOB["metadata"], "spec": JOB["spec"]}
    assert waiting_for_operator(fresh, OPERATOR_SECONDS - 1) == ""
    said = waiting_for_operator(fresh, OPERATOR_SECONDS)
    assert said.startswith("no training operator has acted on it for 2 minutes")
    for place in (
        "deployment training-operator",
        "logs",
        "crd pytorchjobs.kubeflow.org",
        "-n team describe",
        "namespace",
    ):
        assert place in said
    for state in ("Created", "Suspended", "Running"):  # Kueue keeps a job suspended for hours
        known = {**fresh, "status": {"conditions": [{"type": state, "status": "True"}]}}
        assert waiting_for_operator(known, 10 * OPERATOR_SECONDS) == ""


def test_the_page_has_the_cause_the_replicas_and_the_last_lines_of_the_failed_one():
    pods = [ended("worker-0", 2, phase="Failed"), pod("master-0", phase="Running")]
    logs = {"job-worker-0": "\n".join(f"line {number}" for number in range(50))}
    page = to_markdown(JOB, diagnose(JOB, pods, []), pods, logs)
    assert page.startswith("### PyTorchJob job failed\n\n**worker-0: ended with exit code 2**\n")
    assert page.index("| master-0 | n | Running |  |") < page.index(
        "| worker-0 | n | Failed | ended with exit code 2 |"
    )
    assert page.rstrip().endswith("line 49\n```")
    assert "line 30\n" in page
    assert "line 29\n" not in page


def test_the_page_of_a_finding_without_a_pod_has_no_last_lines():
    assert "Last lines" not in to_markdown(JOB, Finding("", "the job", "gave up"), [], {"job-master-0": "words"})


def test_a_failed_init_container_is_named():
    end = {"exitCode": 1, "finishedAt": "2026-11-27T10:00:00Z", "reason": "Error"}
    waited = pod("worker-0", initContainerStatuses=[{"name": "init-pytorch", "state": {"terminated": end}}])
    finding = diagnose(JOB, [waited], [])
    assert finding.what.startswith("ended with exit code 1 in its init container init-pytorch, which waits for")


def test_a_lack_of_memory_of_an_init_container_names_its_own_limit():
    end = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-11-27T10:30:00Z"}}
    short = pod("worker-0", initContainerStatuses=[{"name": "init-pytorch", "state": end}])
    short["spec"]["initContainers"] = [{"name": "init-pytorch", "resources": {"limits": {"memory": "20Mi"}}}]
    what = diagnose(JOB, [short], []).what
    assert "it reached its limit of 20Mi in its init container init-pytorch" in what
    assert "Raise" not in what


def test_the_pods_of_a_job_whose_deadline_is_over_were_not_deleted_by_others():
    late = {"type": "Failed", "status": "True", "message": "it was active longer than specified deadline"}
    job = {**JOB, "status": {"conditions": [late]}}
    assert diagnose(job, [pod("worker-0")], [deletion("worker-0")]).where == "the job"
