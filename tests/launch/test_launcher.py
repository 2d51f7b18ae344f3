"""The ways in which a job ends, on a real Kubernetes API server."""

import shutil
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from launching import fail, finish
from operator_by_hand import NOW, Operator

from previts.errors import InputError
from previts.launch import cluster
from previts.launch.app import training_app
from previts.launch.launcher import JobFailedError, run_on_cluster
from previts.launch.options import JobOptions
from previts.launch.pytorchjob import CONFINED, LABEL, LEASE

pytestmark = pytest.mark.slow
CONTAINER = {"name": "main", "image": "registry/train:7", "securityContext": CONFINED}
RESTRICTED = {
    "containers": [CONTAINER],
    "securityContext": {"runAsNonRoot": True, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}},
}


def test_a_job_succeeds_when_its_marker_exists(place, capfd):
    operator = place.run(finish(place), queue="research")
    (job,) = operator.seen
    assert job["metadata"]["labels"] == {LABEL: "previts", "kueue.x-k8s.io/queue-name": "research"}
    assert datetime.fromisoformat(job["metadata"]["annotations"][LEASE]) > datetime.now(UTC) + timedelta(minutes=10)
    printed = capfd.readouterr().err
    assert f"PyTorchJob {place.namespace}/{place.name()} is submitted" in printed
    assert "Running" in printed
    assert printed.count("step 1: loss 2.5") == printed.count("step 2: loss 2.4") == 1


def test_success_without_the_marker_is_a_failure(place):
    def no_marker(operator: Operator, job: dict[str, Any]) -> None:
        operator.condition(job, "Succeeded", "all done")

    with pytest.raises(JobFailedError, match="succeeded, but its output is not finished"):
        place.run(no_marker, spot=True)


def test_a_failed_job_with_its_marker_is_a_success(place):
    def act(operator: Operator, job: dict[str, Any]) -> None:
        place.marker.parent.mkdir(parents=True)
        place.marker.touch()
        operator.ended(job, "worker-0", 1)

    place.run(fail(act))


def test_the_error_shows_the_first_replica_that_failed_and_its_last_log_lines(place):
    def act(operator: Operator, job: dict[str, Any]) -> None:
        operator.say(job, "worker-0", *(f"line {number}" for number in range(30)), "previts: process 9: no such shard")
        operator.say(job, "master-0", "previts: process 0: PeerLostError: another process was lost")
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


def test_the_error_names_a_lack_of_memory(place):
    def act(operator: Operator, job: dict[str, Any]) -> None:
        operator.ended(job, "worker-0", 137, reason="OOMKilled")

    with pytest.raises(JobFailedError, match=r"worker-0: ran out of memory \(OOMKilled"):
        place.run(fail(act))


def test_a_job_is_submitted_again_after_a_preemption(place, capfd):
    def act(operator: Operator, job: dict[str, Any]) -> None:
        disruption = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "bye"}
        operator.pod(job, "worker-0", "Failed", conditions=[disruption])
        operator.ended(job, "master-0", 1)

    operator = place.run(fail(act), finish(place))
    first, second = operator.seen
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    printed = capfd.readouterr().err
    assert "worker-0: lost its node (PreemptionByScheduler): bye" in printed
    assert "A node or pod was lost: attempt 1 has failed" in printed


def test_a_job_is_submitted_again_after_another_user_deleted_a_pod(place, capfd):
    def act(operator: Operator, job: dict[str, Any]) -> None:
        for replica in ("worker-0", "master-0"):
            operator.event(f"{job['metadata']['name']}-{replica}", "Killing", "Stopping container pytorch")
        # The operator deletes the other pods at once.
        message = f"Deleted pod: {job['metadata']['name']}-master-0"
        operator.event(job["metadata"]["name"], "SuccessfulDeletePod", message, kind="PyTorchJob")
        operator.remove_pods(job)

    operator = place.run(fail(act), finish(place))
    assert len(operator.seen) == 2
    assert "**worker-0: was deleted by another user or program**" in capfd.readouterr().err


def test_the_error_of_a_job_whose_pods_the_operator_deleted_shows_their_last_state(place):
    def act(operator: Operator, job: dict[str, Any]) -> None:
        operator.say(job, "worker-0", "previts: process 0: no such shard")
        operator.pod(job, "worker-0")
        end = {"exitCode": 2, "reason": "Error", "finishedAt": NOW.format(5), "startedAt": NOW.format(0)}
        container = {"name": "pytorch", "image": "x", "imageID": "", "ready": True, "restartCount": 3}
        again = {**container, "state": {"running": {"startedAt": NOW.format(6)}}, "lastState": {"terminated": end}}
        operator.pod(job, "worker-0", containerStatuses=[again])
        operator.condition(job, "Running", "still")
        time.sleep(1)

    with pytest.raises(JobFailedError) as failure:
        place.run(fail(act), spot=True)
    page = str(failure.value)
    assert "**worker-0: ended with exit code 2**" in page
    assert page.endswith("```\nprevits: process 0: no such shard\n```\n")


def test_the_error_of_a_job_that_never_started_says_what_it_waited_for(place):
    def act(operator: Operator, job: dict[str, Any]) -> None:
        container = {"name": "pytorch", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
        for reason in ("ImagePullBackOff", "ContainerCreating"):  # the second one while the pod is being deleted
            state = {"waiting": {"reason": reason, "message": "no such image"}}
            operator.pod(job, "master-0", "Pending", containerStatuses=[{**container, "state": state}])
            if reason == "ImagePullBackOff":
                operator.condition(job, "Running", "still")
                time.sleep(1)

    with pytest.raises(JobFailedError, match=r"\*\*the job: .*; master-0: ImagePullBackOff: no such image\*\*"):
        place.run(fail(act))


def test_events_of_an_earlier_job_with_the_same_name_are_ignored(place):
    def taken(operator: Operator, job: dict[str, Any]) -> None:
        operator.event(f"{job['metadata']['name']}-worker-0", "TaintManagerEviction", "marked for deletion")
        time.sleep(1.1)  # events have times in whole seconds

    def broken(operator: Operator, job: dict[str, Any]) -> None:
        operator.ended(job, "master-0", 1)

    with pytest.raises(JobFailedError, match=r"\*\*master-0: ended with exit code 1\*\*"):
        place.run(fail(taken), fail(broken))


def test_the_number_of_resubmissions_is_limited(place):
    def act(operator: Operator, job: dict[str, Any]) -> None:
        operator.event(f"{job['metadata']['name']}-worker-0", "TaintManagerEviction", "marked for deletion")
        operator.ended(job, "master-0", 1)

    with pytest.raises(
        JobFailedError, match=r"PyTorchJob .* lost nodes or pods in 2 attempts; the same command resumes"
    ):
        place.run(fail(act), fail(act), resubmissions=1)


def test_the_launcher_prints_what_a_job_waits_for(place, capfd):
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
    printed = capfd.readouterr().err
    assert "Created, worker-0 finds no node: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu." in printed
    assert "Restarting" in printed


def test_a_job_that_another_user_deletes_is_reported(place):
    def script(operator: Operator, job: dict[str, Any]) -> None:
        operator.condition(job, "Running")
        operator.plane.request("DELETE", f"{place.path()}/{job['metadata']['name']}")

    with pytest.raises(
        InputError, match="was deleted by another user or program while it ran; the same command resumes"
    ):
        place.run(script)


def test_a_job_inherits_image_account_and_owner_of_the_pod_that_launches_it(place, tmp_path, monkeypatch):
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run-1", "uid": "the-uid"}
    spec = {**RESTRICTED, "serviceAccountName": "runner"}
    # The name that KFP gives to a retried step with labels. It is longer than a host name can be.
    name = "previts-full-x7k2p-metadata-1-2-retry-system-container-impl-1234567890"
    step = {"metadata": {"name": name, "ownerReferences": [{**owner, "controller": True}]}, "spec": spec}
    place.plane.request("POST", f"/api/v1/namespaces/{place.namespace}/pods", step)
    # The files and the environment of a pod.
    (tmp_path / "token").write_text("launcher-token")
    (tmp_path / "namespace").write_text(place.namespace)
    shutil.copy(place.plane.folder / "certificates" / "apiserver.crt", tmp_path / "ca.crt")
    monkeypatch.setattr(cluster, "ACCOUNTS", (str(tmp_path),))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(place.plane.port))
    monkeypatch.setenv("HOSTNAME", name[:63])
    monkeypatch.setenv("KFP_POD_NAME", name)
    with place.operator(finish(place)) as operator:
        app = training_app("pretrain", 8, [], nodes=2, gpus=8, target=str(place.marker.parent))
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
