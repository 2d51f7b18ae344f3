"""Which jobs the reaper deletes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from scripted_api import listed

from previts.launch import cluster, reaper
from previts.launch.pytorchjob import LEASE
from previts.launch.reaper import reap

NOW = datetime(2026, 11, 27, 10, 0, tzinfo=UTC)


def job(lease: str | None, state: str = "Running", **metadata: Any) -> dict[str, Any]:
    annotations = {} if lease is None else {LEASE: lease}
    return {
        "metadata": {"name": "job", "uid": "1", "resourceVersion": "7", "annotations": annotations, **metadata},
        "status": {"conditions": [{"type": state, "status": "True"}]},
    }


def after(minutes: float) -> str:
    return (NOW + timedelta(minutes=minutes)).isoformat()


@pytest.mark.parametrize(
    ("found", "is_deleted"),
    [
        (job(after(-2)), True),
        (job("2026-11-27T09:00:00"), True),  # a time without a zone is UTC
        (job("2026-11-27T12:00:00+03:00"), True),
        (job(after(-2), state="Created"), True),
        (job(after(-0.5)), False),  # the clocks of two pods can differ by a minute
        (job(after(5)), False),
        (job(None), False),  # submitted by torchx
        (job("tomorrow"), False),
        (job(after(-2), state="Succeeded"), False),
        (job(after(-2), state="Failed"), False),
        (job(after(-2), deletionTimestamp=after(-1)), False),
    ],
)
def test_a_running_job_with_an_expired_lease_is_deleted(api, found, is_deleted):
    api.lists = [listed(found)]
    assert reap(api.cluster, NOW) == (["job"] if is_deleted else [])
    deletions = [body["preconditions"] for method, _, body in api.requests if method == "DELETE"]
    assert deletions == ([{"uid": "1", "resourceVersion": "7"}] if is_deleted else [])


def test_a_job_whose_lease_was_renewed_in_the_meantime_is_not_reported_as_deleted(api):
    api.lists = [listed(job(after(-2)))]
    api.deletions = [409]
    assert reap(api.cluster, NOW) == []


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the time of the retries pass without waiting, and return the pauses."""
    made = list[float]()
    monkeypatch.setattr(cluster, "time", SimpleNamespace(monotonic=lambda: sum(made), sleep=made.append))
    return made


def test_the_reaper_waits_until_the_cluster_has_settled(api, pauses, capsys):
    # The API server starts, has not loaded its roles, and then answers.
    api.lists = [(503, b"{}"), (403, b"{}"), (401, b"{}"), listed(job(after(-2)))]
    assert reap(api.cluster, NOW) == ["job"]
    assert len(pauses) == 3
    printed = capsys.readouterr().err
    assert printed.count("waiting up to 180 s for the API server") == 1
    assert "503" in printed


def test_a_server_that_is_not_reached_is_waited_for(api, pauses, capsys):
    api.close()  # the connection is refused, as by a network policy that is not applied yet
    with pytest.raises(ConnectionError, match="has not answered for 180 s"):
        reap(api.cluster, NOW)
    assert 150 < sum(pauses) <= reaper.SETTLE_SECONDS
    assert "waiting up to 180 s for the API server" in capsys.readouterr().err


def test_a_cluster_without_the_operator_has_nothing_to_delete(api, capsys):
    api.lists = [(404, b"{}")]
    assert reap(api.cluster, NOW) == []
    assert "there is nothing to delete" in capsys.readouterr().out


def test_the_end_of_the_wait_is_a_message_without_a_traceback(api, pauses, monkeypatch, tmp_path):
    api.lists = [(403, b"{}")]
    names = {"cluster": "c", "user": "u", "namespace": "team"}
    kubeconfig = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": names}],
        "clusters": [{"name": "c", "cluster": {"server": api.cluster.api.configuration.host}}],
        "users": [{"name": "u", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SystemExit) as end:
        reaper.main()
    assert "previts: the API server has not answered for 180 s: (403)" in str(end.value.code)
    assert "the next run of the CronJob tries again" in str(end.value.code)


def test_the_wait_ends_before_the_deadline_of_the_cronjob():
    path = Path(__file__).parents[2] / "k8s" / "base" / "training.yaml"
    (cronjob,) = [item for item in yaml.safe_load_all(path.read_text()) if item["kind"] == "CronJob"]
    deadline = cronjob["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    one_request = cluster.CONNECT_SECONDS + 15  # and the pause before it
    assert reaper.SETTLE_SECONDS + one_request < deadline
