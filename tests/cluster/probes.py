"""Pods that run the program `probe` (programs/kubernetes/probe): they listen, and tell what they reach.

Others run Python code in an image of previts, with the environment of a step.
"""

import json
import time
from typing import Any

from manifests import Document
from node import Node, NodeError

WORKFLOW, STEP, JOB = "workflows.argoproj.io/workflow", "previts/step", "training.kubeflow.org/job-name"
PORTS = [3000, 3306, 5000, 5432, 8080, 8333, 8443, 8887, 8888, 9000, 23456]


def pod(name: str, space: str, labels: dict[str, str], account: str) -> Document:
    """Return a pod that restricted Pod Security allows; it answers at all ports with its name."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space, "labels": {**labels, "probe": "yes"}},
        "spec": {
            "serviceAccountName": account,
            "terminationGracePeriodSeconds": 1,
            "enableServiceLinks": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "probe",
                    "image": "previts.test/probe:1",
                    "imagePullPolicy": "Always",
                    "args": ["serve", *map(str, PORTS)],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "readinessProbe": {"tcpSocket": {"port": PORTS[-1]}, "periodSeconds": 1},
                }
            ],
        },
    }


def step(name: str, step: str, image: str, code: str, **variables: str) -> Document:
    """Return a pod that runs Python code as a step does: with its labels, account and environment."""
    document = pod(name, "previts", {WORKFLOW: "test", STEP: step}, "previts-steps")
    (container,) = document["spec"]["containers"]
    del container["args"], container["readinessProbe"]
    container |= {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", code],
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "envFrom": [{"configMapRef": {"name": "previts-steps"}}, {"secretRef": {"name": "bucket"}}],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    document["spec"] |= {"restartPolicy": "Never", "volumes": [{"name": "tmp", "emptyDir": {}}]}
    return document


def answer_of(node: Node, document: Document, seconds: int = 300) -> Any:
    """Start a pod, wait for its end, delete it, and return the JSON in the last line of its log.

    Raises:
        AssertionError: It failed, or did not end in time; with its description and log.
    """
    name = document["metadata"]["name"]
    node.apply(document)
    phase = ("get", "pod", name, "-n", "previts", "-o", "jsonpath={.status.phase}")
    try:
        deadline = time.monotonic() + seconds
        while (now := node.kubectl(*phase)) in ("Pending", "Running") and time.monotonic() < deadline:
            time.sleep(0.5)
        if now != "Succeeded":
            log = node.kubectl("logs", name, "-n", "previts") if now != "Pending" else ""
            raise AssertionError(f"{node.kubectl('describe', 'pod', name, '-n', 'previts')[-3000:]}\n{log[-3000:]}")
        return json.loads(node.kubectl("logs", name, "-n", "previts").splitlines()[-1])
    finally:
        node.kubectl("delete", "pod", name, "-n", "previts", "--now")


def ask(node: Node, source: str, *question: str, space: str = "previts") -> dict[str, str]:
    """Return what a pod of a namespace answers to a question that its program knows."""
    text = node.kubectl("exec", source, "-n", space, "--", "/bin/probe", *question)
    return dict(json.loads(text))


def wait_for(node: Node, *arguments: str, seconds: float = 30) -> str:
    """Repeat a call of kubectl until it succeeds, and return its output."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return node.kubectl(*arguments)
        except NodeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
