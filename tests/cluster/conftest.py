"""The node, and the namespace `previts` on it."""

from collections.abc import Iterator

import boot
import programs
import pytest
import sandbox
import yaml
from manifests import ROOT, Document, of_kind
from node import Node
from probes import wait_for

OVERLAY = ROOT / "k8s" / "overlays" / "local"


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """A node for these tests. If one is up already (`node.py up`), the tests use it, and leave it running."""
    if reasons := [*sandbox.obstacles(), *filter(None, [programs.obstacle(*boot.PROGRAMS)])]:
        pytest.skip("; ".join(reasons))
    programs.build(*boot.PROGRAMS)
    node = Node()
    if node.is_up():
        yield node
        return
    try:
        seconds = node.up(3600)
        print(f"the node was up in {sum(seconds.values()):.0f} s {seconds}, with {node.memory() >> 20} MiB")
        yield node
        print(f"at the end the node and its pods had {node.memory() >> 20} MiB")
    finally:
        node.down()


@pytest.fixture(scope="session")
def namespace(node: Node) -> list[Document]:
    """The manifests of `k8s/overlays/local`, applied without the servers and the reaper."""
    documents = list(yaml.safe_load_all(node.kubectl("kustomize", str(OVERLAY))))
    node.apply(*of_kind(documents, "Namespace"))
    kinds = {document["kind"] for document in documents} - {"Deployment", "StatefulSet", "CronJob"}
    node.apply(*of_kind(documents, *kinds))
    for space in ("previts", "kubeflow"):
        wait_for(node, "get", "serviceaccount", "default", "-n", space)
    node.kubectl("wait", "resourcequota/previts", "-n", "previts", "--for=jsonpath={.status.hard.pods}=300")
    return documents
