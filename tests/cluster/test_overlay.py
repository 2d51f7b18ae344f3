"""`k8s/overlays/local` as it is, with images built on this machine: Postgres, the bucket, and the reaper."""

import pytest
from manifests import ROOT, Document
from node import Node, NodeError
from probes import wait_for

import images

pytestmark = pytest.mark.cluster

OVERLAY = ROOT / "k8s" / "overlays" / "local"
IMAGES = ("launcher", "mlflow", "postgres", "bucket")


@pytest.fixture(scope="module")
def servers(node: Node, namespace: list[Document]) -> None:
    """Postgres and the bucket, ready."""
    if lacking := images.lacking(*IMAGES):
        pytest.skip(f"these images are not built: python tests/cluster/machine/images.py {' '.join(lacking)}")
    keys = {"mlflow-postgres": {"password": "p"}, "bucket": {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}}
    for name, content in keys.items():
        metadata = {"name": name, "namespace": "previts"}
        node.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": content})
    node.kubectl("apply", "--kustomize", str(OVERLAY))
    for kind in ("statefulset/postgres", "statefulset/bucket"):
        try:
            node.kubectl("rollout", "status", kind, "-n", "previts", "--timeout=400s", seconds=420)
        except NodeError as fault:
            label = f"app.kubernetes.io/name={kind.split('/')[1]}"
            pods = node.kubectl("describe", "pods", "-n", "previts", "-l", label)
            raise AssertionError(f"{fault}\n{pods[-5000:]}") from fault


def test_the_image_of_mlflow_creates_its_tables_in_postgres(node: Node, servers: None):
    query = ("psql", "-U", "mlflow", "-d", "mlflow", "-tAc", "SELECT count(*) FROM alembic_version")
    said = wait_for(node, "exec", "postgres-0", "-n", "previts", "--", *query, seconds=300)
    assert said.split() == ["1"]


def test_the_reaper_lists_jobs_with_its_own_account(node: Node, servers: None):
    node.kubectl("create", "job", "reap", "--from=cronjob/previts-reaper", "-n", "previts")
    try:
        wait_for(node, "wait", "job/reap", "-n", "previts", "--for=condition=Complete", "--timeout=100s", seconds=110)
    except NodeError as fault:
        raise AssertionError(node.kubectl("describe", "job,pods", "-n", "previts")[-5000:]) from fault
    finally:
        node.kubectl("delete", "job", "reap", "-n", "previts")
