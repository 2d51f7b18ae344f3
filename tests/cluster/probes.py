"""Pods that run the program `probe` (programs/kubernetes/probe): they listen, and tell what they reach."""

import json
import time

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
