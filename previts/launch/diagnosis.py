"""Why a PyTorchJob failed, or does not start, from what its pods and their events show. Nothing is asked or sent here.

The first thing that went wrong counts, except that a node that was taken explains whatever its neighbours say of it.
"""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from previts.launch import conditions
from previts.launch.pytorchjob import CONTAINER, Manifest

# Why a pod ends that did nothing wrong: words of the kubelet, the node controller, the scheduler and the eviction API.
TAKEN = {
    "Evicted", "Preempted", "Preempting", "NodeLost", "NodeShutdown", "Shutdown", "Terminated", "NodeNotReady",
    "TaintManagerEviction", "PreemptionByScheduler", "DeletionByTaintManager", "EvictionByEvictionAPI",
    "DeletionByPodGC", "TerminationByKubelet", "PreemptionByKubeScheduler",
}  # fmt: skip
# Evictions that would come again: the pod itself used too much of the node.
ITS_OWN_FAULT = ("ephemeral", "low on resource", "usage of", "exceeds")
STUCK = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError",
         "CrashLoopBackOff", "RunContainerError")  # fmt: skip
LOST_PEER = "another process was lost"  # what training says of a neighbour that vanished
INDEX, ROLE = "training.kubeflow.org/replica-index", "training.kubeflow.org/replica-type"
SECOND = len("2026-01-01T00:00:00")  # of times with and without fractions, all of them UTC


@dataclass(frozen=True)
class Finding:
    """One thing that went wrong: when, where, what a person reads, and whether the same job may do well elsewhere."""

    when: str
    where: str
    what: str
    taken: bool = False
    pod: str = ""


def diagnose(
    job: Mapping[str, Any], pods: Sequence[Manifest], events: Sequence[Manifest], said: Mapping[str, str] | None = None
) -> Finding:
    """Return what failed a job.

    Args:
        job: The PyTorchJob.
        pods: Those of its pods that are there.
        events: What was said about both.
        said: The last lines of each pod's log.
    """
    found = [finding for pod in pods for finding in _of_pod(pod)]
    found += [finding for event in events if (finding := _of_event(event)) and not _is_older(finding, job)]
    found.sort(key=lambda finding: finding.when[:SECOND])
    if taken := [finding for finding in found if finding.taken]:
        return taken[0]
    said = said or {}
    if found and all(LOST_PEER in said.get(finding.pod, "") for finding in found):
        ended = {finding.pod for finding in found}
        silent = sorted(set(replicas(job)) - ended)
        if silent:
            return Finding(found[0].when, silent[0], "ended without a word, as with a node that is lost", taken=True)
    if found:
        return found[0]
    condition = conditions.condition(job)
    return Finding("", "the job", str(condition.get("message") or condition.get("reason") or "gave no reason"))


def _is_older(finding: Finding, job: Mapping[str, Any]) -> bool:
    """Return whether something happened to an earlier job of the same name: events outlive what they are about."""
    return "" < finding.when[:SECOND] < str(job["metadata"].get("creationTimestamp", ""))[:SECOND]


def replicas(job: Mapping[str, Any]) -> list[str]:
    """Return the names of the pods that a job has while all is well."""
    name = job["metadata"]["name"]
    specs = job["spec"]["pytorchReplicaSpecs"]
    return [f"{name}-{kind.lower()}-{index}" for kind in specs for index in range(specs[kind].get("replicas", 1))]


def waiting_for(pods: Sequence[Manifest], events: Sequence[Manifest]) -> str:
    """Return what keeps pods from running, or nothing if nothing does."""
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


def to_markdown(
    job: Mapping[str, Any], finding: Finding, pods: Sequence[Manifest], said: Mapping[str, str], lines: int = 20
) -> str:
    """Return an account for a person: the cause, each replica, the last lines of the one at fault."""
    metadata = job["metadata"]
    condition = conditions.condition(job)
    page = [
        f"### PyTorchJob {metadata['name']} failed",
        "",
        f"**{finding.where}: {finding.what}**",
        "",
        f"Namespace {metadata['namespace']}; the operator says: {condition.get('message') or 'nothing'}",
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
    if last := said.get(finding.pod, "").rstrip():
        page += ["", f"Last lines of {finding.where}:", "", "```", *last.splitlines()[-lines:], "```"]
    return "\n".join(page) + "\n"


def _where(pod: Mapping[str, Any]) -> str:
    labels = pod["metadata"].get("labels", {})
    return f"{labels[ROLE]}-{labels.get(INDEX, '0')}" if ROLE in labels else str(pod["metadata"]["name"])


def _of_pod(pod: Manifest) -> list[Finding]:
    """Return what went wrong with a pod."""
    name, where, status = pod["metadata"]["name"], _where(pod), pod.get("status", {})
    found = []
    for item in status.get("conditions", []):
        if item["type"] == "DisruptionTarget" and item["status"] == "True":
            found.append(_taken(item.get("lastTransitionTime") or "", where, name, item))
    if status.get("phase") == "Failed" and status.get("reason") in TAKEN:
        found.append(_taken("", where, name, status))
    for container in status.get("containerStatuses", []):
        if container["name"] != CONTAINER:
            continue
        for state in (container.get("lastState", {}), container.get("state", {})):
            if (end := state.get("terminated")) and end.get("exitCode"):
                found.append(Finding(end.get("finishedAt") or "", where, _end(end), pod=name))
    for container in status.get("initContainerStatuses", []):
        if (end := container.get("state", {}).get("terminated")) and end.get("exitCode"):
            what = f"{_end(end)} in its init container {container['name']}, which waits for the first replica"
            found.append(Finding(end.get("finishedAt") or "", where, what, pod=name))
    return found


def _taken(when: str, where: str, pod: str, why: Mapping[str, Any]) -> Finding:
    reason, message = why.get("reason", ""), why.get("message", "")
    own_fault = any(word in message for word in ITS_OWN_FAULT)
    what = f"was evicted: {message}" if own_fault else f"lost its node ({reason}): {message}".rstrip(": ")
    return Finding(when, where, what, taken=not own_fault, pod=pod)


def _of_event(event: Mapping[str, Any]) -> Finding | None:
    """Return what an event says of a pod that may be gone with its node."""
    about = event["involvedObject"]
    if about.get("kind") != "Pod" or event.get("reason") not in TAKEN:
        return None
    when = event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp") or ""
    return _taken(when, about["name"], about["name"], event)


def _end(terminated: Mapping[str, Any]) -> str:
    """Return what became of a container's process."""
    code, reason = int(terminated["exitCode"]), terminated.get("reason", "")
    if reason == "OOMKilled":
        return "ran out of memory (OOMKilled, exit code 137): fewer loader processes (PREVITS_WORKERS) or more memory"
    if code > 128 and code - 128 in set(signal.Signals):
        hint = ", often for want of memory" if code == 137 else ""
        return f"was killed by {signal.Signals(code - 128).name} (exit code {code}{hint})"
    message = terminated.get("message", "").strip()
    return f"ended with exit code {code}" + (f": {message}" if message else "")
