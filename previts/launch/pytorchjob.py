"""The manifest of a PyTorchJob (kubeflow.org/v1), made from an `AppDef` and job options without access to a cluster.

There are two forms. A rigid job has a Master and Workers, which start and end together. A job on spot nodes has only
Workers and an elastic policy whose minimum equals its maximum: the batch, batch normalisation and learning rate need a
fixed number of processes. It waits until a lost node is replaced.
"""

import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from torchx.specs import AppDef, Role, macros

from previts import origin
from previts.errors import InputError
from previts.launch.app import TARGET
from previts.launch.options import JobOptions
from previts.processes.workers import STARTED_BY, WHOLE
from previts.storage import fingerprints

GROUP, VERSION, PLURAL, KIND = "kubeflow.org", "v1", "pytorchjobs", "PyTorchJob"
CONTAINER = "pytorch"  # the operator looks for a container of this name
LABEL = "app.kubernetes.io/managed-by"
SPEC_HASH, TARGET_NOTE = "previts/spec-hash", "previts/target"
# Annotations: the time until which a job may run without a renewal, and the launcher that renews it.
LEASE, LAUNCHER = "previts/lease-until", "previts/launcher"
NAME_LENGTH = 40  # the names of pods and services add suffixes, and have at most 63 characters
PORT = 23456
JOIN_SECONDS = 3600
# With one store for all rounds, torchrun (2.15) tells its address in the first round only, and a replaced node waits.
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
# Variables that describe the launcher's machine or image.
LOCAL_ONLY = (STARTED_BY, WHOLE, "OMP_NUM_THREADS", origin.REVISION)
# The taint of spot nodes on GKE. Tolerating it has no effect on clusters without such nodes.
SPOT_TOLERATIONS = [{"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}]
# Variables that are not passed on, because more accounts can read the specification of a job than a secret.
SECRET = re.compile(r"(PASSWORD|TOKEN|SECRET|KEY)$")

Manifest = dict[str, Any]

CONFINED: Manifest = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def build_manifest(app: AppDef, options: JobOptions, owner: Mapping[str, Any] | None = None) -> Manifest:
    """Return the PyTorchJob of an app.

    Args:
        app: An app with one role, whose replicas are the nodes.
        options: Options of the job.
        owner: Reference to the object with which Kubernetes deletes the job, such as the pipeline run.

    Raises:
        InputError: If the app has more than one role, or no container image.
    """
    if len(app.roles) != 1:
        names = [role.name for role in app.roles]
        raise InputError(
            f"a PyTorchJob runs one role (one program), and the torchx app {app.name} has {', '.join(names)}; submit "
            "one app for each role"
        )
    name = job_name(app)
    rank0 = f"{name}-worker-0" if options.spot else f"{name}-master-0"
    values = macros.Values(img_root="", app_id=name, replica_id="$(PET_NODE_RANK)", rank0_env="MASTER_ADDR")
    role = values.apply(app.roles[0])
    if not role.image or role.image.startswith("/"):
        raise InputError("a PyTorchJob needs a container image; set --job image=REGISTRY/NAME:TAG")
    spot_env = {"MASTER_ADDR": rank0, OWN_STORE: "1"} if options.spot else {}
    pod = _pod(role, options, {origin.JOB: name, **spot_env})
    spec = _elastic(name, role.num_replicas, pod, options) if options.spot else _rigid(role.num_replicas, pod)
    spec["nprocPerNode"] = str(max(1, role.resource.gpu))
    policy: Manifest = {
        "cleanPodPolicy": "Running",  # after a failure, end the other pods so that they free their GPUs
        "ttlSecondsAfterFinished": options.ttl_seconds,
    }
    if options.spot:  # not for rigid jobs: at the limit the operator deletes all pods, and the cause of the failure
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
    """Return the name of a job (DNS-1035).

    It is a function of the folder that the job writes, so two jobs of a namespace cannot write the same folder.
    """
    role = app.roles[0]
    decided = _target(app) or [role.name, role.args]
    label = re.sub(r"[^a-z0-9]+", "-", app.name.lower()).strip("-")
    label = label if label[:1].isalpha() else f"job-{label}"
    return f"{label[: NAME_LENGTH - 13].rstrip('-')}-{fingerprints.fingerprint({'job': decided})}"


def spec_hash(spec: Mapping[str, Any]) -> str:
    """Return a digest of a job's specification without the environment, which contains ids of MLflow runs."""
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
    """Return when the lease of a job expires, or None if it has no lease or an invalid one."""
    with suppress(ValueError):
        until = datetime.fromisoformat(job["metadata"].get("annotations", {}).get(LEASE, ""))
        return until if until.tzinfo else until.replace(tzinfo=UTC)
    return None


def _rigid(nodes: int, pod: Manifest) -> Manifest:
    """Return the replicas of a rigid job, which fails if it loses a node: the other nodes cannot continue alone."""
    replicas = {"Master": _replicas(1, pod, "Never")}
    if nodes > 1:
        replicas["Worker"] = _replicas(nodes - 1, pod, "Never")
    return {"pytorchReplicaSpecs": replicas}


def _elastic(name: str, nodes: int, pod: Manifest, options: JobOptions) -> Manifest:
    """Return the replicas and the elastic policy of a job on spot nodes."""
    return {
        "pytorchReplicaSpecs": {"Worker": _replicas(nodes, pod, "OnFailure")},
        "elasticPolicy": {
            "rdzvBackend": "c10d",
            "rdzvHost": f"{name}-worker-0",
            "rdzvPort": PORT,
            "rdzvId": name,
            # Spot nodes start one by one: the first ones wait for the last, and all wait for the first replica.
            "rdzvConf": [{"key": key, "value": str(JOIN_SECONDS)} for key in ("join_timeout", "read_timeout")],
            "minReplicas": nodes,
            "maxReplicas": nodes,
            "maxRestarts": options.restarts,
        },
    }


def _replicas(count: int, pod: Manifest, restart: str) -> Manifest:
    annotations = {
        "sidecar.istio.io/inject": "false",  # the sidecar of a mesh does not end, so the pod would not end either
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",  # moving one pod interrupts all of them
    }
    metadata = {"annotations": annotations, "labels": {LABEL: "previts"}}
    return {"replicas": count, "restartPolicy": restart, "template": {"metadata": metadata, "spec": pod}}


def _pod(role: Role, options: JobOptions, env: Mapping[str, str]) -> Manifest:
    variables = {**role.env, **env, origin.IMAGE: role.image}
    mounts = [{"name": "shm", "mountPath": "/dev/shm"}]
    memory = [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": options.shm}}]
    if any(mount.get("mountPath") == "/dev/shm" for mount in options.volume_mounts):
        mounts, memory = [], []
    container: Manifest = {
        "name": CONTAINER,
        "image": role.image,
        # The path of this interpreter does not exist in the image.
        "command": ["python" if role.entrypoint == sys.executable else role.entrypoint],
        "args": list(role.args),
        "env": [
            *({"name": key, "value": value} for key, value in sorted(variables.items()) if _is_passed_on(key)),
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
    # Training does not use the API of Kubernetes.
    return {"automountServiceAccountToken": False, **{key: value for key, value in pod.items() if value}}


def _as_user(user: int) -> Manifest:
    """Return the security context that restricted Pod Security requires; volumes belong to the same user id."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _is_passed_on(name: str) -> bool:
    return name not in LOCAL_ONLY and not SECRET.search(name)


def _resources(role: Role, options: JobOptions) -> Manifest:
    """Return requests and limits: those of the options, else CPU and memory of the role, and always its GPUs."""
    requests, limits = dict(options.resources.get("requests", {})), dict(options.resources.get("limits", {}))
    if role.resource.cpu > 0 and not (requests.get("cpu") or limits.get("cpu")):
        requests["cpu"] = str(role.resource.cpu)
    if role.resource.memMB > 0 and not (requests.get("memory") or limits.get("memory")):
        requests["memory"] = f"{role.resource.memMB}Mi"
    if role.resource.gpu > 0 and options.accelerator:
        requests[options.accelerator] = limits[options.accelerator] = str(role.resource.gpu)
    return {name: amounts for name, amounts in (("requests", requests), ("limits", limits)) if amounts}
