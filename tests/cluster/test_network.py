"""What pods of previts reach in a real cluster, compared with what the manifests say.

Each kind of pod that the manifests name is started with its labels and its account, as a program that listens at every
port of interest. Each of them then connects to all others, to the API server and to addresses outside the cluster.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import boot
import pytest
import sandbox
from manifests import Document, reaches_pod
from manifests import reaches as reaches_address
from node import Node
from probes import JOB, PORTS, STEP, WORKFLOW, ask, pod

pytestmark = pytest.mark.cluster

KIND = "app.kubernetes.io/name"
# name: labels, account
OURS = {
    "download": ({WORKFLOW: "run", STEP: "download"}, "previts-steps"),
    "track": ({WORKFLOW: "run", STEP: "track"}, "previts-steps"),
    "pretrain": ({WORKFLOW: "run", STEP: "pretrain"}, "previts-steps"),
    "evaluate": ({WORKFLOW: "run", STEP: "evaluate"}, "previts-steps"),
    "report": ({WORKFLOW: "run", STEP: "report"}, "previts-steps"),
    "close-run": ({WORKFLOW: "run", STEP: "close-run"}, "previts-steps"),
    "driver": ({WORKFLOW: "run"}, "previts-steps"),
    "job-master": ({JOB: "job"}, "previts-training"),
    "job-worker": ({JOB: "job"}, "previts-training"),
    "mlflow": ({KIND: "mlflow"}, "mlflow"),
    "postgres": ({KIND: "postgres"}, "postgres"),
    "bucket": ({KIND: "bucket"}, "bucket"),
    "reaper": ({KIND: "previts-reaper"}, "previts-reaper"),
    "artifacts": ({"app": "ml-pipeline-ui-artifact"}, "default"),
    "stranger": ({}, "default"),
}
THEIRS = {  # pods of Kubeflow
    "ml-pipeline": {"app": "ml-pipeline"},
    "metadata": {"component": "metadata-grpc-server"},
    "seaweedfs": {"app": "seaweedfs"},
    "minio": {"app": "minio"},
    "mysql": {"app": "mysql"},
    "ui": {"app": "ml-pipeline-ui"},
}
PUBLIC = ["8.8.8.8", "93.184.216.34"]
PRIVATE = ["169.254.169.254", "10.1.2.3", "172.20.0.9", "192.168.1.1", "100.64.0.1", "34.118.224.10", "199.36.153.8"]

ADDRESSES = {address: sandbox.OUTSIDE_PORTS for address in [*PUBLIC, *PRIVATE]} | {sandbox.ADDRESS: (6443, 10250)}


@pytest.fixture(scope="module")
def pods(node: Node, namespace: list[Document]) -> Iterator[dict[str, str]]:
    """Start all pods, and return their addresses by name."""
    documents = [pod(name, "previts", labels, account) for name, (labels, account) in OURS.items()]
    documents += [pod(name, "kubeflow", labels, "default") for name, labels in THEIRS.items()]
    for document in documents:  # never ready, or the services of the real servers would send requests here
        document["spec"]["readinessGates"] = [{"conditionType": "previts.test/never"}]
    node.apply(*documents)
    for space in ("previts", "kubeflow"):
        node.kubectl("wait", "--for=condition=ContainersReady", "pods", "-l", "probe=yes", "-n", space, "--timeout=90s")
    listed = json.loads(node.kubectl("get", "pods", "-A", "-l", "probe=yes", "-o", "json"))["items"]
    yield {item["metadata"]["name"]: item["status"]["podIP"] for item in listed}
    for space in ("previts", "kubeflow"):
        node.kubectl("delete", "pods", "-l", "probe=yes", "-n", space, "--now")


@pytest.fixture(scope="module")
def expected(namespace: list[Document], pods: dict[str, str]) -> dict[str, set[str]]:
    """Which targets `ADDRESS:PORT` each pod of ours reaches, as the manifests say."""
    found: dict[str, set[str]] = {}
    for source, (labels, _) in OURS.items():
        found[source] = {
            f"{address}:{port}" for address, ports in ADDRESSES.items() for port in ports
            if reaches_address(namespace, labels, address, port)
        }  # fmt: skip
        for name, address in pods.items():
            other, space = (OURS[name][0], "previts") if name in OURS else (THEIRS[name], "kubeflow")
            ports = [port for port in PORTS if reaches_pod(namespace, labels, other, port, space)]
            found[source] |= {f"{address}:{port}" for port in ports if name != source}
    return found


@pytest.fixture(scope="module")
def reached(node: Node, pods: dict[str, str], expected: dict[str, set[str]]) -> dict[str, set[str]]:
    """Which targets each pod of ours reached. Pods have to answer with their own name."""
    names = {f"{address}:{port}": name for name, address in pods.items() for port in PORTS}
    outside = [f"{address}:{port}" for address, ports in ADDRESSES.items() for port in ports]

    def ask_all(source: str) -> set[str]:
        said = ask(node, source, "dial", "3", *names, *outside)
        # A busy node may lose a packet. What should be reached is asked for again, with time for more packets.
        if lost := [target for target in expected[source] if said[target].startswith("error")]:
            said |= ask(node, source, "dial", "15", *lost)
        found = {target for target, text in said.items() if not text.startswith("error")}
        assert all(said[target] == f"answer: {names[target]}" for target in found & set(names)), said
        return {target for target in found if names.get(target) != source}

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(OURS, pool.map(ask_all, OURS), strict=True))


def test_every_pod_reaches_what_the_manifests_say_and_nothing_else(
    pods: dict[str, str], expected: dict[str, set[str]], reached: dict[str, set[str]]
):
    assert reached == expected
    assert f"{pods['mlflow']}:5000" in reached["pretrain"]
    assert f"{pods['bucket']}:8333" in reached["download"]
    assert reached["stranger"] == set()


def test_only_the_download_step_reaches_the_internet_and_only_by_https(reached: dict[str, set[str]]):
    outside = {(source, target) for source, found in reached.items() for target in found}
    outside = {(source, target) for source, target in outside if target.split(":")[0] in [*PUBLIC, *PRIVATE]}
    assert outside == {("download", f"{address}:443") for address in PUBLIC}


def test_only_runs_and_the_reaper_reach_the_api_server_and_none_the_kubelet(reached: dict[str, set[str]]):
    sources = {source for source, found in reached.items() if f"{sandbox.ADDRESS}:6443" in found}
    assert sources == {name for name, (labels, _) in OURS.items() if WORKFLOW in labels} | {"reaper"}
    assert not any(f"{sandbox.ADDRESS}:10250" in found for found in reached.values())


def test_of_the_pods_of_kubeflow_only_its_ui_reaches_a_pod_of_ours(node: Node, pods: dict[str, str]):
    targets = {f"{pods[name]}:{port}": (name, port) for name in OURS for port in PORTS}
    for source in ("ui", "mysql"):
        said = ask(node, source, "dial", "3", *targets, space="kubeflow")
        reached = [targets[target] for target, text in said.items() if not text.startswith("error")]
        assert reached == ([("artifacts", 3000)] if source == "ui" else []), source


def test_every_pod_finds_names(node: Node, pods: dict[str, str]):
    for source in ("download", "postgres", "job-worker", "stranger"):
        found = ask(node, source, "resolve", "kubernetes.default", "mlflow.previts", "mlflow", "no.such.name")
        assert found["kubernetes.default"] == boot.KUBERNETES_SERVICE
        assert found["mlflow.previts"] == found["mlflow"]
        assert found["mlflow"].startswith("10.96.")
        assert "no such host" in found["no.such.name"]
