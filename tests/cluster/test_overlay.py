"""`k8s/overlays/local` as it is, with images built on this machine: Postgres, the bucket, MLflow and the reaper."""

import pytest
from node import Node, NodeError
from probes import wait_for

pytestmark = pytest.mark.cluster


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
