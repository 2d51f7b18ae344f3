"""Submission to a real Kubernetes API server: the checks before a job, and jobs that exist already."""

from pathlib import Path
from typing import Any

import control_plane
import pytest
from kubernetes.client.exceptions import ApiException
from launching import finish, until
from operator_by_hand import Operator

from previts.errors import InputError
from previts.launch import submit
from previts.launch.cluster import connect, reason_of
from previts.launch.options import JobOptions
from previts.launch.pytorchjob import SPEC_HASH, build_manifest

pytestmark = pytest.mark.slow


def test_missing_rights_are_listed_before_any_object_is_created(place, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", place.plane.kubeconfig("guest", place.namespace))
    with pytest.raises(InputError) as denied:
        place.run()
    for right in ("create pytorchjobs.kubeflow.org", "get pods/log", "list events"):
        assert f"  {right}\n" in str(denied.value)
    assert not place.operator().jobs()


def test_a_cluster_without_pytorchjobs_is_reported(place):
    place.plane.remove_crd()
    try:
        with pytest.raises(
            InputError, match=r"does not know the resource kind PyTorchJob .* install the Kubeflow training operator"
        ):
            place.run()
    finally:
        place.plane.install_crd()


def test_an_exhausted_quota_is_named(place):
    hard = {"count/pytorchjobs.kubeflow.org": "0"}
    quotas = f"/api/v1/namespaces/{place.namespace}/resourcequotas"
    place.plane.request("POST", quotas, {"metadata": {"name": "jobs"}, "spec": {"hard": hard}})
    status = {"status": {"hard": hard, "used": {"count/pytorchjobs.kubeflow.org": "0"}}}
    place.plane.request("PATCH", f"{quotas}/jobs/status", status)

    def refused() -> bool:  # the admission plugin reads quotas in the background
        try:
            submit.preflight(connect(), build_manifest(place.app(), JobOptions(namespace=place.namespace)))
        except InputError as error:
            return "no quota left" in str(error) and "jobs" in str(error)
        return False

    until(refused)
    with pytest.raises(InputError, match=r"exceeded quota: jobs, requested: count/pytorchjobs.kubeflow.org=1"):
        place.run()


def test_an_exhausted_quota_does_not_keep_a_launcher_from_adopting_its_own_job(place):
    made = place.create(service_account="default")
    hard = {"count/pytorchjobs.kubeflow.org": "1"}
    quotas = f"/api/v1/namespaces/{place.namespace}/resourcequotas"
    place.plane.request("POST", quotas, {"metadata": {"name": "jobs"}, "spec": {"hard": hard}})
    place.plane.request("PATCH", f"{quotas}/jobs/status", {"status": {"hard": hard, "used": hard}})
    other = build_manifest(place.app(), JobOptions(namespace=place.namespace))
    other["metadata"]["name"] = "other"

    def refused() -> bool:
        try:
            connect().create(other, dry_run=True)
        except ApiException as error:
            return "exceeded quota" in reason_of(error)
        return False

    until(refused)
    operator = place.run(finish(place), service_account="default")
    assert [job["metadata"]["uid"] for job in operator.seen] == [made["metadata"]["uid"]]


def test_an_unknown_field_is_refused_before_any_object_is_created(place):
    with pytest.raises(InputError, match=r"refuses PyTorchJob .*unknown field .*valu"):
        place.run(env=[{"name": "A", "valu": "b"}])
    assert not place.operator().jobs()


def test_the_launcher_does_not_wait_long_for_a_server_that_does_not_answer(place, monkeypatch):
    config = Path(place.plane.kubeconfig("launcher", place.namespace))
    other = config.with_name("nowhere")
    other.write_text(config.read_text().replace(str(place.plane.port), str(control_plane.free_port())))
    monkeypatch.setenv("KUBECONFIG", str(other))
    monkeypatch.setattr(submit, "FIRST_RETRY_SECONDS", 1.0)
    with pytest.raises(ConnectionError, match="has not answered for 1 s"):
        place.run()


def test_unknown_credentials_are_reported(place, monkeypatch):
    config = Path(place.plane.kubeconfig("launcher", place.namespace))
    other = config.with_name("unknown")
    other.write_text(config.read_text().replace("launcher-token", "unknown-token"))
    monkeypatch.setenv("KUBECONFIG", str(other))
    with pytest.raises(InputError, match=r"refuses .*Unauthorized; check the credentials"):
        place.run()


def test_a_different_job_with_the_same_name_is_neither_adopted_nor_deleted(place):
    made = place.create(shm="1Gi")
    with pytest.raises(InputError, match=r"already exists in namespace .* with other settings"):
        place.run()
    place.plane.request("PATCH", f"{place.path()}/{place.name()}", {"metadata": {"annotations": {SPEC_HASH: None}}})
    with pytest.raises(InputError, match="with other settings: another program created it"):
        place.run()
    assert place.plane.request("GET", f"{place.path()}/{place.name()}")["metadata"]["uid"] == made["metadata"]["uid"]


def test_a_finished_job_is_replaced(place):
    def failed(operator: Operator, job: dict[str, Any]) -> None:
        operator.condition(job, "Failed")

    with place.operator(failed) as operator:
        made = place.create(shm="1Gi")
        until(lambda: operator.job(place.name()).get("status"))
    operator = place.run(finish(place))
    assert operator.seen[-1]["metadata"]["uid"] != made["metadata"]["uid"]
    assert operator.job(place.name())["metadata"]["uid"] == operator.seen[-1]["metadata"]["uid"]
