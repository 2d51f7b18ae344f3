"""The pod that launches, if it is one: a job takes its image and account from it, and vanishes with what owns it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubernetes.client.exceptions import ApiException

from previts.launch.cluster import Cluster, patiently

MAIN = "main"  # the container of a step of KFP; others beside it are the engine's
POD_NAMES = ("KFP_POD_NAME", "HOSTNAME")  # the second is cut off after 63 characters, and steps have longer names


@dataclass(frozen=True)
class Surroundings:
    """What a job inherits: nothing on a machine that is no pod of the same namespace."""

    image: str = ""
    account: str = ""
    owner: Mapping[str, Any] | None = None


def surroundings(cluster: Cluster) -> Surroundings:
    """Return what the pod that this is hands on; a pod that may not look at itself hands on nothing."""
    if not os.environ.get("KUBERNETES_SERVICE_HOST"):
        return Surroundings()
    name = next((os.environ[name] for name in POD_NAMES if os.environ.get(name)), "")
    try:
        pod = patiently(lambda: cluster.pod(name))
    except ApiException:
        return Surroundings()
    return inherited(pod)


def inherited(pod: Mapping[str, Any]) -> Surroundings:
    """Return what a job inherits from a pod: the owner of the pod is that of the job, else the pod itself is."""
    containers = {container["name"]: container for container in pod["spec"]["containers"]}
    container = containers.get(MAIN, pod["spec"]["containers"][0])
    owners = pod["metadata"].get("ownerReferences") or [
        {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    ]
    owner = {key: owners[0][key] for key in ("apiVersion", "kind", "name", "uid")}
    return Surroundings(container["image"], pod["spec"].get("serviceAccountName", ""), owner)
