"""The manifests of an overlay as kustomize renders them, and what a cluster works out from them."""

import functools
import ipaddress
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = ["local", "gke", "kueue"]

Document = dict[str, Any]
Right = tuple[str, str, str]  # resource with its API group, name of the object or "", verb


@functools.cache
def rendered(overlay: str) -> list[Document]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed; it renders the manifests")
    command = ["kubectl", "kustomize", str(ROOT / "k8s" / "overlays" / overlay)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(text))


def of_kind(documents: list[Document], *kinds: str) -> list[Document]:
    return [document for document in documents if document["kind"] in kinds]


def pods(documents: list[Document]) -> list[Document]:
    """Return the specifications of all pods that the documents start."""
    found = [item["spec"]["template"]["spec"] for item in of_kind(documents, "Deployment", "StatefulSet")]
    jobs = [item["spec"]["jobTemplate"]["spec"]["template"]["spec"] for item in of_kind(documents, "CronJob")]
    return [*found, *jobs]


def containers(documents: list[Document]) -> list[Document]:
    return [item for pod in pods(documents) for item in (*pod["containers"], *pod.get("initContainers", []))]


def rights(rules: list[Document]) -> set[Right]:
    """Return the rights of RBAC rules."""
    return {
        (f"{resource}.{group}" if group else resource, name, verb)
        for rule in rules
        for group in rule.get("apiGroups", [])
        for resource in rule.get("resources", [])
        for name in rule.get("resourceNames") or [""]
        for verb in rule["verbs"]
    }


def rights_of_accounts(documents: list[Document]) -> dict[str, set[Right]]:
    """Return the rights in the namespace of each service account."""
    roles = {item["metadata"]["name"]: rights(item["rules"]) for item in of_kind(documents, "Role")}
    found: dict[str, set[Right]] = {item["metadata"]["name"]: set() for item in of_kind(documents, "ServiceAccount")}
    for binding in of_kind(documents, "RoleBinding"):
        for subject in binding["subjects"]:
            found[subject["name"]] |= roles[binding["roleRef"]["name"]]
    return found


def listed_rights(overlay: str = "") -> dict[str, set[Right]]:
    """Return the rights of each account in the table of k8s/README.md, and an empty set for those without rights.

    Args:
        overlay: Leave out the rights that the table has for another overlay only. By default all rights.
    """
    text = (ROOT / "k8s" / "README.md").read_text()
    without = re.search(r"^(.*) have no right in Kubernetes", text, re.MULTILINE)
    assert without is not None, "k8s/README.md does not name the accounts without rights"
    found: dict[str, set[Right]] = {account: set() for account in re.findall(r"`([a-z-]+)`", without[1])}
    for line in text.splitlines():
        if line.startswith("| `"):
            account, resource, name, verbs, reason = [cell.strip() for cell in line.strip("|").split("|")]
            only = re.findall(r"`overlays/([a-z]+)`", reason)
            granted = found.setdefault(account.strip("`"), set())
            if not overlay or not only or overlay in only:
                granted |= {(resource.strip("`"), name.strip("`"), verb) for verb in verbs.split(", ")}
    return found


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


def _rules(documents: list[Document], direction: str, labels: dict[str, str], port: int) -> list[list[Document]]:
    """Return the peers of each rule that allows a port for the pods with these labels."""
    found = []
    for policy in of_kind(documents, "NetworkPolicy"):
        if direction in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], labels):
            for rule in policy["spec"].get(direction.lower(), []):
                ports = [item["port"] for item in rule.get("ports", [])]
                if not ports or port in ports:
                    found.append(rule["to" if direction == "Egress" else "from"])
    return found


def reaches(documents: list[Document], labels: dict[str, str], address: str, port: int) -> bool:
    """Return whether pods with these labels reach an address."""
    peers = [peer for rule in _rules(documents, "Egress", labels, port) for peer in rule]
    return any(contains(peer["ipBlock"], address) for peer in peers if "ipBlock" in peer)


def reaches_pod(
    documents: list[Document], labels: dict[str, str], other: dict[str, str], port: int, namespace: str = "previts"
) -> bool:
    """Return whether pods with these labels reach the pods `other`: of another namespace, or of this one."""

    def among(rules: list[list[Document]], wanted: dict[str, str], space: str) -> bool:
        for peer in (peer for rule in rules for peer in rule if "ipBlock" not in peer):
            here = (
                selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": space})
                if ("namespaceSelector" in peer)
                else space == "previts"
            )
            if here and selects(peer.get("podSelector", {}), wanted):
                return True
        return False

    leaves = among(_rules(documents, "Egress", labels, port), other, namespace)
    enters = namespace != "previts" or among(_rules(documents, "Ingress", other, port), labels, "previts")
    return leaves and enters
