"""The launcher against a real Kubernetes API server; operator, nodes and garbage collector are played by a script."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import control_plane
import pytest
from control_plane import ControlPlane, Kubelet
from kubernetes.config import incluster_config
from operator_by_hand import Operator, Script, open_namespace
from torchx.runner import get_runner
from torchx.specs import AppState

from previts.errors import InputError
from previts.launch import cluster, conditions, launcher, submit, watch
from previts.launch.app import training_app
from previts.launch.cluster import connect
from previts.launch.launcher import JobFailedError, run_on_cluster
from previts.launch.options import JobOptions
from previts.launch.pytorchjob import CONFINED, LABEL, LEASE, SPEC_HASH, job_name, materialise
from previts.launch.reaper import reap
from previts.launch.surroundings import inherited
from previts.launch.watch import changes

pytestmark = pytest.mark.slow
numbers = itertools.count()
CONTAINER = {"name": "main", "image": "registry/train:7", "securityContext": CONFINED}
RESTRICTED = {
    "containers": [CONTAINER],
    "securityContext": {"runAsNonRoot": True, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}},
}


@dataclass
class Place:
    """A namespace of a test's own, and a folder that training would write to."""

    plane: ControlPlane
    kubelet: Kubelet
    namespace: str
    marker: Path

    def app(self, *arguments: str) -> Any:
        target = str(self.marker.parent)
        return training_app("pretrain", 8, arguments, 2, image="registry/train:1", gpus=8, target=target)

    def name(self) -> str:
        return job_name(self.app())

    def run(self, *scripts: Script, **options: Any) -> Operator:
        """Launch, and answer each job with the next script."""
        with self.operator(*scripts) as operator:
            run_on_cluster(self.app(), JobOptions(image="registry/train:1", **options), self.marker.exists)
        return operator

    def operator(self, *scripts: Script) -> Operator:
        return Operator(self.plane, self.kubelet, self.namespace, *scripts)

    def create(self, annotations: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
        """Make a job as another would."""
        job = materialise(self.app(), JobOptions(image="registry/train:1", namespace=self.namespace, **options))
        job["metadata"]["annotations"].update(annotations or {})
        return self.plane.request("POST", self.path(), job)

    def path(self) -> str:
        return f"/apis/kubeflow.org/v1/namespaces/{self.namespace}/pytorchjobs"


@pytest.fixture
def place(plane: ControlPlane, kubelet: Kubelet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    namespace = f"team-{next(numbers)}"
    open_namespace(plane, namespace)
    monkeypatch.setenv("KUBECONFIG", plane.kubeconfig("launcher", namespace))
    monkeypatch.setattr(launcher, "MARKER_SECONDS", 1.0)
    monkeypatch.setattr(watch, "DRAIN_SECONDS", 2.0)
    return Place(plane, kubelet, namespace, tmp_path / "checkpoint" / "manifest.json")


def finish(place: Place) -> Script:
    """Return a script in which all goes well."""

    def script(operator: Operator, job: dict[str, Any]) -> None:
        operator.condition(job, "Created")
        operator.say(job, "master-0", "step 1: loss 2.5", "step 2: loss 2.4")
        operator.pod(job, "master-0")
        operator.pod(job, "worker-0")
        operator.condition(job, "Running")
        time.sleep(1.5)
        place.marker.parent.mkdir(parents=True, exist_ok=True)
        place.marker.touch()
        operator.kubelet.over.add(f"{job['metadata']['name']}-master-0")
        operator.ended(job, "master-0", 0)
        operator.condition(job, "Succeeded")

    return script


def fail(act: Callable[[Operator, dict[str, Any]], None]) -> Script:
    """Return a script in which something happens to a job that runs, and it fails."""

    def script(operator: Operator, job: dict[str, Any]) -> None:
        operator.condition(job, "Created")
        operator.pod(job, "master-0")
        operator.pod(job, "worker-0")
        operator.condition(job, "Running")
        act(operator, job)
        operator.condition(job, "Failed", "PyTorchJob has failed because 1 Worker replica(s) failed.")

    return script


def waits(operator: Operator, job: dict[str, Any]) -> None:
    operator.condition(job, "Created")


def runs(operator: Operator, job: dict[str, Any]) -> None:
    operator.condition(job, "Created")
    operator.condition(job, "Running")


def until(holds: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come to that")


def test_a_job_runs_and_its_work_is_believed_once_it_is_there(place, capfd):
    operator = place.run(finish(place), queue="research")
    (job,) = operator.seen
    assert job["metadata"]["labels"] == {LABEL: "previts", "kueue.x-k8s.io/queue-name": "research"}
    assert datetime.fromisoformat(job["metadata"]["annotations"][LEASE]) > datetime.now(UTC) + timedelta(minutes=10)
    said = capfd.readouterr().err
    assert f"PyTorchJob {place.namespace}/{place.name()} is submitted" in said
    assert "Running" in said
    assert said.count("step 1: loss 2.5") == said.count("step 2: loss 2.4") == 1


def test_success_without_the_marker_is_failure(place):
    def lies(operator: Operator, job: dict[str, Any]) -> None:
        operator.condition(job, "Succeeded", "all done")

    with pytest.raises(JobFailedError, match="says that it succeeded, and has not finished what it was to write"):
        place.run(lies, spot=True)


def test_a_failed_job_whose_work_is_there_is_done(place):
    def act(operator: Operator, job: dict[str, Any]) -> None:
        place.marker.parent.mkdir(parents=True)
        place.marker.touch()
        operator.ended(job, "worker-0", 1)

    place.run(fail(act))


def test_the_first_replica_that_failed_is_told_with_its_last_words(place):
    def act(operator: Operator, job: dict[str, Any]) -> None:
        operator.say(job, "worker-0", *(f"line {number}" for number in range(30)), "previts: process 9: no such shard")
        operator.say(job, "master-0", "previts: process 0: ConnectionError: another process was lost")
        operator.ended(job, "worker-0", 2, second=5)
        operator.ended(job, "master-0", 1, second=9)

    with pytest.raises(JobFailedError) as failure:
        place.run(fail(act))
    page = str(failure.value)
    assert "**worker-0: ended with exit code 2**" in page
    assert "| worker-0 | node-1 | Failed | ended with exit code 2 |" in page
    assert "previts: process 9: no such shard\n```" in page
    assert "line 29" in page
    assert "line 5\n" not in page


def test_a_lack_of_memory_is_called_so(place):
    def act(operator: Operator, job: dict[str, Any]) -> None:
        operator.ended(job, "worker-0", 137, reason="OOMKilled")

    with pytest.raises(JobFailedError, match=r"worker-0: ran out of memory \(OOMKilled"):
        place.run(fail(act))


def test_a_job_whose_node_was_taken_is_begun_again(place, capfd):
    def act(operator: Operator, job: dict[str, Any]) -> None:
        disruption = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "bye"}
        operator.pod(job, "worker-0", "Failed", conditions=[disruption])
        operator.ended(job, "master-0", 1)

    operator = place.run(fail(act), finish(place))
    first, second = operator.seen
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    said = capfd.readouterr().err
    assert "worker-0: lost its node (PreemptionByScheduler): bye" in said
    assert "attempt 1 is over" in said


def test_resubmission_has_a_limit(place):
    def act(operator: Operator, job: dict[str, Any]) -> None:
        operator.event(f"{job['metadata']['name']}-worker-0", "TaintManagerEviction", "marked for deletion")
        operator.ended(job, "master-0", 1)

    with pytest.raises(JobFailedError, match=r"nodes were taken from PyTorchJob .* 2 times; the same command goes on"):
        place.run(fail(act), fail(act), resubmissions=1)


def test_what_a_job_waits_for_is_said(place, capfd):
    def script(operator: Operator, job: dict[str, Any]) -> None:
        message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
        unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        operator.pod(job, "worker-0", "Pending", conditions=[unschedulable])
        operator.condition(job, "Created")
        time.sleep(1)
        operator.condition(job, "Restarting")
        time.sleep(0.5)
        finish(place)(operator, job)

    place.run(script)
    said = capfd.readouterr().err
    assert "Created, worker-0 finds no node: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu." in said
    assert "Restarting" in said


def test_a_job_that_someone_deletes_is_missed(place):
    def script(operator: Operator, job: dict[str, Any]) -> None:
        operator.condition(job, "Running")
        operator.plane.request("DELETE", f"{place.path()}/{job['metadata']['name']}")

    with pytest.raises(InputError, match="was deleted by someone else while it ran; the same command goes on"):
        place.run(script)


def test_a_job_that_does_the_same_is_taken_over(place, capfd):
    made = place.create({LEASE: "2020-01-01T00:00:00+00:00"}, service_account="default")
    operator = place.run(finish(place), service_account="default")
    assert [job["metadata"]["uid"] for job in operator.seen] == [made["metadata"]["uid"]]
    assert "goes on" in capfd.readouterr().err
    # its new launcher's lease
    renewed = operator.job(place.name())["metadata"]["annotations"][LEASE]
    assert datetime.fromisoformat(renewed) > datetime.now(UTC)


def test_a_job_of_the_same_name_that_does_another_thing_is_left_alone(place):
    made = place.create(shm="1Gi")
    with pytest.raises(InputError, match=r"is there already in namespace .* and is not the same"):
        place.run()
    place.plane.request("PATCH", f"{place.path()}/{place.name()}", {"metadata": {"annotations": {SPEC_HASH: None}}})
    with pytest.raises(InputError, match="is not the same: it was made by another"):
        place.run()
    assert place.plane.request("GET", f"{place.path()}/{place.name()}")["metadata"]["uid"] == made["metadata"]["uid"]


def test_a_job_that_is_over_makes_way(place):
    def failed(operator: Operator, job: dict[str, Any]) -> None:
        operator.condition(job, "Failed")

    with place.operator(failed) as operator:
        made = place.create(shm="1Gi")
        until(lambda: operator.job(place.name()).get("status"))
    operator = place.run(finish(place))
    assert operator.seen[-1]["metadata"]["uid"] != made["metadata"]["uid"]
    assert operator.job(place.name())["metadata"]["uid"] == operator.seen[-1]["metadata"]["uid"]


def test_a_watch_goes_on_after_the_server_has_forgotten_where_it_was(place):
    made = place.create()
    name, uid = made["metadata"]["name"], made["metadata"]["uid"]
    server = connect()
    _, version = server.jobs(name)
    seen = changes(server, name, uid, pulse=1)
    assert next(seen)["metadata"]["uid"] == uid
    other = {"metadata": {"annotations": {"other": "change"}}}
    for _ in range(3):  # of something else, while nothing happens to the job
        place.plane.request("PATCH", f"/api/v1/namespaces/{place.namespace}", other)
        other["metadata"]["annotations"]["other"] += "."
    place.plane.compact()
    with pytest.raises(Exception, match=r"too old|compacted") as gone:
        list(server.watch(name, str(int(version) - 1), 1))
    assert gone.value.status == 410
    with place.operator(runs):
        assert until(lambda: next(seen).get("status"))["conditions"]
    place.plane.request("DELETE", f"{place.path()}/{name}")
    assert list(seen)[-1] is None


def test_an_api_server_that_dies_and_comes_back_costs_nothing(place, capfd):
    def script(operator: Operator, job: dict[str, Any]) -> None:
        operator.condition(job, "Created")
        operator.condition(job, "Running")
        operator.plane.kill()
        time.sleep(2)
        operator.plane.start()
        operator.plane.compact()
        finish(place)(operator, job)

    operator = place.run(script)
    assert len(operator.seen) == 1
    assert "step 2" in capfd.readouterr().err


STARTER = """
import sys
from previts import cli
from previts.launch.app import training_app
from previts.launch.launcher import run_on_cluster
from previts.launch.options import JobOptions

with cli.readable_errors():
    app = training_app("pretrain", 8, [], 2, gpus=8, target=sys.argv[1])
    run_on_cluster(app, JobOptions(image="registry/train:1"), lambda: False)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_deletes_the_job(place, number):
    with place.operator(runs) as operator:
        starter = [sys.executable, "-c", STARTER, str(place.marker.parent)]
        process = subprocess.Popen(starter, stderr=subprocess.PIPE, text=True)
        until(lambda: operator.seen and operator.job(place.name()).get("status"))
        time.sleep(1)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 128 + number, said
        assert "Traceback" not in said
        until(lambda: not operator.jobs())


def test_the_job_of_a_launcher_that_was_killed_is_taken_over_by_the_next(place):
    with place.operator(runs) as operator:
        starter = [sys.executable, "-c", STARTER, str(place.marker.parent)]
        process = subprocess.Popen(starter, stderr=subprocess.DEVNULL)
        until(lambda: operator.seen and operator.job(place.name()).get("status"))
        process.kill()
        process.wait()
    (killed,) = operator.seen
    operator = place.run(finish(place))
    assert [job["metadata"]["uid"] for job in operator.seen] == [killed["metadata"]["uid"]]


def test_rights_that_are_lacking_are_listed_before_anything_is_made(place, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", place.plane.kubeconfig("stranger", place.namespace))
    with pytest.raises(InputError) as denied:
        place.run()
    for right in ("create pytorchjobs.kubeflow.org", "get pods/log", "list events"):
        assert f"  {right}\n" in str(denied.value)
    assert not place.operator().jobs()


def test_a_cluster_without_the_resource_says_so(place):
    place.plane.remove_crd()
    try:
        with pytest.raises(InputError, match=r"has no PyTorchJob .* install the Kubeflow training operator"):
            place.run()
    finally:
        place.plane.install_crd()


def test_a_quota_that_is_used_up_is_named(place):
    hard = {"count/pytorchjobs.kubeflow.org": "0"}
    quotas = f"/api/v1/namespaces/{place.namespace}/resourcequotas"
    place.plane.request("POST", quotas, {"metadata": {"name": "jobs"}, "spec": {"hard": hard}})
    status = {"status": {"hard": hard, "used": {"count/pytorchjobs.kubeflow.org": "0"}}}
    place.plane.request("PATCH", f"{quotas}/jobs/status", status)

    def refused() -> bool:  # admission learns of a quota by a watch of its own
        try:
            submit.preflight(connect(), materialise(place.app(), JobOptions(namespace=place.namespace)))
        except InputError as error:
            return "no quota left" in str(error) and "jobs" in str(error)
        return False

    until(refused)
    with pytest.raises(InputError, match=r"exceeded quota: jobs, requested: count/pytorchjobs.kubeflow.org=1"):
        place.run()


def test_a_setting_that_the_server_does_not_know_is_refused_before_anything_is_made(place):
    with pytest.raises(InputError, match=r"refuses PyTorchJob .*unknown field .*valu"):
        place.run(env=[{"name": "A", "valu": "b"}])
    assert not place.operator().jobs()


def test_a_server_that_is_nowhere_is_not_waited_for_long(place, monkeypatch):
    config = Path(place.plane.kubeconfig("launcher", place.namespace))
    other = config.with_name("nowhere")
    other.write_text(config.read_text().replace(str(place.plane.port), str(control_plane.free_port())))
    monkeypatch.setenv("KUBECONFIG", str(other))
    monkeypatch.setattr(submit, "FIRST_PATIENCE", 1.0)
    with pytest.raises(ConnectionError, match="has not answered for 1 s"):
        place.run()


def test_a_machine_without_a_cluster_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"found no Kubernetes cluster"):
        connect()


def test_leases_are_renewed_and_jobs_without_a_launcher_reaped(place, monkeypatch):
    old = {LEASE: "2020-01-01T00:00:00+00:00"}
    monkeypatch.setenv("KUBECONFIG", place.plane.kubeconfig("reaper", place.namespace))
    server = connect()
    monkeypatch.setenv("KUBECONFIG", place.plane.kubeconfig("launcher", place.namespace))

    def script(operator: Operator, job: dict[str, Any]) -> None:
        # As if its launcher had said nothing for long, and then it does.
        operator.plane.request("PATCH", f"{place.path()}/{place.name()}", {"metadata": {"annotations": old}})
        for message in "abcdef":
            time.sleep(0.5)
            operator.condition(job, "Running", message)
        until(lambda: not operator.job(place.name())["metadata"]["annotations"][LEASE].startswith("2020"))
        assert reap(server, datetime.now(UTC)) == []
        finish(place)(operator, job)

    monkeypatch.setattr(launcher, "RENEWALS", 1000)
    place.run(script)
    with place.operator(runs, runs, waits) as operator:
        place.plane.request("DELETE", f"{place.path()}/{place.name()}")
        until(lambda: not operator.jobs())
        place.create(old)
        until(lambda: conditions.name(operator.job(place.name())) == "Running")
        assert reap(server, datetime.now(UTC)) == [place.name()]
        until(lambda: not operator.jobs())
        place.create()  # nobody's
        assert reap(server, datetime.now(UTC)) == []
        operator.scripts.clear()


def test_a_pod_of_a_pipeline_hands_on_its_image_its_account_and_its_owner(place, tmp_path, monkeypatch):
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run-1", "uid": "the-uid"}
    spec = {**RESTRICTED, "serviceAccountName": "runner"}
    step = {"metadata": {"name": "step-1", "ownerReferences": [{**owner, "controller": True}]}, "spec": spec}
    place.plane.request("POST", f"/api/v1/namespaces/{place.namespace}/pods", step)
    # What a pod finds in its own file system, and in its environment.
    (tmp_path / "token").write_text("launcher-token")
    (tmp_path / "namespace").write_text(place.namespace)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    certificate = place.plane.folder / "certificates" / "apiserver.crt"
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(certificate))
    monkeypatch.setattr(cluster, "NAMESPACE_FILE", str(tmp_path / "namespace"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(place.plane.port))
    monkeypatch.setenv("HOSTNAME", "step-1")
    with place.operator(finish(place)) as operator:
        app = training_app("pretrain", 8, [], 2, gpus=8, target=str(place.marker.parent))
        run_on_cluster(app, JobOptions(), place.marker.exists)
        monkeypatch.setenv("PREVITS_TRAIN_IMAGE", "registry/train:8")
        operator.scripts.append(finish(place))
        place.marker.unlink()
        run_on_cluster(app, JobOptions(), place.marker.exists)
    job, other = operator.seen
    assert other["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["image"][-1] == "8"
    assert job["metadata"]["ownerReferences"] == [owner]
    pod = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["containers"][0]["image"]) == ("runner", "registry/train:7")


def test_a_job_vanishes_with_what_owns_the_pod_that_launched_it():
    pod = {
        "metadata": {"name": "step", "uid": "2", "ownerReferences": [
            {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run", "uid": "1", "controller": True}
        ]},
        "spec": {"serviceAccountName": "runner", "containers": [
            {"name": "wait", "image": "argo"}, {"name": "main", "image": "registry/train:1"}
        ]},
    }  # fmt: skip
    found = inherited(pod)
    assert (found.image, found.account) == ("registry/train:1", "runner")
    assert found.owner == {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run", "uid": "1"}
    del pod["metadata"]["ownerReferences"]
    assert inherited(pod).owner == {"apiVersion": "v1", "kind": "Pod", "name": "step", "uid": "2"}


def test_torchx_submits_lists_describes_reads_and_cancels(place):
    with place.operator(finish(place), runs) as operator, get_runner() as runner:
        cfg = {"image": "registry/train:1", "namespace": place.namespace}
        handle = runner.run(place.app(), scheduler="pytorchjob", cfg=cfg, workspace="")
        assert handle.endswith(f"/{place.namespace}:{place.name()}")
        assert LEASE not in operator.job(place.name())["metadata"]["annotations"]  # nobody waits
        until(lambda: runner.status(handle).state == AppState.SUCCEEDED)
        lines = list(runner.log_lines(handle, "pretrain", 0, regex="loss"))
        assert lines[:2] == ["step 1: loss 2.5\n", "step 2: loss 2.4\n"]
        status = runner.status(handle)
        assert [replica.state for replica in status.roles[0].replicas] == [AppState.SUCCEEDED, AppState.RUNNING]
        (listed,) = runner.list("pytorchjob", {"namespace": place.namespace})
        assert (listed.name, listed.state) == (place.name(), AppState.SUCCEEDED)
        runner.run(place.app(), scheduler="pytorchjob", cfg=cfg, workspace="")  # the one that is over makes way
        until(lambda: runner.status(handle).state == AppState.RUNNING)
        runner.cancel(handle)
        until(lambda: runner.status(handle) is None)


def test_torchx_finds_the_scheduler_beside_its_own():
    command = [sys.executable, "-m", "torchx.cli.main", "runopts", "pytorchjob"]
    run = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()}, check=True
    )
    assert "lease_seconds" in run.stdout
