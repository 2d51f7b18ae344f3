"""An `AppDef` and the options of a cluster as a PyTorchJob (kubeflow.org/v1): no question is asked, nothing is sent.

Two forms. Rigid: a Master and Workers, which start together and end together. On spot nodes: Workers alone, elastic in
name, with as many at most as at least, because the batch, batch normalisation and the learning rate are those of a
fixed size; a node that was taken is waited for.
"""

import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from torchx.specs import AppDef, Role, macros

from previts.errors import InputError
from previts.launch.app import TARGET
from previts.launch.options import JobOptions
from previts.processes.workers import STARTED_BY, WHOLE
from previts.storage import fingerprints

GROUP, VERSION, PLURAL, KIND = "kubeflow.org", "v1", "pytorchjobs", "PyTorchJob"
CONTAINER = "pytorch"  # the operator looks for a container of this name
LABEL = "app.kubernetes.io/managed-by"
SPEC_HASH, TARGET_NOTE = "previts/spec-hash", "previts/target"
LEASE, LAUNCHER = "previts/lease-until", "previts/launcher"  # until when a job may go on without word from whom
NAME_LENGTH = 40  # leaves room for the names of pods and of their services, 63 at most
PORT = 23456
JOIN_SECONDS = 3600
HERE = (STARTED_BY, WHOLE, "OMP_NUM_THREADS")  # about the machine that launches
# Taints of nodes that are sold cheaply and taken back; a cluster that has none of these loses nothing.
SPOT_TOLERATIONS = [{"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}]
# A job's specification can be read by more people than a secret can.
SECRET = re.compile(r"(PASSWORD|TOKEN|SECRET|KEY)$")

Manifest = dict[str, Any]

CONFINED: Manifest = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def materialise(app: AppDef, options: JobOptions, owner: Mapping[str, Any] | None = None) -> Manifest:
    """Return the PyTorchJob of an app.

    Args:
        app: A program of one role, whose replicas are the nodes.
        options: What the cluster is asked for.
        owner: Reference to what the job is to vanish with, such as the pipeline's run.

    Raises:
        InputError: If the app has more than one role, or no image of a container.
    """
    if len(app.roles) != 1:
        raise InputError(f"a PyTorchJob runs one role, and {app.name} has {[role.name for role in app.roles]}")
    name = job_name(app)
    rank0 = f"{name}-worker-0" if options.spot else f"{name}-master-0"
    values = macros.Values(img_root="", app_id=name, replica_id="$(PET_NODE_RANK)", rank0_env="MASTER_ADDR")
    role = values.apply(app.roles[0])
    if not role.image or role.image.startswith("/"):
        raise InputError("a PyTorchJob needs a container image; give it by --job image=REGISTRY/NAME:TAG")
    pod = _pod(role, options, {"MASTER_ADDR": rank0} if options.spot else {})
    spec = _elastic(name, role.num_replicas, pod, options) if options.spot else _rigid(role.num_replicas, pod)
    spec["nprocPerNode"] = str(max(1, role.resource.gpu))
    policy: Manifest = {
        "cleanPodPolicy": "Running",  # else survivors of a failure keep their GPUs
        "ttlSecondsAfterFinished": options.ttl_seconds,
    }
    if options.spot:  # the rigid form must have none: past it the operator deletes all pods, and what they could tell
        policy["backoffLimit"] = options.restarts
    if options.deadline_seconds:
        policy["activeDeadlineSeconds"] = options.deadline_seconds
    spec["runPolicy"] = policy
    metadata: Manifest = {
        "name": name,
        "labels": {LABEL: "previts", **({"kueue.x-k8s.io/queue-name": options.queue} if options.queue else {})},
        "annotations": {SPEC_HASH: spec_hash(spec), **({TARGET_NOTE: target} if (target := _target(app)) else {})},
    }
    if options.namespace:
        metadata["namespace"] = options.namespace
    if owner:
        metadata["ownerReferences"] = [dict(owner)]
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": metadata, "spec": spec}


def _target(app: AppDef) -> str:
    return str(app.metadata.get(TARGET, ""))


def job_name(app: AppDef) -> str:
    """Return the one name of a job (DNS-1035): of what it writes, so that no two ever write the same at once."""
    role = app.roles[0]
    decided = _target(app) or [role.name, role.args]
    label = re.sub(r"[^a-z0-9]+", "-", app.name.lower()).strip("-")
    label = label if label[:1].isalpha() else f"job-{label}"
    return f"{label[: NAME_LENGTH - 13].rstrip('-')}-{fingerprints.fingerprint({'job': decided})}"


def spec_hash(spec: Mapping[str, Any]) -> str:
    """Return a digest of what a job does and where; the environment, with its names of runs, is not in it."""
    replicas = {
        name: {**replica, "template": _without_env(replica["template"])}
        for name, replica in spec["pytorchReplicaSpecs"].items()
    }
    return fingerprints.fingerprint({**spec, "pytorchReplicaSpecs": replicas})


def _without_env(template: Mapping[str, Any]) -> Manifest:
    pod = template["spec"]
    containers = [{**container, "env": []} for container in pod["containers"]]
    return {**template, "spec": {**pod, "containers": containers}}


def lease_until(job: Mapping[str, Any]) -> datetime | None:
    """Return until when a job may go on without word from its launcher; None if nobody said so in words of ours."""
    with suppress(ValueError):
        until = datetime.fromisoformat(job["metadata"].get("annotations", {}).get(LEASE, ""))
        return until if until.tzinfo else until.replace(tzinfo=UTC)
    return None


def _rigid(nodes: int, pod: Manifest) -> Manifest:
    """Return the form in which a lost node fails the job: a node alone has nothing to go on with."""
    replicas = {"Master": _replicas(1, pod, "Never")}
    if nodes > 1:
        replicas["Worker"] = _replicas(nodes - 1, pod, "Never")
    return {"pytorchReplicaSpecs": replicas}


def _elastic(name: str, nodes: int, pod: Manifest, options: JobOptions) -> Manifest:
    return {
        "pytorchReplicaSpecs": {"Worker": _replicas(nodes, pod, "OnFailure")},
        "elasticPolicy": {
            "rdzvBackend": "c10d",
            "rdzvHost": f"{name}-worker-0",
            "rdzvPort": PORT,
            "rdzvId": name,
            # Spot nodes come one by one; those that are there wait for the last, and for the first, where they meet.
            "rdzvConf": [{"key": key, "value": str(JOIN_SECONDS)} for key in ("join_timeout", "read_timeout")],
            "minReplicas": nodes,
            "maxReplicas": nodes,
            "maxRestarts": options.restarts,
        },
    }


def _replicas(count: int, pod: Manifest, restart: str) -> Manifest:
    annotations = {
        "sidecar.istio.io/inject": "false",  # a mesh's sidecar never ends, so neither would the pod
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",  # one that is moved throws all back
    }
    metadata = {"annotations": annotations, "labels": {LABEL: "previts"}}
    return {"replicas": count, "restartPolicy": restart, "template": {"metadata": metadata, "spec": pod}}


def _pod(role: Role, options: JobOptions, env: Mapping[str, str]) -> Manifest:
    variables = {**role.env, **env}
    mounts = [{"name": "shm", "mountPath": "/dev/shm"}]
    memory = [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": options.shm}}]
    if any(mount.get("mountPath") == "/dev/shm" for mount in options.volume_mounts):
        mounts, memory = [], []
    container: Manifest = {
        "name": CONTAINER,
        "image": role.image,
        # The path of an interpreter is one of the machine that launches.
        "command": ["python" if role.entrypoint == sys.executable else role.entrypoint],
        "args": list(role.args),
        "env": [
            *({"name": key, "value": value} for key, value in sorted(variables.items()) if _may_be_shown(key)),
            *options.env,
        ],
        "envFrom": [{"secretRef": {"name": secret}} for secret in options.secrets],
        "resources": _resources(role, options),
        "securityContext": CONFINED if options.user else {},
        "volumeMounts": [*mounts, *options.volume_mounts],
    }
    pod: Manifest = {
        "containers": [{key: value for key, value in container.items() if value}],
        "volumes": [*memory, *options.volumes],
        "securityContext": _as_user(options.user) if options.user else {},
        "terminationGracePeriodSeconds": options.grace_seconds,
        "nodeSelector": options.node_selector,
        "tolerations": [
            *(options.tolerations if role.resource.gpu else []),
            *(SPOT_TOLERATIONS if options.spot else []),
        ],
        "affinity": options.affinity,
        "serviceAccountName": options.service_account,
        "priorityClassName": options.priority_class,
        "imagePullSecrets": [{"name": secret} for secret in options.pull_secrets],
    }
    # Training asks nothing of Kubernetes.
    return {"automountServiceAccountToken": False, **{key: value for key, value in pod.items() if value}}


def _as_user(user: int) -> Manifest:
    """Return what a restricted namespace asks of a pod; its volumes belong to the same number."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _may_be_shown(name: str) -> bool:
    return name not in HERE and not SECRET.search(name)


def _resources(role: Role, options: JobOptions) -> Manifest:
    """Return requests and limits: the options' own, else the CPUs and memory of the role, and its GPUs."""
    requests, limits = dict(options.resources.get("requests", {})), dict(options.resources.get("limits", {}))
    if role.resource.cpu > 0 and not (requests.get("cpu") or limits.get("cpu")):
        requests["cpu"] = str(role.resource.cpu)
    if role.resource.memMB > 0 and not (requests.get("memory") or limits.get("memory")):
        requests["memory"] = f"{role.resource.memMB}Mi"
    if role.resource.gpu > 0 and options.accelerator:
        requests[options.accelerator] = limits[options.accelerator] = str(role.resource.gpu)
    return {name: amounts for name, amounts in (("requests", requests), ("limits", limits)) if amounts}
