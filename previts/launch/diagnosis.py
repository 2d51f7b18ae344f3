"""The diagnosis of a PyTorchJob that failed or does not start, from its pods and their events, without API requests.

The first failure is the cause. The exceptions are a lost node and a deleted pod: they are the cause, whatever errors
their peers report.
"""

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from previts.launch import conditions
from previts.launch.pytorchjob import CONTAINER, Manifest

# Reasons for the end of a pod that are not its own fault, as written by the kubelet, the node controller, the
# scheduler and the eviction API.
DISRUPTIONS = {
    "Evicted", "Preempted", "Preempting", "NodeLost", "NodeShutdown", "Shutdown", "Terminated", "NodeNotReady",
    "TaintManagerEviction", "PreemptionByScheduler", "DeletionByTaintManager", "EvictionByEvictionAPI",
    "DeletionByPodGC", "TerminationByKubelet", "PreemptionByKubeScheduler",
}  # fmt: skip
# Parts of the message of an eviction that would happen again: the pod itself used too much of the node.
OWN_FAULT = ("ephemeral", "low on resource", "usage of", "exceeds")
STUCK = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError",
         "CrashLoopBackOff", "RunContainerError")  # fmt: skip
LOST_PEER = "another process was lost"  # part of the message that `processes.distributed` raises in the other processes
SIGNALLED = re.compile(r"^ *exitcode *: -(\d+)", re.MULTILINE)  # in torchrun's report about its processes
LAST_LINES = 20  # of a log, in the page for the user
OPERATOR_SECONDS = 120.0  # within which the operator sets the first condition of a job
INDEX, ROLE = "training.kubeflow.org/replica-index", "training.kubeflow.org/replica-type"
SECOND = len("2026-01-01T00:00:00")  # compares times up to the second; all are UTC, some have fractions


@dataclass(frozen=True)
class Finding:
    """One failure.

    Attributes:
        when: Time in ISO format, or an empty text if it is not known.
        where: The replica, or "the job".
        what: Description for the user.
        disrupted: Whether the cause is outside the pod, such as a lost node. The same job can succeed when it is
            submitted again.
        pod: Name of the pod, if the failure belongs to one.
    """

    when: str
    where: str
    what: str
    disrupted: bool = False
    pod: str = ""


def diagnose(
    job: Mapping[str, Any],
    pods: Sequence[Manifest],
    events: Sequence[Manifest],
    logs: Mapping[str, str] | None = None,
    before: Sequence[Manifest] = (),
) -> Finding:
    """Return the cause of a job's failure.

    Args:
        job: The PyTorchJob.
        pods: Its pods, as far as they are known.
        events: The events of the job and its pods.
        logs: The last lines of the log of each pod, by name.
        before: The pods before the end of the job, which tell what they waited for until then.
    """
    found = [finding for pod in pods for finding in _of_pod(pod)]
    found += [finding for event in events if (finding := _of_event(event)) and not _is_older(finding, job)]
    found.sort(key=lambda finding: finding.when[:SECOND])
    if disrupted := [finding for finding in found if finding.disrupted]:
        return disrupted[0]
    if deleted := _deletions(job, events, found):
        return deleted[0]
    logs = logs or {}
    if found and all(LOST_PEER in logs.get(finding.pod, "") for finding in found):
        ended = {finding.pod for finding in found}
        silent = sorted(set(replicas(job)) - ended)
        if silent:
            what = "reported nothing, and all its peers lost it: its node was probably lost"
            return Finding(found[0].when, silent[0], what, disrupted=True)
    if found:
        return _with_signal(found[0], logs.get(found[0].pod, ""))
    condition = conditions.condition(job)
    what = str(condition.get("message") or condition.get("reason") or "gave no reason")
    waiting = waiting_for(before or pods, events)
    return Finding("", "the job", f"{what}; {waiting}" if waiting else what)


def _with_signal(finding: Finding, log: str) -> Finding:
    """Return a finding with the signal that ended a training process, if torchrun reports one; its own code is 1."""
    if not (match := SIGNALLED.search(log)) or int(match[1]) not in set(signal.Signals):
        return finding
    name = signal.Signals(int(match[1])).name
    hint = ", often because the container is out of memory" if name == "SIGKILL" else ""
    return replace(finding, what=f"{finding.what}: a training process was killed by {name}{hint}")


def _deletions(job: Mapping[str, Any], events: Sequence[Manifest], found: Sequence[Finding]) -> list[Finding]:
    """Return the pods of a rigid job that another user or program deleted before any pod failed, by time.

    The operator counts a pod as failed as soon as it is being deleted, and deletes the others, often before the
    container has ended. Then only events say which pod was deleted first. Kubernetes joins many similar events to one
    that names one pod; then nothing is known.
    """
    if "Master" not in job["spec"]["pytorchReplicaSpecs"]:
        return []  # the operator replaces the pods of an elastic job
    current = [event for event in events if not _is_older(Finding(_when(event), "", ""), job)]
    messages = [str(event.get("message", "")) for event in current if event.get("reason") == "SuccessfulDeletePod"]
    if any("combined from similar events" in message for message in messages):
        return []
    if "deadline" in str(conditions.condition(job).get("message", "")):
        return []  # the operator deleted all pods
    by_operator = {message.rpartition(" ")[2] for message in messages}
    deleted = []
    for event in current:
        pod, when = str(event["involvedObject"].get("name", "")), _when(event)
        others = event.get("reason") == "Killing" and pod in replicas(job) and pod not in by_operator
        if others and not any(_came_first(finding, pod, when) for finding in found):
            where = pod.removeprefix(f"{job['metadata']['name']}-")
            deleted.append(Finding(when, where, "was deleted by another user or program", disrupted=True, pod=pod))
    return sorted(deleted, key=lambda finding: finding.when[:SECOND])


def _came_first(failure: Finding, pod: str, deletion: str) -> bool:
    """Return whether a failure is the reason for which a pod was deleted; another pod's in the same second is."""
    return failure.when[:SECOND] < deletion[:SECOND] or (
        failure.pod != pod and failure.when[:SECOND] == deletion[:SECOND]
    )


def _is_older(finding: Finding, job: Mapping[str, Any]) -> bool:
    """Return whether a finding is about an earlier job with the same name, because events remain after a deletion."""
    return "" < finding.when[:SECOND] < str(job["metadata"].get("creationTimestamp", ""))[:SECOND]


def replicas(job: Mapping[str, Any]) -> list[str]:
    """Return the names of all pods that a job is specified to have."""
    name = job["metadata"]["name"]
    specs = job["spec"]["pytorchReplicaSpecs"]
    return [f"{name}-{kind.lower()}-{index}" for kind in specs for index in range(specs[kind].get("replicas", 1))]


def waiting_for(pods: Sequence[Manifest], events: Sequence[Manifest]) -> str:
    """Return what keeps the pods from running, or an empty text."""
    reasons = []
    for pod in pods:
        for item in pod.get("status", {}).get("conditions", []):
            if item["type"] == "PodScheduled" and item["status"] == "False":
                reasons.append(f"{_where(pod)} finds no node: {item.get('message', item.get('reason', ''))}")
        for status in pod.get("status", {}).get("containerStatuses", []):
            if (waiting := status.get("state", {}).get("waiting", {})).get("reason") in STUCK:
                reasons.append(f"{_where(pod)}: {waiting['reason']}: {waiting.get('message', '')}")
    if not pods:
        reasons += [str(event.get("message", "")) for event in events if event.get("reason") == "FailedCreatePod"][-1:]
    return "; ".join(dict.fromkeys(reasons))


def waiting_for_operator(job: Mapping[str, Any], seconds: float) -> str:
    """Return what to look at if the operator has not acted on a job for long, or an empty text.

    Args:
        job: The PyTorchJob.
        seconds: For how long the job has been seen without a condition.
    """
    if conditions.name(job) or seconds < OPERATOR_SECONDS:
        return ""
    metadata = job["metadata"]
    return (
        f"no training operator has acted on it for {OPERATOR_SECONDS / 60:.0f} minutes. Check that it runs and "
        "has the namespace of the job: kubectl -n kubeflow get deployment training-operator -o yaml (its arguments may "
        "limit it to one namespace or leave out PyTorchJobs); its logs: kubectl -n kubeflow logs "
        "deployment/training-operator; the resource definition: kubectl get crd pytorchjobs.kubeflow.org; the job: "
        f"kubectl -n {metadata.get('namespace', 'default')} describe pytorchjob {metadata['name']}. The step waits on"
    )


def to_markdown(job: Mapping[str, Any], finding: Finding, pods: Sequence[Manifest], logs: Mapping[str, str]) -> str:
    """Return a page for the user: the cause, a table of the replicas, and the last lines of the failed one."""
    metadata = job["metadata"]
    condition = conditions.condition(job)
    page = [
        f"### PyTorchJob {metadata['name']} failed",
        "",
        f"**{finding.where}: {finding.what}**",
        "",
        f"Namespace {metadata['namespace']}; message of the operator: {condition.get('message') or 'none'}",
        "",
        "| replica | node | phase | end |",
        "|---|---|---|---|",
    ]
    for pod in sorted(pods, key=_where):
        ends = [item.what for item in _of_pod(pod)]
        status = pod.get("status", {})
        page.append(
            f"| {_where(pod)} | {pod['spec'].get('nodeName', '')} | {status.get('phase', '')} | {'; '.join(ends)} |"
        )
    if last := logs.get(finding.pod, "").rstrip():
        page += ["", f"Last lines of {finding.where}:", "", "```", *last.splitlines()[-LAST_LINES:], "```"]
    return "\n".join(page) + "\n"


def _where(pod: Mapping[str, Any]) -> str:
    labels = pod["metadata"].get("labels", {})
    return f"{labels[ROLE]}-{labels.get(INDEX, '0')}" if ROLE in labels else str(pod["metadata"]["name"])


def _of_pod(pod: Manifest) -> list[Finding]:
    """Return the failures of a pod."""
    name, where, status = pod["metadata"]["name"], _where(pod), pod.get("status", {})
    found = []
    for item in status.get("conditions", []):
        if item["type"] == "DisruptionTarget" and item["status"] == "True":
            found.append(_disruption(item.get("lastTransitionTime") or "", where, name, item))
    if status.get("phase") == "Failed" and status.get("reason") in DISRUPTIONS:
        found.append(_disruption("", where, name, status))
    for container in status.get("containerStatuses", []):
        if container["name"] != CONTAINER:
            continue
        for state in (container.get("lastState", {}), container.get("state", {})):
            if (end := state.get("terminated")) and end.get("exitCode"):
                found.append(Finding(end.get("finishedAt") or "", where, _end(end, _memory(pod, CONTAINER)), pod=name))
    for container in status.get("initContainerStatuses", []):
        if (end := container.get("state", {}).get("terminated")) and end.get("exitCode"):
            how = _end(end, _memory(pod, container["name"]), trains=False)
            what = f"{how} in its init container {container['name']}, which waits for the first replica"
            found.append(Finding(end.get("finishedAt") or "", where, what, pod=name))
    return found


def _disruption(when: str, where: str, pod: str, why: Mapping[str, Any]) -> Finding:
    """Return the finding of a pod that was ended from outside, from its status, condition or event."""
    reason, message = why.get("reason", ""), why.get("message", "").strip()
    own_fault = any(part in message for part in OWN_FAULT)
    what = f"was evicted: {message}" if own_fault else f"lost its node ({reason}): {message}".rstrip(": ")
    return Finding(when, where, what, disrupted=not own_fault, pod=pod)


def _of_event(event: Mapping[str, Any]) -> Finding | None:
    """Return the failure that an event reports. It may be all that remains of a pod whose node was lost."""
    about = event["involvedObject"]
    if about.get("kind") != "Pod" or event.get("reason") not in DISRUPTIONS:
        return None
    return _disruption(_when(event), about["name"], about["name"], event)


def _when(event: Mapping[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp") or "")


def _memory(pod: Manifest, name: str) -> str:
    """Return the memory limit of a container, or an empty text."""
    listed = [*pod["spec"].get("containers", []), *pod["spec"].get("initContainers", [])]
    limits = [item.get("resources", {}).get("limits", {}) for item in listed if item.get("name") == name]
    return str(limits[0].get("memory", "")) if limits else ""


def _end(terminated: Mapping[str, Any], memory: str, *, trains: bool = True) -> str:
    """Return how the process of a container ended.

    Args:
        terminated: The end of the container.
        memory: Its memory limit, or an empty text.
        trains: Whether it is the container that trains.
    """
    code, reason = int(terminated["exitCode"]), terminated.get("reason", "")
    if reason == "OOMKilled":
        limit = f"its limit of {memory}" if memory else "the memory of its node"
        what = f"ran out of memory (OOMKilled, exit code {code}): it reached {limit}"
        advice = "Raise limits.memory in the job option resources, or use fewer loader processes (PREVITS_WORKERS)"
        return f"{what}. {advice}" if trains else what
    if code > 128 and code - 128 in set(signal.Signals):
        hint = ", often out of memory" if code == 137 else ""
        return f"was killed by {signal.Signals(code - 128).name} (exit code {code}{hint})"
    message = terminated.get("message", "").strip()
    return f"ended with exit code {code}" + (f": {message}" if message else "")
