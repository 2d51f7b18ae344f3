"""The node, and the namespace `previts` on it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import boot
import programs
import pytest
import runbook
import sandbox
import yaml
from manifests import ROOT, Document, of_kind
from node import Node
from probes import wait_for
from runbook import Runbook

import images

if TYPE_CHECKING:
    from trainings import Trainings

OVERLAY = ROOT / "k8s" / "overlays" / "local"
IMAGES = ("launcher", "mlflow", "postgres", "bucket")


@pytest.fixture(scope="session")
def built() -> None:
    """The programs of a node; skips where no node can run."""
    if reasons := [*sandbox.obstacles(), *filter(None, [programs.obstacle(*boot.PROGRAMS)])]:
        pytest.skip("; ".join(reasons))
    programs.build(*boot.PROGRAMS)


@pytest.fixture(scope="session")
def node(built: None) -> Iterator[Node]:
    """A node for these tests. If one is up already (`node.py up`), the tests use it, and leave it running."""
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
def local(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runbook]:
    """The runbook for one machine, of which no command has been run."""
    if not images.obstacle():
        images.build(*images.lacking())
    if lacking := images.lacking(*IMAGES):
        build = f"python tests/cluster/machine/images.py {' '.join(lacking)}"
        pytest.skip(f"images are not built, or outdated: {images.obstacle(*lacking) or build}")
    local = runbook.start(node, tmp_path_factory.mktemp("runbook"))
    yield local
    local.shell.close()


@pytest.fixture(scope="session")
def servers(node: Node, local: Runbook) -> Runbook:
    """The runbook after the commands that bring up `k8s/overlays/local`: Postgres, the bucket and MLflow are ready."""
    try:
        local.run(until=runbook.READY)
    except AssertionError as fault:
        pods = node.kubectl(
            "describe", "pods", "-n", "previts", "-l", "app.kubernetes.io/name in (postgres,bucket,mlflow)"
        )
        raise AssertionError(f"{fault}\n{pods[-8000:]}") from fault
    return local


@pytest.fixture(scope="session")
def trainings(node: Node, servers: Runbook, tmp_path_factory: pytest.TempPathFactory) -> "Trainings":
    """Trainings on a small corpus in the bucket of the node."""
    if lacking := images.lacking("train"):
        pytest.skip(f"an image is not built, or outdated: python tests/cluster/machine/images.py {lacking[0]}")
    from trainings import Trainings

    return Trainings.on(node, tmp_path_factory.mktemp("trainings"))
