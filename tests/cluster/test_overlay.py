"""`k8s/overlays/local` as it is, with images built on this machine: Postgres, the bucket, MLflow and the reaper."""

import json
import os
import time

import pytest
from manifests import of_kind, rendered
from node import Node, NodeError
from probes import answer_of, pod, step, wait_for
from runbook import Runbook

import images

pytestmark = pytest.mark.cluster

# What a step does with the run log, and where the bucket has the file then.
LOG = """
import json, os, urllib.request, uuid
import boto3, mlflow
with urllib.request.urlopen(os.environ["MLFLOW_TRACKING_URI"] + "/health", timeout=60) as answer:
    health = answer.status
client = mlflow.MlflowClient()
experiment = client.create_experiment(f"cluster test {uuid.uuid4()}")
run = client.create_run(experiment).info.run_id
client.log_metric(run, "score", 0.25)
client.log_text(run, "written by a step", "note.txt")
bucket = boto3.client("s3")
found = bucket.list_objects_v2(Bucket="previts", Prefix="mlflow/").get("Contents", [])
keys = [item["Key"] for item in found if run in item["Key"]]
texts = [bucket.get_object(Bucket="previts", Key=key)["Body"].read().decode() for key in keys]
client.delete_experiment(experiment)
print(json.dumps({"health": health, "run": run, "keys": keys, "texts": texts}))
"""

# From its first moment on, a step looks up the bucket and connects to it.
CALLS = """
import json, socket, threading, time
names, connections = [], []

def connect(address):
    for _ in range(200):
        start = time.monotonic()
        socket.create_connection(address, timeout=30).close()
        connections.append(time.monotonic() - start)

for number in range(2000):
    start = time.monotonic()
    (*_, address), *_ = socket.getaddrinfo("bucket.previts", 8333, type=socket.SOCK_STREAM)
    names.append(time.monotonic() - start)
    if number == 0:
        other = threading.Thread(target=connect, args=(address,))
        other.start()
other.join()
print(json.dumps([names, connections]))
"""


def sql(node: Node, query: str) -> str:
    psql = ("psql", "-U", "mlflow", "-d", "mlflow", "-tAc", query)
    return node.kubectl("exec", "postgres-0", "-n", "previts", "--", *psql).strip()


def test_the_image_of_mlflow_creates_its_tables_in_postgres(node: Node, servers: Runbook):
    assert sql(node, "SELECT count(*) FROM alembic_version") == "1"


def test_a_step_writes_numbers_to_postgres_and_files_to_the_bucket_through_mlflow(node: Node, servers: Runbook):
    said = answer_of(node, step("overlay-log", "evaluate", images.NAMES["mlflow"], LOG))
    assert said["health"] == 200
    assert said["texts"] == ["written by a step"]
    assert said["keys"][0].endswith(f"/{said['run']}/artifacts/note.txt")
    assert sql(node, f"SELECT key, value FROM metrics WHERE run_uuid = '{said['run']}'") == "score|0.25"


def test_a_step_that_has_just_started_finds_and_reaches_the_bucket(node: Node, servers: Runbook):
    names, connections = answer_of(node, step("overlay-calls", "track", images.NAMES["launcher"], CALLS))
    assert (len(names), len(connections)) == (2000, 200)
    # A lost packet of a look-up costs 5 s.
    assert max(names) < 4
    # The bucket refuses a pod whose address the policies do not know yet. TCP tries again after 1, 3 and 7 s.
    assert max(connections) < 10


def test_every_deployment_and_stateful_set_has_its_pods(node: Node, servers: Runbook):
    listed = json.loads(node.kubectl("get", "deployments,statefulsets", "-n", "previts", "-o", "json"))["items"]
    ready = {item["metadata"]["name"]: item["status"].get("readyReplicas", 0) for item in listed}
    wanted = of_kind(rendered("local"), "Deployment", "StatefulSet")
    assert ready == {item["metadata"]["name"]: item["spec"]["replicas"] for item in wanted}


def test_pod_security_refused_no_pod_of_the_overlay(node: Node, servers: Runbook):
    """A job that asks for too much shows how a refusal looks."""
    document = pod("", "previts", {}, "default")
    spec = {**document["spec"], "hostNetwork": True, "restartPolicy": "Never"}
    name = f"overlay-greedy-{os.getpid()}"  # events stay for an hour
    greedy = {"metadata": {"name": name, "namespace": "previts"}, "spec": {"template": {"spec": spec}}}
    node.apply({"apiVersion": "batch/v1", "kind": "Job", **greedy})
    try:
        deadline = time.monotonic() + 60
        while name not in (refused := refusals(node)):
            assert time.monotonic() < deadline, "no event names the refused pod"
            time.sleep(0.5)
        assert {item for item in refused if not item.startswith("overlay-greedy-")} == set()
    finally:
        node.kubectl("delete", "job", name, "-n", "previts")


def refusals(node: Node) -> set[str]:
    """Return the names of the objects whose pods Pod Security refused."""
    events = json.loads(node.kubectl("get", "events", "-n", "previts", "-o", "json"))["items"]
    return {event["involvedObject"]["name"] for event in events if "violates PodSecurity" in event["message"]}


def test_the_reaper_lists_jobs_with_its_own_account(node: Node, servers: Runbook):
    node.kubectl("create", "job", "overlay-reap", "--from=cronjob/previts-reaper", "-n", "previts")
    complete = ("job/overlay-reap", "-n", "previts", "--for=condition=Complete", "--timeout=100s")
    try:
        wait_for(node, "wait", *complete, seconds=110)
    except NodeError as fault:
        raise AssertionError(node.kubectl("describe", "job,pods", "-n", "previts")[-5000:]) from fault
    finally:
        node.kubectl("delete", "job", "overlay-reap", "-n", "previts")
