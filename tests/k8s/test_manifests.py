"""The manifests of each overlay keep the rules: rights of accounts, security of pods, and network access."""

import ipaddress
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compiled_steps import steps

from components import _images
from pipelines.cluster import STEP_LABEL
from previts.launch import submit

ROOT = Path(__file__).parents[2]
OVERLAYS = ["local", "gke", "kueue"]
WORKFLOW, JOB = "workflows.argoproj.io/workflow", "training.kubeflow.org/job-name"
PRIVATE = ["10.1.2.3", "172.20.0.9", "192.168.1.1", "100.64.0.1", "127.0.0.1", "34.118.224.10", "fd00::1"]
METADATA = "169.254.169.254"
PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:4700::1111"]
GOOGLE = "199.36.153.8"

Document = dict[str, Any]


def rendered(overlay: str) -> list[Document]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed; it renders the manifests")
    command = ["kubectl", "kustomize", str(ROOT / "k8s" / "overlays" / overlay)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(text))


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> list[Document]:
    return rendered(request.param)


@pytest.fixture(scope="module")
def gke() -> list[Document]:
    return rendered("gke")


def of_kind(documents: list[Document], kind: str) -> list[Document]:
    return [document for document in documents if document["kind"] == kind]


def pods(documents: list[Document]) -> list[Document]:
    """Return the specifications of all pods that the documents start."""
    found = [
        item["spec"]["template"]["spec"] for kind in ("Deployment", "StatefulSet") for item in of_kind(documents, kind)
    ]
    jobs = [item["spec"]["jobTemplate"]["spec"]["template"]["spec"] for item in of_kind(documents, "CronJob")]
    return [*found, *jobs]


def containers(documents: list[Document]) -> list[Document]:
    return [item for pod in pods(documents) for item in (*pod["containers"], *pod.get("initContainers", []))]


def test_no_account_has_all_rights_or_rights_outside_the_namespace(overlay: list[Document]):
    assert not [item for item in overlay if item["kind"] in ("ClusterRole", "ClusterRoleBinding")]
    for role in of_kind(overlay, "Role"):
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert rule["resources"] != ["secrets"] or (rule["resourceNames"] and rule["verbs"] == ["get"])
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
    accounts = {item["metadata"]["name"] for item in of_kind(overlay, "ServiceAccount")}
    assert {subject["name"] for item in of_kind(overlay, "RoleBinding") for subject in item["subjects"]} <= accounts
    assert {pod["serviceAccountName"] for pod in pods(overlay)} <= accounts


def test_a_step_has_the_rights_that_the_launcher_needs_and_no_others_on_jobs(overlay: list[Document]):
    (role,) = [item for item in of_kind(overlay, "Role") if item["metadata"]["name"] == "previts-steps"]
    granted = {
        (verb, resource.partition("/")[0], group, resource.partition("/")[2])
        for rule in role["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
        for group in rule["apiGroups"]
    }
    assert set(submit.RIGHTS) <= granted
    jobs = {right for right in granted if right[1] == "pytorchjobs"}
    assert jobs == {right for right in submit.RIGHTS if right[1] == "pytorchjobs"}


def test_only_the_reaper_has_a_token(overlay: list[Document]):
    assert [pod["serviceAccountName"] for pod in pods(overlay) if pod["automountServiceAccountToken"]] == [
        "previts-reaper"
    ]


def test_every_pod_runs_without_root_on_a_read_only_file_system(overlay: list[Document]):
    for pod in pods(overlay):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert all("hostPath" not in volume for volume in pod.get("volumes", []))
        assert all("sizeLimit" in volume["emptyDir"] for volume in pod.get("volumes", []) if "emptyDir" in volume)
    for container in containers(overlay):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][bound])


def test_the_namespace_is_restricted(overlay: list[Document]):
    (namespace,) = of_kind(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert of_kind(overlay, "ResourceQuota")
    assert not of_kind(overlay, "Secret")


def test_the_manifests_use_the_image_names_of_the_components(overlay: list[Document]):
    ours = {container["image"] for container in containers(overlay) if "previts" in container["image"]}
    assert ours == {_images.LAUNCHER_IMAGE, _images.MLFLOW_IMAGE}
    assert not [item["image"] for item in containers(overlay) if ":" not in item["image"] or "latest" in item["image"]]


def selectors(document: Any) -> list[tuple[str, list[str]]]:
    """Return each label key that a document selects pods by, with the values that it names."""
    if isinstance(document, list):
        return [found for item in document for found in selectors(item)]
    if not isinstance(document, dict):
        return []
    found = [(key, [value]) for key, value in document.get("matchLabels", {}).items()]
    found += [(rule["key"], rule.get("values", [])) for rule in document.get("matchExpressions", [])]
    return found + selectors(list(document.values()))


def test_the_policies_select_steps_by_the_label_and_the_names_that_steps_have(overlay: list[Document]):
    names = {step["podMetadata"]["labels"][STEP_LABEL] for step in steps().values()}
    ours = [(key, values) for key, values in selectors(overlay) if key.startswith("previts/")]
    assert {key for key, _ in ours} == {STEP_LABEL}
    selected = {value for _, values in ours for value in values}
    assert selected
    assert selected <= names


def test_the_config_maps_that_a_step_reads_exist(gke: list[Document]):
    names = {item["configMapName"] for step in steps().values() for item in step.get("configMapAsEnv", [])}
    assert names == {"previts-steps", "previts-google"}
    assert names <= {item["metadata"]["name"] for item in of_kind(gke, "ConfigMap")}
    (google,) = [item for item in of_kind(gke, "ConfigMap") if item["metadata"]["name"] == "previts-google"]
    assert google["data"]["GOOGLE_APPLICATION_CREDENTIALS"] == "/etc/previts/credentials.json"
    assert "credentials.json" in google["data"]
    assert all(item["optional"] for step in steps().values() for item in step.get("configMapAsEnv", []))


# An evaluation of network policies that covers the fields used in these manifests.


def selects(selector: Document, labels: dict[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for rule in selector.get("matchExpressions", []):
        value = labels.get(rule["key"])
        holds = {
            "Exists": value is not None,
            "DoesNotExist": value is None,
            "In": value in rule.get("values", []),
            "NotIn": value not in rule.get("values", []),
        }[rule["operator"]]
        if not holds:
            return False
    return True


def contains(block: Document, address: str) -> bool:
    ip = ipaddress.ip_address(address)

    def inside(cidr: str) -> bool:
        network = ipaddress.ip_network(cidr)
        return ip.version == network.version and ip in network

    return inside(block["cidr"]) and not any(inside(cidr) for cidr in block.get("except", []))


def reaches(documents: list[Document], labels: dict[str, str], address: str, port: int) -> bool:
    for policy in of_kind(documents, "NetworkPolicy"):
        if "Egress" not in policy["spec"]["policyTypes"] or not selects(policy["spec"]["podSelector"], labels):
            continue
        for rule in policy["spec"].get("egress", []):
            ports = [item["port"] for item in rule.get("ports", [])]
            blocks = [peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer]
            if (not ports or port in ports) and any(contains(block, address) for block in blocks):
                return True
    return False


def step_labels(name: str) -> dict[str, str]:
    return {WORKFLOW: "run", STEP_LABEL: name}


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


def test_the_download_step_reaches_no_metadata_server_and_no_private_address(overlay: list[Document]):
    for address in [METADATA, "169.254.169.252", *PRIVATE]:
        for port in (80, 443, 988, 5000, 5432):
            assert not reaches(overlay, step_labels("download"), address, port), (address, port)


def test_on_google_pods_reach_buckets_without_internet(gke: list[Document]):
    for labels in [step_labels("download"), step_labels("track"), {JOB: "job"}, {"app.kubernetes.io/name": "mlflow"}]:
        assert reaches(gke, labels, GOOGLE, 443)
        assert reaches(gke, labels, METADATA, 80) == (labels.get(STEP_LABEL) != "download")
    for name in ("postgres", "previts-reaper"):
        labels = {"app.kubernetes.io/name": name}
        assert not reaches(gke, labels, GOOGLE, 443)
        assert not reaches(gke, labels, METADATA, 80)


def test_only_pods_that_need_it_reach_the_control_plane(gke: list[Document]):
    (plane,) = [item for item in of_kind(gke, "NetworkPolicy") if item["metadata"]["name"] == "to-control-plane"]
    address = plane["spec"]["egress"][0]["to"][0]["ipBlock"]["cidr"].split("/")[0]
    assert address != "0.0.0.0"
    reached = {
        name: reaches(gke, labels, address, 443)
        for name, labels in {
            "step": step_labels("pretrain"),
            "driver": {WORKFLOW: "run"},
            "reaper": {"app.kubernetes.io/name": "previts-reaper"},
            "job": {JOB: "job"},
            "mlflow": {"app.kubernetes.io/name": "mlflow"},
            "postgres": {"app.kubernetes.io/name": "postgres"},
        }.items()
    }
    assert reached == {"step": True, "driver": True, "reaper": True, "job": False, "mlflow": False, "postgres": False}
