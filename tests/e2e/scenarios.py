"""What the end-to-end test does with a backend; each function starts runs, follows them and checks what they left."""

import sys
import time
from typing import Any

import outputs
from backend import RUN_SECONDS, Backend

from pipelines import follow
from previts.config import paper
from previts.errors import InputError
from previts.launch import cluster
from previts.storage import files

FIRST_RUN_SECONDS = 600.0  # until a schedule of every minute has started its first run
TERMINATION_SECONDS = 1800.0  # until a terminated run has ended
EVERY_MINUTE = "0 * * * * *"


def run_once(backend: Backend, name: str, expected: str, parameters: dict[str, Any]) -> tuple[str, str]:
    """Run the pipeline on a new root, and compare what it left with a run on this machine.

    Args:
        backend: The backend.
        name: Name of the run and of its root.
        expected: Root of the run on this machine.
        parameters: Parameters that differ from those of all runs.

    Returns:
        The id of the run and its root.
    """
    root = backend.place(name)
    given = {**backend.inputs(root), **parameters}
    run = backend.finish(backend.start(name, given))
    backend.check_steps(run, given["rows"])
    check_results(root, expected, given["rows"])
    return run.run_id, root


def check_results(root: str, expected: str, rows: list[str]) -> None:
    """Check that a root has the counts and, within the tolerance, the numbers of another one."""
    rows = [row.name for row in paper.expand(rows)]
    wrong = outputs.unequal(outputs.counts(root, rows), outputs.counts(expected, rows), "counts")
    found = outputs.report(root)
    names = {line["row"] for line in found}
    wrong += outputs.differences(found, [line for line in outputs.report(expected) if line["row"] in names])
    assert not wrong, "\n".join([f"{root} differs from {expected}:", *wrong])


def run_job(backend: Backend, expected: str) -> None:
    """Run the pipeline with PyTorchJobs, for one row.

    Each step that waits for a job needs a place on a node as well as its job. On a small cluster, the waiting steps of
    several rows leave none for the jobs.
    """
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    row = paper.expand(backend.parameters["rows"])[-1].name
    run_once(backend, "pytorchjob", expected, {"rows": [row], "launcher": "pytorchjob", "job": backend.job})
    try:
        jobs = cluster.connect(backend.namespace).jobs()[0]
    except InputError:
        print("no kubeconfig was found: whether a PyTorchJob trained is not checked", file=sys.stderr)
        return
    made = {job["metadata"]["name"]: job["metadata"]["creationTimestamp"] for job in jobs}
    assert max(made.values(), default="") >= started, f"no PyTorchJob was created after {started}: {made}"


def run_on_schedule(backend: Backend, root: str) -> None:
    """Run the pipeline on a schedule with nothing new, and check that it makes nothing again."""
    before = outputs.finished(root)
    made = backend.client.create_recurring_run(
        experiment_id=backend.ids[0],
        job_name=f"e2e {backend.stamp}",
        cron_expression=EVERY_MINUTE,
        max_concurrency=1,
        no_catchup=True,
        params=backend.inputs(root),
        pipeline_id=backend.ids[1],
        version_id=backend.ids[2],
        service_account=backend.account,
    ).recurring_run_id
    try:
        run_id = _first_run(backend, made)
        backend.client.disable_recurring_run(made)
        print(f"\nrun {run_id} was started by the schedule {made}, which is disabled now", file=sys.stderr)
        run = backend.finish(run_id)
    finally:
        # Kubernetes deletes the runs of a schedule with it, so not before the end of the run.
        backend.client.delete_recurring_run(made)
    backend.check_steps(run, backend.parameters["rows"])
    after = outputs.finished(root)
    again = sorted(place for place in before.keys() | after.keys() if before.get(place) != after.get(place))
    assert not again, f"a run with nothing new made results: {again}"


def _first_run(backend: Backend, schedule: str) -> str:
    started = time.monotonic()
    while time.monotonic() - started < FIRST_RUN_SECONDS:
        listed = follow.answered(
            lambda: backend.client.list_runs(
                experiment_id=backend.ids[0], sort_by="created_at desc", page_size=20, namespace=backend.namespace
            )
        )
        for run in listed.runs or []:
            if run.recurring_run_id == schedule:
                return str(run.run_id)
        time.sleep(follow.POLL_SECONDS)
    shown = backend.client.get_recurring_run(schedule)
    raise AssertionError(
        f"the schedule {schedule} has started no run within {FIRST_RUN_SECONDS:.0f} s; its status is {shown.status}, "
        f"its error {shown.error}; look at the Deployment ml-pipeline-scheduledworkflow and at "
        f"`kubectl -n {backend.namespace} get scheduledworkflows -o yaml`"
    )


def stop_and_repeat(backend: Backend, first: str) -> None:
    """Terminate a run after its first training has begun, and run it again with the same parameters.

    Args:
        backend: The backend.
        first: Root of a run that was not terminated.
    """
    root = backend.place("stopped")
    given = backend.inputs(root)
    run_id = backend.start("stopped", given)

    def trains(run: Any) -> bool:
        # A training takes a lease in the folder of its checkpoint before anything else.
        running = any(task.state == "RUNNING" for task in follow.tasks_of(run, {"pretrain"}))
        return running and bool(files.names(files.join(root, "checkpoints")))

    with backend.guarded(run_id):
        run = follow.follow(backend.client, run_id, backend.steps, seconds=RUN_SECONDS, until=trains)
        if not trains(run):
            raise AssertionError(
                f"the run ended as {run.state} before its first training began\n"
                f"{follow.explain(backend.client, run_id, backend.steps, backend.namespace)}"
            )
        print(f"run {run_id} trains, and is terminated", file=sys.stderr)
        backend.client.terminate_run(run_id)
        run = follow.follow(backend.client, run_id, backend.steps, seconds=TERMINATION_SECONDS)
    assert run.state in ("FAILED", "CANCELED"), f"the terminated run {run_id} ended as {run.state}"
    before = outputs.finished(root)
    stages = {place.split("/")[0] for place in before}
    assert stages >= {"videos", "saliency", "tubes", "index"}, f"the terminated run left only {sorted(before)}"
    assert "report" not in stages, f"the run {run_id} wrote its report in spite of the termination"
    run = backend.finish(backend.start("repeated", given))
    backend.check_steps(run, given["rows"])
    after = outputs.finished(root)
    again = sorted(place for place in before if before[place] != after.get(place))
    assert not again, f"the repeated run made again what the terminated run had finished: {again}"
    check_results(root, first, given["rows"])
