"""Helpers of the launcher tests: a namespace for each test, and scripts for the course of a job."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_plane import ControlPlane, Kubelet
from operator_by_hand import Operator, Script

from previts.launch.app import training_app
from previts.launch.launcher import run_on_cluster
from previts.launch.options import JobOptions
from previts.launch.pytorchjob import build_manifest, job_name


@dataclass
class Place:
    """A namespace of one test, and the folder to which training would write."""

    plane: ControlPlane
    kubelet: Kubelet
    namespace: str
    marker: Path

    def app(self, *arguments: str) -> Any:
        target = str(self.marker.parent)
        return training_app("pretrain", 8, arguments, nodes=2, image="registry/train:1", gpus=8, target=target)

    def name(self) -> str:
        return job_name(self.app())

    def run(self, *scripts: Script, **options: Any) -> Operator:
        """Launch a job, and play the next script for each job that the launcher creates."""
        with self.operator(*scripts) as operator:
            run_on_cluster(self.app(), JobOptions(image="registry/train:1", **options), self.marker.exists)
        return operator

    def operator(self, *scripts: Script) -> Operator:
        return Operator(self.plane, self.kubelet, self.namespace, *scripts)

    def create(self, annotations: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
        """Create a job without the launcher."""
        job = build_manifest(self.app(), JobOptions(image="registry/train:1", namespace=self.namespace, **options))
        job["metadata"]["annotations"].update(annotations or {})
        return self.plane.request("POST", self.path(), job)

    def path(self) -> str:
        return f"/apis/kubeflow.org/v1/namespaces/{self.namespace}/pytorchjobs"


def finish(place: Place) -> Script:
    """Return a script in which the job succeeds."""

    def script(operator: Operator, job: dict[str, Any]) -> None:
        operator.condition(job, "Created")
        operator.say(job, "master-0", "step 1: loss 2.5", "step 2: loss 2.4")
        operator.pod(job, "master-0")
        operator.pod(job, "worker-0")
        operator.condition(job, "Running")
        time.sleep(1.5)
        place.marker.parent.mkdir(parents=True, exist_ok=True)
        place.marker.touch()
        operator.kubelet.over.add(f"{job['metadata']['name']}-master-0")
        operator.ended(job, "master-0", 0)
        operator.condition(job, "Succeeded")

    return script


def fail(act: Callable[[Operator, dict[str, Any]], None]) -> Script:
    """Return a script in which a running job fails after `act`."""

    def script(operator: Operator, job: dict[str, Any]) -> None:
        operator.condition(job, "Created")
        operator.pod(job, "master-0")
        operator.pod(job, "worker-0")
        operator.condition(job, "Running")
        act(operator, job)
        operator.failed(job, "PyTorchJob has failed because 1 Worker replica(s) failed.")

    return script


def waits(operator: Operator, job: dict[str, Any]) -> None:
    operator.condition(job, "Created")


def runs(operator: Operator, job: dict[str, Any]) -> None:
    operator.condition(job, "Created")
    operator.condition(job, "Running")


def until(holds: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.1)
    raise AssertionError(f"the condition did not hold within {seconds:g} s")
