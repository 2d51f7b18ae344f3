"""The network policies of each overlay, evaluated as a cluster does: what each pod reaches."""

import inspect
import ipaddress
from random import Random
from typing import Any

import pytest
from compiled_steps import steps
from manifests import OVERLAYS, ROOT, Document, contains, of_kind, reaches, reaches_pod, rendered

from pipelines.cluster import STEP_LABEL
from previts.ingest.url_guard import is_public
from previts.runs import steps as run_steps

WORKFLOW, JOB = "workflows.argoproj.io/workflow", "training.kubeflow.org/job-name"
PRIVATE = ["10.1.2.3", "172.18.0.2", "172.20.0.9", "192.168.1.1", "100.64.0.1", "127.0.0.1", "34.118.224.10", "fd00::1"]
METADATA = "169.254.169.254"
PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:4700::1111"]
GOOGLE = "199.36.153.8"
# Networks of IANA's registries that the list of Python 3.11 lacks, and public addresses that clouds use inside.
MORE = [
    *("192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24", "2002::/16", "2620:4f:8000::/48"),
    *("3ffe::/16", "3fff::/20", "64:ff9b::/96", "34.118.224.0/20", "161.26.0.0/16", "166.8.0.0/14"),
    *("168.63.129.16/32", "199.36.153.4/30", "199.36.153.8/30"),
]


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> list[Document]:
    return rendered(request.param)


@pytest.fixture(scope="module")
def gke() -> list[Document]:
    return rendered("gke")


def step_labels(name: str) -> dict[str, str]:
    return {WORKFLOW: "run", STEP_LABEL: name}


def egress(documents: list[Document], name: str) -> Document:
    """Return the only rule of a policy."""
    (spec,) = [item["spec"] for item in of_kind(documents, "NetworkPolicy") if item["metadata"]["name"] == name]
    (rule,) = spec["egress"]
    return rule


def test_all_traffic_is_denied_by_default(overlay: list[Document]):
    (nothing,) = [item for item in of_kind(overlay, "NetworkPolicy") if item["metadata"]["name"] == "nothing"]
    assert nothing["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_only_the_download_step_reaches_the_internet(overlay: list[Document]):
    others = {step["podMetadata"]["labels"][STEP_LABEL] for step in steps().values()} - {"download"}
    assert len(others) > 10
    assert all(reaches(overlay, step_labels("download"), address, 443) for address in PUBLIC)
    assert not reaches(overlay, step_labels("download"), PUBLIC[0], 80)
    for labels in [*map(step_labels, others), {JOB: "job"}, {WORKFLOW: "run"}, {"app.kubernetes.io/name": "mlflow"}]:
        for address in PUBLIC:
            assert not any(reaches(overlay, labels, address, port) for port in (22, 80, 443, 8080)), (labels, address)


@pytest.mark.parametrize("port", [22, 80, 443, 988, 5000, 5432, 6443, 8080, 8333, 8443, 10250])
def test_the_download_step_reaches_no_metadata_server_and_no_private_address(overlay: list[Document], port: int):
    rule = egress(overlay, "runs-to-control-plane")
    for address in [METADATA, "169.254.169.252", *PRIVATE]:
        allowed = port in [item["port"] for item in rule["ports"]] and contains(rule["to"][0]["ipBlock"], address)
        assert reaches(overlay, step_labels("download"), address, port) == allowed, address


def special_networks() -> list[Any]:
    """Return the networks that Python knows from IANA's registries of special-purpose addresses."""
    known = [*ipaddress._IPv4Constants._private_networks, *ipaddress._IPv6Constants._private_networks]  # type: ignore[attr-defined]
    return [*known, *map(ipaddress.ip_network, ("100.64.0.0/10", "192.88.99.0/24", "224.0.0.0/4", "ff00::/8", *MORE))]


def test_the_download_step_reaches_no_address_of_a_special_purpose(overlay: list[Document]):
    rule = egress(overlay, "download-to-internet")
    for network in special_networks():
        for address in (network[0], network[-1], network[network.num_addresses // 2]):
            assert not any(contains(peer["ipBlock"], str(address)) for peer in rule["to"]), address


def test_the_download_step_reaches_only_addresses_that_its_own_guard_allows_too(overlay: list[Document]):
    random = Random(1)
    addresses = [str(ipaddress.IPv4Address(random.getrandbits(32))) for _ in range(2000)]
    addresses += [str(ipaddress.IPv6Address(random.getrandbits(128))) for _ in range(500)]
    addresses += [str(ipaddress.IPv6Address(0x2000 << 112 | random.getrandbits(125))) for _ in range(1000)]
    addresses += [str(network[place]) for network in special_networks() for place in (0, -1)]
    rule = egress(overlay, "download-to-internet")
    for address in addresses:
        if any(contains(peer["ipBlock"], address) for peer in rule["to"]):
            assert is_public(address), address


def test_a_step_reaches_named_ports_of_kubeflow_and_nothing_else_there(overlay: list[Document]):
    pods_of_kubeflow = {
        ("app", "ml-pipeline"): {8887, 8888},
        ("component", "metadata-grpc-server"): {8080},
        ("app", "seaweedfs"): {8333},
        ("app", "minio"): {9000},
        ("app", "mysql"): set(),
        ("app", "ml-pipeline-ui"): set(),
        ("app", "workflow-controller"): set(),
        ("control-plane", "kubeflow-training-operator"): set(),
    }
    ports = [22, 80, 443, 2746, 3000, 3306, 8080, 8111, 8333, 8443, 8887, 8888, 9000, 9090, 9443]
    for labels in (step_labels("download"), step_labels("track"), {WORKFLOW: "run"}):
        for (key, value), allowed in pods_of_kubeflow.items():
            reached = {port for port in ports if reaches_pod(overlay, labels, {key: value}, port, "kubeflow")}
            assert reached == allowed, (labels, key, value)
    for labels in ({JOB: "job"}, {"app.kubernetes.io/name": "mlflow"}, {"app.kubernetes.io/name": "previts-reaper"}):
        for key, value in pods_of_kubeflow:
            assert not any(reaches_pod(overlay, labels, {key: value}, port, "kubeflow") for port in ports)


def test_only_the_servers_of_names_are_reached_in_kube_system(overlay: list[Document]):
    for labels in (step_labels("download"), step_labels("pretrain"), {JOB: "job"}):
        assert reaches_pod(overlay, labels, {"k8s-app": "kube-dns"}, 53, "kube-system")
        assert not reaches_pod(overlay, labels, {"k8s-app": "kube-dns"}, 9153, "kube-system")
        assert not reaches_pod(overlay, labels, {"k8s-app": "metrics-server"}, 53, "kube-system")


def test_mlflow_is_reached_by_the_steps_that_write_to_the_run_log_and_no_others(overlay: list[Document]):
    names = {step["podMetadata"]["labels"][STEP_LABEL] for step in steps().values()}
    mlflow = {"app.kubernetes.io/name": "mlflow"}
    reached = {name for name in names if reaches_pod(overlay, step_labels(name), mlflow, 5000)}
    assert reached == {name for name in names if uses_run_log(name)}
    assert reaches_pod(overlay, {JOB: "job"}, mlflow, 5000)
    assert not reaches_pod(overlay, {WORKFLOW: "run"}, mlflow, 5000)
    assert not any(
        reaches_pod(overlay, step_labels(name), {"app.kubernetes.io/name": "postgres"}, 5432) for name in names
    )


def uses_run_log(step: str) -> bool:
    """Return whether the function of a step, or a module that it is in, imports the run log."""
    name = step.replace("-", "_")
    file = ROOT / "previts" / "stages" / f"{name}.py"
    if file.exists():
        return "previts.runlog" in file.read_text()
    function = getattr(run_steps, name, None)  # `check_run` and the collecting steps have none
    return function is not None and "previts.runlog" in inspect.getsource(function)


def test_on_google_pods_reach_buckets_without_internet(gke: list[Document]):
    for labels in [step_labels("download"), step_labels("track"), {JOB: "job"}, {"app.kubernetes.io/name": "mlflow"}]:
        assert reaches(gke, labels, GOOGLE, 443)
        assert reaches(gke, labels, METADATA, 80) == (labels.get(STEP_LABEL) != "download")
    for name in ("postgres", "previts-reaper"):
        labels = {"app.kubernetes.io/name": name}
        assert not reaches(gke, labels, GOOGLE, 443)
        assert not reaches(gke, labels, METADATA, 80)


def test_only_pods_that_need_it_reach_the_control_plane(overlay: list[Document]):
    rule = egress(overlay, "runs-to-control-plane")
    address, port = rule["to"][0]["ipBlock"]["cidr"].split("/")[0], rule["ports"][0]["port"]
    assert address != "0.0.0.0"
    reached = {
        name: reaches(overlay, labels, address, port)
        for name, labels in {
            "step": step_labels("pretrain"),
            "driver": {WORKFLOW: "run"},
            "reaper": {"app.kubernetes.io/name": "previts-reaper"},
            "job": {JOB: "job"},
            "mlflow": {"app.kubernetes.io/name": "mlflow"},
            "postgres": {"app.kubernetes.io/name": "postgres"},
            "bucket": {"app.kubernetes.io/name": "bucket"},
            "another pod": {},
        }.items()
    }
    assert {name for name, does in reached.items() if does} == {"step", "driver", "reaper"}
