"""The training operator with the manifests of previts: a job whose pods are admitted, find and reach each other."""

import copy
import json
import time

import pytest
from manifests import Document
from node import Node, NodeError
from probes import pod, wait_for

pytestmark = pytest.mark.cluster


def job(account: str) -> Document:
    """Return a job whose worker connects to its master, and ends."""

    def replica(*arguments: str) -> Document:
        spec = copy.deepcopy(pod("", "", {}, account)["spec"])
        (container,) = spec["containers"]
        container |= {"name": "pytorch", "args": list(arguments)}
        del container["readinessProbe"]
        return {"replicas": 1, "restartPolicy": "Never", "template": {"spec": spec}}

    replicas = {"Master": replica("serve", "23456"), "Worker": replica("dial", "20", "pair-master-0:23456")}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "pair", "namespace": "previts"},
        "spec": {"pytorchReplicaSpecs": replicas},
    }


def test_the_pods_of_a_job_are_admitted_and_reach_each_other(node: Node, namespace: list[Document]):
    node.apply(job("previts-training"))
    try:
        phase = "--for=jsonpath={.status.phase}=Succeeded"
        wait_for(node, "get", "pod", "pair-worker-0", "-n", "previts")
        try:
            node.kubectl("wait", "pod/pair-worker-0", "-n", "previts", phase, "--timeout=90s")
        except NodeError as fault:
            raise AssertionError(node.kubectl("describe", "pods", "-n", "previts")[-4000:]) from fault
        said = json.loads(node.kubectl("logs", "pair-worker-0", "-n", "previts"))
        assert said == {"pair-master-0:23456": "answer: pair-master-0"}
    finally:
        node.kubectl("delete", "pytorchjob", "pair", "-n", "previts", "--cascade=foreground")


def test_a_job_with_another_account_gets_no_pods(node: Node, namespace: list[Document]):
    node.apply(job("default"))
    try:
        form = "jsonpath={.items[*].message}"
        refusal = ""
        for _ in range(60):
            refusal = node.kubectl("get", "events", "-n", "previts", "-o", form)
            if "must run with the account previts-training" in refusal:
                break
            time.sleep(0.5)
        assert "must run with the account previts-training" in refusal
        assert "pair" not in node.kubectl("get", "pods", "-n", "previts", "-o", "name")
    finally:
        node.kubectl("delete", "pytorchjob", "pair", "-n", "previts", "--cascade=foreground")
