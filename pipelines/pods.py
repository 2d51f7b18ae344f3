"""The pods of a run that have not succeeded, with the reasons that Kubernetes gives and the ends of their logs."""

from typing import Any

from previts.errors import InputError

RUN_LABEL, STEP_LABEL, NODE_NOTE = "pipeline/runid", "previts/step", "workflows.argoproj.io/node-name"
LAST = "close-run"  # the step whose log says which steps failed and why
SHOWN, LINES = 5, 30  # pods, and lines of each log
PHASES = ("Failed", "Unknown", "Pending", "Running")  # in the order in which their pods are shown


def describe(run_id: str, namespace: str) -> list[str]:
    """Return lines about the pods of a run that have not succeeded, or one line that says why they cannot be read."""
    import urllib3
    from kubernetes import client

    from previts.launch import cluster

    by_hand = f"kubectl -n {namespace} get pods -l {RUN_LABEL}={run_id}"
    try:
        core = client.CoreV1Api(cluster.connect(namespace).api)
    except InputError:
        return [f"no kubeconfig was found, so the pods are not shown: {by_hand}"]
    try:
        found = core.list_namespaced_pod(namespace, label_selector=f"{RUN_LABEL}={run_id}", _request_timeout=60).items
    except (client.ApiException, urllib3.exceptions.HTTPError) as error:
        return [f"the pods cannot be read ({str(error)[:200].strip()}): {by_hand}"]
    if not found:
        return [f"the run has no pods in namespace {namespace}: they were not created, or are deleted already"]
    stuck = [pod for phase in PHASES for pod in found if pod.status.phase == phase]
    shown = stuck[:SHOWN] + [pod for pod in found if _step(pod) == LAST and pod not in stuck]
    lines = [f"pods of the run: {len(found)}, of which {len(stuck)} have not succeeded"]
    for pod in shown:
        lines.append(f"pod {pod.metadata.name} ({_step(pod)}): {pod.status.phase}{_reasons(pod)}")
        lines += [f"  | {line}" for line in _log(core, pod)]
    return lines


def _step(pod: Any) -> str:
    """Return the step of a pod, or the name of its node in Argo's workflow: drivers have no label of a step."""
    node = (pod.metadata.annotations or {}).get(NODE_NOTE, "").rsplit(".", 1)[-1]
    return str((pod.metadata.labels or {}).get(STEP_LABEL) or node or "?")


def _reasons(pod: Any) -> str:
    """Return what Kubernetes says of a pod and its containers, as `; text` each."""
    found = [pod.status.message or pod.status.reason or ""]
    found += [
        f"{item.reason}: {item.message}" for item in pod.status.conditions or [] if item.reason == "Unschedulable"
    ]
    for status in [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]:
        ended, waiting = status.state.terminated, status.state.waiting
        if ended and ended.exit_code:
            found.append(
                f"{status.name} ended with code {ended.exit_code} ({ended.reason}) {ended.message or ''}".strip()
            )
        if waiting and waiting.reason != "PodInitializing":
            found.append(f"{status.name} waits ({waiting.reason}) {waiting.message or ''}")
    return "".join(f"; {text.strip()}" for text in found if text)


def _log(core: Any, pod: Any) -> list[str]:
    """Return the last lines of the log of a pod's main container; empty if it has not started."""
    import urllib3
    from kubernetes import client

    try:
        answer = core.read_namespaced_pod_log(
            pod.metadata.name,
            pod.metadata.namespace,
            container="main",
            tail_lines=LINES,
            _preload_content=False,
            _request_timeout=60,
        )
    except (client.ApiException, urllib3.exceptions.HTTPError):
        return []
    return answer.data.decode(errors="replace").splitlines()
