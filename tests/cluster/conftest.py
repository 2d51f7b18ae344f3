"""The node, and the namespace `previts` on it."""

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

import boot
import programs
import pytest
import sandbox
import yaml
from manifests import ROOT, Document, of_kind
from node import Node, NodeError
from probes import wait_for

import images

if TYPE_CHECKING:
    from trainings import Trainings

OVERLAY = ROOT / "k8s" / "overlays" / "local"
IMAGES = ("launcher", "mlflow", "postgres", "bucket")
SERVERS = ("statefulset/postgres", "statefulset/bucket", "deployment/mlflow")


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


@pytest.fixture(scope="session")
def servers(node: Node) -> None:
    """`k8s/overlays/local` as it is: Postgres, the bucket and MLflow are ready, with random keys in their secrets."""
    if lacking := images.lacking(*IMAGES):
        build = f"python tests/cluster/machine/images.py {' '.join(lacking)}"
        pytest.skip(f"images are not built, or outdated: {images.obstacle(*lacking) or build}")
    node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "previts"}})
    keys = {
        "mlflow-postgres": {"password": secrets.token_hex(24)},
        "bucket": {"AWS_ACCESS_KEY_ID": "previts", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(24)},
    }
    for name, content in keys.items():
        # The servers of a node that was up before have the keys that they were started with.
        if not node.kubectl("get", "secret", name, "-n", "previts", "--ignore-not-found"):
            metadata = {"name": name, "namespace": "previts"}
            node.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": content})
    node.kubectl("apply", "--kustomize", str(OVERLAY))
    for kind in SERVERS:
        try:
            node.kubectl("rollout", "status", kind, "-n", "previts", "--timeout=600s", seconds=620)
        except NodeError as fault:
            label = f"app.kubernetes.io/name={kind.split('/')[1]}"
            pods = node.kubectl("describe", "pods", "-n", "previts", "-l", label)
            raise AssertionError(f"{fault}\n{pods[-5000:]}") from fault


@pytest.fixture(scope="session")
def trainings(node: Node, servers: None, tmp_path_factory: pytest.TempPathFactory) -> "Trainings":
    """Trainings on a small corpus in the bucket of the node."""
    if lacking := images.lacking("train"):
        pytest.skip(f"an image is not built, or outdated: python tests/cluster/machine/images.py {lacking[0]}")
    from trainings import Trainings

    return Trainings.on(node, tmp_path_factory.mktemp("trainings"))
