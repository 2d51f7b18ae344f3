"""Which jobs the reaper deletes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from scripted_api import listed

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
