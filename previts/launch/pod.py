"""The settings that a job inherits from the pod of its launcher: image, service account and owner."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubernetes.client.exceptions import ApiException

from previts.launch.cluster import Cluster, with_retries

MAIN = "main"  # the container of a KFP step; the workflow engine adds others to the pod
# HOSTNAME is cut off after 63 characters, and the pods of steps can have longer names.
POD_NAMES = ("KFP_POD_NAME", "HOSTNAME")


@dataclass(frozen=True)
class Inherited:
    """What a job inherits. All fields are empty if the launcher does not run in a pod of the job's namespace."""

    image: str = ""
    account: str = ""
    owner: Mapping[str, Any] | None = None


def inherit(cluster: Cluster) -> Inherited:
    """Return what a job inherits from this pod; empty if this is not a pod, or the pod has no right to read itself."""
    if not os.environ.get("KUBERNETES_SERVICE_HOST"):
        return Inherited()
    name = next((os.environ[name] for name in POD_NAMES if os.environ.get(name)), "")
    try:
        pod = with_retries(lambda: cluster.pod(name))
    except ApiException:
        return Inherited()
    return from_pod(pod)


def from_pod(pod: Mapping[str, Any]) -> Inherited:
    """Return what a job inherits from a pod.

    The owner of the pod becomes the owner of the job, so Kubernetes deletes the job together with the pipeline run. A
    pod without an owner is the owner itself.
    """
    containers = {container["name"]: container for container in pod["spec"]["containers"]}
    container = containers.get(MAIN, pod["spec"]["containers"][0])
    owners = pod["metadata"].get("ownerReferences") or [
        {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    ]
    owner = {key: owners[0][key] for key in ("apiVersion", "kind", "name", "uid")}
    return Inherited(container["image"], pod["spec"].get("serviceAccountName", ""), owner)
