"""A replacement for the parts of a cluster that the tests lack: operator, scheduler, nodes and garbage collector."""

import os
import subprocess
import sys
import threading
import time
import traceback
import urllib.error
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from control_plane import ControlPlane, Kubelet

from previts.launch import conditions
from previts.launch.submit import RIGHTS

Script = Callable[["Operator", dict[str, Any]], None]
NODE = "node-1"
REAPER_RIGHTS = [(verb, "pytorchjobs", "kubeflow.org", "") for verb in ("list", "delete")]
NOW = "2026-11-27T10:00:{:02}Z"


class Operator:
    """Plays the next script for each new job of a namespace, and completes the deletion of jobs."""

    def __init__(self, plane: ControlPlane, kubelet: Kubelet, namespace: str, *scripts: Script) -> None:
        self.plane, self.kubelet, self.namespace = plane, kubelet, namespace
        self.scripts, self.faults = list(scripts), []
        self.seen: list[dict[str, Any]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Operator":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if kind is not None:
            return
        assert not self.faults
        assert not self.scripts, "an expected job was not created"

    def jobs(self) -> list[dict[str, Any]]:
        return self.plane.request("GET", self._path("jobs"))["items"]

    def job(self, name: str) -> dict[str, Any]:
        return self.plane.request("GET", f"{self._path('jobs')}/{name}")

    def condition(self, job: dict[str, Any], kind: str, message: str = "") -> None:
        """Set a condition of a job and clear Running and Restarting, as the operator does."""
        name = job["metadata"]["name"]
        held = [item for item in self.job(name).get("status", {}).get("conditions", []) if item["type"] != kind]
        for item in held:
            if item["type"] in ("Running", "Restarting"):
                item["status"] = "False"
        held.append({"type": kind, "status": "True", "reason": f"PyTorchJob{kind}", "message": message})
        self.plane.request("PATCH", f"{self._path('jobs')}/{name}/status", {"status": {"conditions": held}})

    def failed(self, job: dict[str, Any], message: str) -> None:
        """Set a job to failed as the operator does: if it has a limit of restarts, its pods are deleted first."""
        if "backoffLimit" in job["spec"]["runPolicy"]:
            self.remove_pods(job)
        self.condition(job, "Failed", message)

    def remove_pods(self, job: dict[str, Any]) -> None:
        grace = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
        for pod in self.plane.request("GET", self._path("pods"))["items"]:
            if pod["metadata"]["name"].startswith(job["metadata"]["name"]):
                self.plane.request("DELETE", f"{self._path('pods')}/{pod['metadata']['name']}", grace)

    def pod(self, job: dict[str, Any], replica: str, phase: str = "Running", **status: Any) -> None:
        """Create a pod of a job, or change its status."""
        name = f"{job['metadata']['name']}-{replica}"
        kind, index = replica.rsplit("-", 1)
        labels = {
            "training.kubeflow.org/job-name": job["metadata"]["name"],
            "training.kubeflow.org/replica-type": kind,
            "training.kubeflow.org/replica-index": index,
        }
        template = next(iter(job["spec"]["pytorchReplicaSpecs"].values()))["template"]
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {**template["spec"], "nodeName": NODE},
        }
        try:
            self.plane.request("POST", self._path("pods"), body)
        except urllib.error.HTTPError as refusal:
            if refusal.code != 409:
                raise AssertionError(refusal.read()) from refusal
        self.plane.request("PATCH", f"{self._path('pods')}/{name}/status", {"status": {"phase": phase, **status}})

    def ended(self, job: dict[str, Any], replica: str, code: int, second: int = 0, reason: str = "Error") -> None:
        """Set the container of a pod to terminated."""
        end = {"exitCode": code, "reason": reason, "finishedAt": NOW.format(second), "startedAt": NOW.format(0)}
        container = {"name": "pytorch", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
        phase = "Failed" if code else "Succeeded"
        self.pod(job, replica, phase, containerStatuses=[{**container, "state": {"terminated": end}}])

    def event(self, about: str, reason: str, message: str, kind: str = "Pod") -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": "event-"},
            "involvedObject": {"kind": kind, "name": about, "namespace": self.namespace},
            "reason": reason,
            "message": message,
            "lastTimestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        }
        self.plane.request("POST", self._path("events"), body)

    def say(self, job: dict[str, Any], replica: str, *lines: str) -> None:
        self.kubelet.say(f"{job['metadata']['name']}-{replica}", *lines)

    def _path(self, kind: str) -> str:
        if kind == "jobs":
            return f"/apis/kubeflow.org/v1/namespaces/{self.namespace}/pytorchjobs"
        return f"/api/v1/namespaces/{self.namespace}/{kind}"

    def _run(self) -> None:
        while not self._over.wait(0.1):
            with suppress(OSError):  # the API server is down
                for job in self.jobs():
                    self._look_at(job)

    def _look_at(self, job: dict[str, Any]) -> None:
        metadata = job["metadata"]
        if metadata.get("deletionTimestamp"):
            self.remove_pods(job)
            self.plane.request("PATCH", f"{self._path('jobs')}/{metadata['name']}", {"metadata": {"finalizers": None}})
        elif metadata["uid"] not in [seen["metadata"]["uid"] for seen in self.seen]:
            self.seen.append(job)
            if self.scripts and not conditions.is_over(job):
                threading.Thread(target=self._play, args=(self.scripts.pop(0), job), daemon=True).start()

    def _play(self, script: Script, job: dict[str, Any]) -> None:
        try:
            script(self, job)
        except Exception as fault:
            traceback.print_exc()
            self.faults.append(fault)
            self.plane.request("DELETE", f"{self._path('jobs')}/{job['metadata']['name']}")  # the launcher stops


def open_namespace(plane: ControlPlane, name: str) -> None:
    """Create a restricted namespace in which the users `launcher` and `reaper` have only the rights that they need."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    group = "rbac.authorization.k8s.io"
    for user, rights in (("launcher", RIGHTS), ("reaper", REAPER_RIGHTS)):
        rules = [
            {"apiGroups": [owner], "resources": [f"{resource}/{below}" if below else resource], "verbs": [verb]}
            for verb, resource, owner, below in rights
        ]
        roles = f"/apis/{group}/v1/namespaces/{name}"
        plane.request("POST", f"{roles}/roles", {"metadata": {"name": user}, "rules": rules})
        binding = {
            "metadata": {"name": user},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": user},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        }
        plane.request("POST", f"{roles}/rolebindings", binding)
        verb, resource, owner, _ = rights[0]
        attributes = {"namespace": name, "verb": verb, "resource": resource, "group": owner}
        review = {"spec": {"user": user, "resourceAttributes": attributes}}
        reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        while not plane.request("POST", reviews, review)["status"]["allowed"]:  # roles take effect later
            time.sleep(0.05)


def open_node(plane: ControlPlane, kubelet: Kubelet) -> None:
    """Create the one node, whose kubelet serves the logs."""
    plane.request("POST", "/api/v1/nodes", {"metadata": {"name": NODE}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port}},
    }
    plane.request("PATCH", f"/api/v1/nodes/{NODE}/status", {"status": status})


def environment(job: dict[str, Any], node: int) -> dict[str, str]:
    """Return the environment that the operator gives to a pod of a PyTorchJob; here all pods are on one machine."""
    spec = job["spec"]
    nodes = str(sum(item["replicas"] for item in spec["pytorchReplicaSpecs"].values()))
    if elastic := spec.get("elasticPolicy"):
        assert elastic["rdzvHost"] == f"{job['metadata']['name']}-worker-0"
        return {
            "PET_RDZV_ENDPOINT": f"localhost:{elastic['rdzvPort']}",
            "PET_RDZV_BACKEND": elastic["rdzvBackend"],
            "PET_RDZV_ID": elastic["rdzvId"],
            "PET_RDZV_CONF": ",".join(f"{item['key']}={item['value']}" for item in elastic["rdzvConf"]),
            "PET_NPROC_PER_NODE": spec["nprocPerNode"],
            "PET_MAX_RESTARTS": str(elastic["maxRestarts"]),
            "PET_NNODES": f"{elastic['minReplicas']}:{elastic['maxReplicas']}",
        }
    shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": "23457", "WORLD_SIZE": nodes, "RANK": str(node)}
    static = {"PET_MASTER_ADDR": "localhost", "PET_MASTER_PORT": "23457", "PET_NODE_RANK": str(node)}
    return {**shared, **static, "PET_NNODES": nodes, "PET_NPROC_PER_NODE": spec["nprocPerNode"]}


def run_pods(job: dict[str, Any]) -> list[subprocess.Popen[bytes]]:
    """Run the commands of the containers of a job on this machine, with the environment of their pods."""
    specs = job["spec"]["pytorchReplicaSpecs"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # "python" is this interpreter
    # One thread each, as torchrun sets it for processes that share a machine. Another number rounds sums differently.
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PATH": path, "OMP_NUM_THREADS": "1"}
    processes = []
    for replica in specs.values():
        (container,) = replica["template"]["spec"]["containers"]
        given = {item["name"]: item["value"] for item in container["env"] if item["name"] != "MASTER_ADDR"}
        for _ in range(replica["replicas"]):
            place = {**here, **given, **environment(job, len(processes))}
            processes.append(subprocess.Popen([*container["command"], *container["args"]], env=place))
    return processes
