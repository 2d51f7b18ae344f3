"""A run on a cluster, followed to its end: a line for each change of a step, and the cause of a failure.

Kubeflow Pipelines 2.17 shows the nodes of Argo's workflow as the tasks of a run: the steps, their drivers, and the DAGs
around them. These tasks have a state, but mostly neither an error nor the name of a pod. So the cause of a failure also
comes from the pods (`pods.py`).
"""

import math
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

from pipelines import pods
from previts.errors import InputError

Result = TypeVar("Result")

# kfp's own `wait_for_run_completion` waits for ever for a run that was cancelled.
ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
POLL_SECONDS = 10.0
START_SECONDS = 1800.0  # from the submission to the first step; before it, four drivers start and pull their image
OUTAGE_SECONDS = 600.0  # how long the API may not answer, such as during an upgrade or while a forwarded port is down
UNAUTHORISED = 401


class RunFailedError(InputError):
    """A run that did not succeed; the message has the failed tasks, the logs of their pods and the run's address."""


def step_names(pipeline: Mapping[str, Any]) -> set[str]:
    """Return the names of the steps of a compiled pipeline: the tasks with a container, without the DAGs."""
    components = pipeline["components"]
    dags = [pipeline["root"]["dag"], *(component["dag"] for component in components.values() if "dag" in component)]
    tasks = [(name, task["componentRef"]["name"]) for dag in dags for name, task in dag["tasks"].items()]
    return {name for name, component in tasks if "executorLabel" in components[component]}


def tasks_of(run: Any, names: Collection[str]) -> Iterator[Any]:
    """Yield the tasks of a run that have one of the names; a step in a loop has a task for each iteration."""
    for task in (run.run_details and run.run_details.task_details) or []:
        if task.display_name in names:
            yield task


def follow(
    client: Any,
    run_id: str,
    steps: Collection[str],
    *,
    seconds: float = math.inf,
    until: Callable[[Any], bool] = lambda run: False,
) -> Any:
    """Print each change of a step until the run ends, and return the run as the API describes it.

    Args:
        client: Client of the API.
        run_id: The run.
        steps: Names of its steps.
        seconds: Longest time to wait.
        until: Also return when this returns true of the run.

    Raises:
        InputError: If the run does not start or end in time.
    """
    started = time.monotonic()
    labels: dict[str, str] = {}
    states: dict[str, str] = {}
    ended = False
    while True:
        run = _get(client, run_id)
        for task in tasks_of(run, steps):
            if task.task_id not in labels:
                number = 1 + sum(label.split()[0] == task.display_name for label in labels.values())
                labels[task.task_id] = f"{task.display_name} {number}" if number > 1 else task.display_name
            if task.state != states.get(task.task_id):
                states[task.task_id] = task.state
                _say(f"{time.monotonic() - started:6.0f} s  {labels[task.task_id]:20} {task.state}")
        # The API updates the state of a run before those of its tasks, so the last ones need a second look.
        settled = ended or all(state in ENDED for state in states.values())
        ended = run.state in ENDED
        if (ended and settled) or until(run):
            return run
        waited = time.monotonic() - started
        if not labels and waited > START_SECONDS:
            raise InputError(f"run {run_id} is {run.state}, and no step has started within {waited:.0f} s")
        if waited > seconds:
            raise InputError(f"run {run_id} has not ended within {waited:.0f} s; its state is {run.state}")
        time.sleep(POLL_SECONDS)


def wait(client: Any, run_id: str, steps: Collection[str], namespace: str, *, seconds: float = math.inf) -> Any:
    """Follow a run to its end, and return it.

    Args:
        client: Client of the API.
        run_id: The run.
        steps: Names of its steps.
        namespace: Namespace of its pods.
        seconds: Longest time to wait.

    Raises:
        RunFailedError: If the run ends in another state than SUCCEEDED, or not in time.
    """
    try:
        run = follow(client, run_id, steps, seconds=seconds)
    except InputError as error:
        raise RunFailedError(f"{error}\n{explain(client, run_id, steps, namespace)}") from None
    _say(f"run {run_id} ended as {run.state}")
    if run.state != "SUCCEEDED":
        raise RunFailedError(f"run {run_id} ended as {run.state}\n{explain(client, run_id, steps, namespace)}")
    return run


def explain(client: Any, run_id: str, steps: Collection[str], namespace: str) -> str:
    """Return what is known of a run that did not succeed: its failed tasks, its pods with their logs, its address."""
    run = _get(client, run_id)
    lines = [f"its error: {run.error.message}"] if run.error and run.error.message else []
    failed = [task for task in (run.run_details and run.run_details.task_details) or [] if task.state == "FAILED"]
    # A DAG fails with what is in it; a driver fails alone.
    causes = [task for task in failed if task.display_name in steps or task.display_name.endswith("-driver")]
    for task in causes or failed:
        reason = _error_of(task)
        lines.append(f"failed task: {task.display_name}{f': {reason}' if reason else ''}")
    unfinished = [task for task in tasks_of(run, steps) if task.state not in ENDED]
    lines += [f"unfinished task: {task.display_name} ({task.state})" for task in unfinished]
    lines += pods.describe(run_id, namespace)
    lines += [
        f"its page: {client._get_url_prefix()}/#/runs/details/{run_id}",
        f"look next: kubectl -n {namespace} get workflows,pods -l {pods.RUN_LABEL}={run_id}",
        f"look next: kubectl -n {namespace} get events --sort-by .lastTimestamp",
        "docs/cluster.md, When it is stuck, has the frequent causes. A run with the same parameters resumes this one.",
    ]
    return "\n".join(lines)


def _error_of(task: Any) -> str:
    errors = [task.error, *(status.error for status in reversed(task.state_history or []))]
    return next((str(error.message) for error in errors if error and error.message), "")


def _get(client: Any, run_id: str) -> Any:
    return answered(lambda: client.get_run(run_id))


def answered(request: Callable[[], Result]) -> Result:
    """Send a request, and repeat it while the API does not answer.

    A refused token may pass too: the client reads its file again for each request, and the file may be renewed.
    """
    import kfp_server_api
    import urllib3

    started, said = time.monotonic(), False
    while True:
        try:
            return request()
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, ConnectionError) as error:
            status = getattr(error, "status", None) or 0
            lasting = 0 < status < 500 and status not in (UNAUTHORISED, 408, 429)
            if lasting or time.monotonic() - started > OUTAGE_SECONDS:
                raise
            if not said:
                _say(f"the API does not answer, and is asked again: {str(error)[:200].strip()}")
            said = True
        time.sleep(POLL_SECONDS)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
