"""The state of a job from lists of conditions as the operator writes them."""

import pytest
from torchx.specs import AppState

from previts.launch import conditions


@pytest.mark.parametrize(
    ("listed", "name"),
    [
        ([], ""),
        ([("Created", "True")], "Created"),
        ([("Created", "True"), ("Running", "True")], "Running"),
        ([("Created", "True"), ("Running", "False"), ("Restarting", "True")], "Restarting"),
        ([("Created", "True"), ("Running", "True"), ("Restarting", "False")], "Running"),
        ([("Created", "True"), ("Running", "False"), ("Failed", "True")], "Failed"),
        ([("Failed", "False"), ("Succeeded", "True")], "Succeeded"),
        ([("Created", "True"), ("Suspended", "True")], "Suspended"),
    ],
)
def test_the_state_of_a_job_is_its_condition_that_is_true(listed, name):
    job = {"status": {"conditions": [{"type": kind, "status": status} for kind, status in listed]}}
    assert conditions.name(job) == name
    assert conditions.is_over(job) == (name in ("Succeeded", "Failed"))


def test_a_job_without_a_status_is_submitted():
    assert conditions.name({}) == ""
    assert conditions.state({}) == AppState.SUBMITTED
    assert not conditions.is_over({})
