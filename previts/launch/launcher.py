"""The launcher for a cluster: it runs the training program as a PyTorchJob and waits for its result.

The job must not outlive this process. After SIGTERM or Ctrl-C the launcher deletes its job. If the launcher is killed,
Kubernetes deletes the job with the pipeline run that owns it, or the reaper deletes it when its lease expires. A
launcher that is started again before that adopts the job.
"""

import contextlib
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import FrameType

import urllib3
from kubernetes.client.exceptions import ApiException
from torchx.specs import AppDef

from previts.errors import InputError
from previts.launch import conditions, diagnosis, submit
from previts.launch.cluster import Cluster, connect, reason_of, with_retries
from previts.launch.follow import TAIL_LINES, LogFollower, changes
from previts.launch.options import JobOptions
from previts.launch.pod import inherit
from previts.launch.pytorchjob import LAUNCHER, LEASE, Manifest, build_manifest, lease_until

IMAGE = "PREVITS_TRAIN_IMAGE"  # image of the job's pods, for a launcher whose own image is smaller
MARKER_SECONDS = 30.0  # some stores show a new file only after seconds
DELETE_SECONDS = 10.0  # Kubernetes kills this pod half a minute after SIGTERM
RENEWALS = 4  # of a lease before it expires


class _TerminatedError(BaseException):
    """SIGTERM as an exception, which ends every wait of this process."""


class JobFailedError(InputError):
    """A job that failed and is not submitted again. The message is a page of Markdown."""


@dataclass(frozen=True)
class _Failure:
    """The failure of one attempt: its page for the user, and whether another attempt can succeed."""

    page: str
    disrupted: bool


def run_on_cluster(app: AppDef, options: JobOptions, is_finished: Callable[[], bool]) -> None:
    """Run an app as a PyTorchJob, print the log of its first replica and wait for the end.

    Args:
        app: The app, whose replicas are nodes.
        options: Options of the job.
        is_finished: Returns whether the output of the program is complete. Only this counts as success, not the state
            of the job.

    Raises:
        InputError: If the cluster refuses the job, another user deletes it, or it fails.
        SystemExit: With code 143 after SIGTERM, when the job is deleted.
    """
    cluster = connect(options.namespace)
    inherited = inherit(cluster)
    account = options.service_account or inherited.account
    options = replace(options, namespace=cluster.namespace, service_account=account)
    image = options.image or os.environ.get(IMAGE) or inherited.image
    app = replace(app, roles=[replace(role, image=image) for role in app.roles])
    job = build_manifest(app, options, inherited.owner)
    job["metadata"]["annotations"][LAUNCHER] = uuid.uuid4().hex
    with _raise_at_sigterm():
        try:
            submit.preflight(cluster, job)
            _run(cluster, job, options, is_finished)
        except (_TerminatedError, KeyboardInterrupt):
            _delete(cluster, job)
            raise
        except ApiException as error:
            raise InputError(
                f"the API server refuses PyTorchJob {cluster.namespace}/{job['metadata']['name']}: {reason_of(error)}; "
                "check the credentials and rights of this account. The same command takes over a running job"
            ) from error


def _run(cluster: Cluster, job: Manifest, options: JobOptions, is_finished: Callable[[], bool]) -> None:
    """Run a job until its output is finished, and submit it again if it lost a node."""
    for attempt in range(options.resubmissions + 1):
        failure = _run_once(cluster, job, options, is_finished)
        if failure is None:
            return
        if not failure.disrupted:
            raise JobFailedError(failure.page)
        print(f"{failure.page}\nA node or pod was lost: attempt {attempt + 1} has failed.", file=sys.stderr)
    raise JobFailedError(
        f"PyTorchJob {job['metadata']['name']} lost nodes or pods in {options.resubmissions + 1} attempts; the same "
        "command resumes the run, and --job resubmissions=... allows more attempts"
    )


def _run_once(cluster: Cluster, job: Manifest, options: JobOptions, is_finished: Callable[[], bool]) -> _Failure | None:
    """Submit a job and wait for its end. Return its failure, or None if its output is finished."""
    name = job["metadata"]["name"]
    job["metadata"]["annotations"].update(_lease(job, options))
    found, adopted = submit.submit(cluster, job)
    print(f"PyTorchJob {cluster.namespace}/{name} {'is adopted' if adopted else 'is submitted'}", file=sys.stderr)
    log = LogFollower(cluster, diagnosis.replicas(found)[0])
    last: Manifest | None = None
    pods: dict[str, Manifest] = {}
    try:
        for current in _follow(cluster, found, job, options=options, pods=pods):
            last = current
    except BaseException:
        log.stop(drain=0)
        raise
    log.stop()
    if _wait_for(is_finished, MARKER_SECONDS if last and conditions.name(last) == "Succeeded" else 0.0):
        return None
    if last is None:
        raise InputError(
            f"PyTorchJob {cluster.namespace}/{name} was deleted by another user or program while it ran; the same "
            "command resumes the run"
        )
    return _failure_of(cluster, last, pods, log)


def _follow(
    cluster: Cluster, found: Manifest, ours: Manifest, *, options: JobOptions, pods: dict[str, Manifest]
) -> Iterator[Manifest | None]:
    """Yield a job at each change until its end, print its state and renew its lease. Yield None if it was deleted.

    Args:
        cluster: The cluster of the job.
        found: The job in the cluster.
        ours: The job that this launcher submitted. It differs from `found` if that was adopted.
        options: Options of the job, among them the length of a lease.
        pods: Is filled with the last state of each pod, by name.
    """
    name, printed, began = found["metadata"]["name"], "", time.monotonic()
    for job in changes(cluster, name, found["metadata"]["uid"]):
        yield job
        if job is None:
            return
        note = state = conditions.name(job) or "submitted"
        if not conditions.is_over(job):
            existing = with_retries(lambda: cluster.pods(name), allowed=True)
            pods.update((pod["metadata"]["name"], pod) for pod in existing)
            reason = diagnosis.waiting_for(existing, cluster.events(name)) if state != "Running" else ""
            reason = reason or diagnosis.waiting_for_operator(job, time.monotonic() - began)
            note = f"{state}, {reason}" if reason else state
        if note != printed:
            print(f"PyTorchJob {name}: {note}", file=sys.stderr)
        printed = note
        if conditions.is_over(job):
            return
        if _needs_renewal(job, ours, options):
            with_retries(lambda: cluster.annotate(name, _lease(ours, options)), allowed=True)


def _needs_renewal(job: Manifest, ours: Manifest, options: JobOptions) -> bool:
    """Return whether this launcher should write the lease of a job.

    It renews its own lease, and takes over one that its launcher has not renewed for half of its length: that launcher
    was probably killed. A job without a lease has no launcher, and stays without one while this launcher watches it.
    """
    until = lease_until(job)
    if until is None or not options.lease_seconds:
        return False
    share = 1 - 1 / RENEWALS if _is_ours(job, ours) else 0.5
    return until < datetime.now(UTC) + timedelta(seconds=share * options.lease_seconds)


def _is_ours(job: Manifest, ours: Manifest) -> bool:
    """Return whether a job belongs to this launcher: it created or adopted the job, and no other adopted it later."""
    return bool(job["metadata"].get("annotations", {}).get(LAUNCHER) == ours["metadata"]["annotations"][LAUNCHER])


def _failure_of(cluster: Cluster, job: Manifest, last_pods: dict[str, Manifest], log: LogFollower) -> _Failure:
    """Return why a job did not finish its output.

    Args:
        cluster: The cluster of the job.
        job: The job after its end.
        last_pods: The last known state of each pod, because the operator may have deleted them.
        log: The log of the first replica.
    """
    name = job["metadata"]["name"]
    existing = {pod["metadata"]["name"]: pod for pod in with_retries(lambda: cluster.pods(name), allowed=True)}
    pods = list({**last_pods, **existing}.values())
    logs = {pod: _last_lines(cluster, pod) for pod in existing}
    logs[log.pod] = logs.get(log.pod) or "\n".join(log.tail)
    if conditions.name(job) == "Succeeded":
        finding = diagnosis.Finding("", "the job", "succeeded, but its output is not finished; check its log")
        return _Failure(diagnosis.to_markdown(job, finding, pods, logs), disrupted=False)
    finding = diagnosis.diagnose(job, pods, cluster.events(name), logs, list(last_pods.values()))
    return _Failure(diagnosis.to_markdown(job, finding, pods, logs), finding.disrupted)


def _last_lines(cluster: Cluster, pod: str) -> str:
    try:
        return "\n".join(text for _, text in cluster.log(pod, tail=TAIL_LINES))
    except (ApiException, urllib3.exceptions.HTTPError, OSError):  # the log is lost together with its node
        return ""


def _lease(ours: Manifest, options: JobOptions) -> dict[str, str]:
    """Return the annotations with the launcher of a job and the end of its lease."""
    launcher = {LAUNCHER: str(ours["metadata"]["annotations"][LAUNCHER])}
    if not options.lease_seconds:
        return launcher
    until = datetime.now(UTC) + timedelta(seconds=options.lease_seconds)
    return {**launcher, LEASE: until.isoformat(timespec="seconds")}


def _wait_for(is_finished: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not is_finished():
        if time.monotonic() >= deadline:
            return False
        time.sleep(1)
    return True


def _delete(cluster: Cluster, job: Manifest) -> None:
    """Delete the job of this launcher and no other. It may exist even if the request that created it had no answer."""
    name = job["metadata"]["name"]
    try:
        found = with_retries(lambda: cluster.get(name), DELETE_SECONDS, allowed=True)
        if found and _is_ours(found, job):
            print(f"stopping: deleting PyTorchJob {cluster.namespace}/{name}", file=sys.stderr)
            with_retries(lambda: cluster.delete(name, found["metadata"]["uid"]), DELETE_SECONDS, allowed=True)
        elif found:
            message = f"stopping: PyTorchJob {cluster.namespace}/{name} belongs to another launcher and continues"
            print(message, file=sys.stderr)
    except (ApiException, OSError) as error:
        print(
            f"cannot delete PyTorchJob {name}: {error}; the reaper deletes it when its lease expires", file=sys.stderr
        )


@contextlib.contextmanager
def _raise_at_sigterm() -> Iterator[None]:
    """Raise `_TerminatedError` at the first SIGTERM in the block. Only the main thread can do that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second signal must not interrupt the deletion
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except _TerminatedError:
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, before)
