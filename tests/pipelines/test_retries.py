"""Failures and retries of the committed pipeline on a stand-in of KFP and Argo (tests/support/kfp_backend.py)."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from compiled_steps import steps
from kfp_backend import Backend, ResolveError, attempts, tasks

ROOT = Path(__file__).parents[2]
PIPELINE: dict[str, Any] = next(yaml.safe_load_all((ROOT / "pipelines" / "previts_full.yaml").read_text()))
PATHS = dict(tasks(PIPELINE))
LEAVES = {
    path: PIPELINE["components"][task["componentRef"]["name"]]["executorLabel"]
    for path, task in PATHS.items()
    if "executorLabel" in PIPELINE["components"][task["componentRef"]["name"]]
}
CLOSE = ("close-run",)
# Steps that run for hours, on nodes that the cloud may take away.
LONG = {"download", "fit-saliency", "saliency", "track", "index", "pretrain", "evaluate"}


def drive_to(backend: Backend, path: tuple[str, ...], times: int) -> list[int]:
    """Drive the DAGs on the way to a task once, and the task itself several times; return its executions."""
    parent = backend.drive("root", {}, 0).id
    for length in range(1, len(path)):
        parent = backend.drive(path[length - 1], {}, parent).id
    return [backend.drive(path[-1], {}, parent).id for _ in range(times)]


def test_another_attempt_of_a_pod_adds_no_execution_and_another_run_of_the_driver_does():
    backend = Backend(PIPELINE)
    path = next(path for path in LEAVES if path[-1] == "check-run")
    drive_to(backend, path, 1)
    for state in ("LOST", "FAILED", "COMPLETE"):
        backend.launch(backend.executions[-1], state)
    assert backend.below(1)[f"check-run_{backend.executions[-1].parent}"].state == "COMPLETE"
    backend = Backend(PIPELINE)
    (_, second) = drive_to(backend, path, 2)
    with pytest.raises(ResolveError, match=f'two tasks have the same task name "check-run_{second - 2}"'):
        backend.below(1)


@pytest.mark.parametrize("path", [path for path in LEAVES if path != CLOSE], ids="/".join)
def test_the_last_step_of_a_run_starts_after_any_step_was_driven_twice(path):
    backend = Backend(PIPELINE)
    for execution in drive_to(backend, path, 2):
        backend.launch(backend.executions[execution - 1], "FAILED")
    assert backend.drive(CLOSE[-1], PATHS[CLOSE], 1).name == "close-run"


def test_a_step_after_one_that_was_driven_twice_cannot_start():
    # The reason why a step that must not be started again has no retries.
    backend = Backend(PIPELINE)
    path = next(path for path in LEAVES if path[-1] == "check-run")
    after = PATHS[(*path[:-1], "download-crawls")]
    parent = backend.executions[drive_to(backend, path, 2)[0] - 1].parent
    with pytest.raises(ResolveError):
        backend.drive("download-crawls", after, parent)


def test_only_steps_that_run_for_hours_are_retried_and_only_they_may_run_on_spot_nodes():
    retried = {path[-1] for path in LEAVES if "retryPolicy" in PATHS[path]}
    assert retried == LONG
    spot = {
        path[-1]
        for path, executor in LEAVES.items()
        if any(item.get("key") == "cloud.google.com/gke-spot" for item in steps()[executor].get("tolerations", []))
    }
    assert spot == LONG
    assert not [path for path, task in PATHS.items() if "retryPolicy" in task and path not in LEAVES]  # no DAG


def test_a_wrong_parameter_ends_the_run_in_one_attempt():
    (path,) = (path for path in LEAVES if path[-1] == "check-run")
    made = attempts(PATHS[path].get("retryPolicy", {}), 3600, [(20, "Failed")] * 5)
    assert [item.end for item in made] == [20]


@pytest.mark.parametrize("path", [path for path in LEAVES if path[-1] in LONG], ids=lambda path: path[-1])
def test_a_lost_pod_is_started_again_and_a_deadline_is_that_of_all_attempts(path):
    policy, deadline = PATHS[path]["retryPolicy"], int(steps()[LEAVES[path]]["activeDeadlineSeconds"])
    lost = attempts(policy, deadline, [(600, "Failed"), (600, "Succeeded")])
    assert [item.phase for item in lost] == ["Failed", "Succeeded"]
    assert lost[1].start - lost[0].end <= 60
    hangs = attempts(policy, deadline, [(10 * deadline, "Succeeded")] * 9)
    assert [item.end for item in hangs] == [deadline]
    late = attempts(policy, deadline, [(deadline - 3600, "Failed"), (10 * deadline, "Succeeded"), (60, "Failed")])
    assert [item.end for item in late] == [deadline - 3600, deadline]
    pauses = sum(10 * 2**number for number in range(policy["maxRetryCount"]))
    assert pauses < 600, "an input error of a long step must not keep the run open for long"


def test_the_documentation_has_the_longest_time_of_a_run():
    deadlines = {path: int(steps()[executor]["activeDeadlineSeconds"]) for path, executor in LEAVES.items()}

    def longest(dag: dict[str, Any], path: tuple[str, ...]) -> float:
        """Return the time of the longest chain of tasks in a DAG, whose loops run all iterations at once."""
        ends: dict[str, float] = {}

        def end(name: str) -> float:
            if name not in ends:
                task = dag["tasks"][name]
                component = PIPELINE["components"][task["componentRef"]["name"]]
                whole = (*path, name)
                own = longest(component["dag"], whole) if "dag" in component else deadlines[whole]
                ends[name] = own + max(map(end, task.get("dependentTasks", [])), default=0)
            return ends[name]

        return max(map(end, dag["tasks"]))

    days = longest(PIPELINE["root"]["dag"], ()) / 86400
    text = (ROOT / "docs" / "cluster.md").read_text()
    (written,) = re.findall(r"add up to (\d+) days", text)
    assert int(written) == -(-days // 1)
