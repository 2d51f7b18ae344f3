"""Run the training program as a PyTorchJob, and wait for what it is to write.

The job and this process end together: told to stop, it deletes the job; once it was killed without a word, the job goes
with the pipeline's run that owns it, or by the reaper as nobody renews its lease. Begun again meanwhile, it takes over.
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
from previts.launch.cluster import Cluster, connect, patiently, reason_of
from previts.launch.follow import TAIL_LINES, LogFollower, changes
from previts.launch.options import JobOptions
from previts.launch.pod import surroundings
from previts.launch.pytorchjob import LAUNCHER, LEASE, Manifest, lease_until, materialise

IMAGE = "PREVITS_TRAIN_IMAGE"  # of the pods, where the one that launches has a smaller one
MARKER_SECONDS = 30.0  # stores may show a file some seconds after it was written
FAREWELL_SECONDS = 10.0  # a pod that is told to stop is killed half a minute later
RENEWALS = 4  # of a lease before it runs out


class _Told(BaseException):
    """SIGTERM, raised where this process waits."""


class JobFailedError(InputError):
    """A job that failed for good; its text is a page of Markdown."""


@dataclass(frozen=True)
class _End:
    """How a job ended that did not do its work."""

    page: str
    taken: bool


def run_on_cluster(app: AppDef, options: JobOptions, is_finished: Callable[[], bool]) -> None:
    """Run an app as a PyTorchJob and wait for the end; the log of its first replica is passed on.

    Args:
        app: The program, whose replicas are nodes.
        options: What the cluster is asked for.
        is_finished: Whether what the program writes is whole; the word of the job alone is not believed.

    Raises:
        InputError: If the job cannot be, was deleted by someone, or failed; says why.
        SystemExit: With code 143 after SIGTERM; the job is deleted.
    """
    cluster = connect(options.namespace)
    here = surroundings(cluster)
    options = replace(options, namespace=cluster.namespace, service_account=options.service_account or here.account)
    image = options.image or os.environ.get(IMAGE) or here.image
    app = replace(app, roles=[replace(role, image=image) for role in app.roles])
    job = materialise(app, options, here.owner)
    job["metadata"]["annotations"][LAUNCHER] = uuid.uuid4().hex
    with _told_by_sigterm():
        try:
            submit.preflight(cluster, job)
            _run(cluster, job, options, is_finished)
        except (_Told, KeyboardInterrupt):
            _delete(cluster, job)
            raise
        except ApiException as error:
            raise InputError(
                f"the API server refuses PyTorchJob {cluster.namespace}/{job['metadata']['name']}: {reason_of(error)}; "
                "look at this account's credentials and rights. The same command takes over a job that runs"
            ) from error


def _run(cluster: Cluster, job: Manifest, options: JobOptions, is_finished: Callable[[], bool]) -> None:
    """Have a job done, begun again where its nodes are taken."""
    for attempt in range(options.resubmissions + 1):
        end = _attend(cluster, job, options, is_finished)
        if end is None:
            return
        if not end.taken:
            raise JobFailedError(end.page)
        print(f"{end.page}\nIts node was taken: attempt {attempt + 1} is over.", file=sys.stderr)
    raise JobFailedError(
        f"nodes were taken from PyTorchJob {job['metadata']['name']} {options.resubmissions + 1} times; the same "
        "command goes on where it stopped, and --job resubmissions=... allows more"
    )


def _attend(cluster: Cluster, job: Manifest, options: JobOptions, is_finished: Callable[[], bool]) -> _End | None:
    """Submit a job and wait for its end; return how it failed, or None if its work is done."""
    name = job["metadata"]["name"]
    job["metadata"]["annotations"].update(_lease(job, options))
    found, adopted = submit.submit(cluster, job)
    print(f"PyTorchJob {cluster.namespace}/{name} {'goes on' if adopted else 'is submitted'}", file=sys.stderr)
    log = LogFollower(cluster, diagnosis.replicas(found)[0])
    last: Manifest | None = None
    pods: dict[str, Manifest] = {}
    try:
        for seen in _watched(cluster, found, job, options, pods):
            last = seen
    except BaseException:
        log.stop(drain=0)
        raise
    log.stop()
    if _wait_for(is_finished, MARKER_SECONDS if last and conditions.name(last) == "Succeeded" else 0.0):
        return None
    if last is None:
        raise InputError(
            f"PyTorchJob {cluster.namespace}/{name} was deleted by someone else while it ran; the same command goes on "
            "where it stopped"
        )
    return _account(cluster, last, pods, log)


def _watched(
    cluster: Cluster, found: Manifest, ours: Manifest, options: JobOptions, pods: dict[str, Manifest]
) -> Iterator[Manifest | None]:
    """Yield a job until its end, say what changes, and keep its lease; None if it was deleted.

    Args:
        cluster: Where it is.
        found: The job as it is there.
        ours: The same as this launcher wanted it.
        options: How long a lease is.
        pods: Gets each pod as it was last seen.
    """
    name, said = found["metadata"]["name"], ""
    for job in changes(cluster, name, found["metadata"]["uid"]):
        yield job
        if job is None:
            return
        note = state = conditions.name(job) or "submitted"
        if not conditions.is_over(job):
            here = patiently(lambda: cluster.pods(name), allowed=True)
            pods.update((pod["metadata"]["name"], pod) for pod in here)
            reason = diagnosis.waiting_for(here, cluster.events(name)) if state != "Running" else ""
            note = f"{state}, {reason}" if reason else state
        if note != said:
            print(f"PyTorchJob {name}: {note}", file=sys.stderr)
        said = note
        if conditions.is_over(job):
            return
        if _is_due(job, ours, options):
            patiently(lambda: cluster.annotate(name, _lease(ours, options)), allowed=True)


def _is_due(job: Manifest, ours: Manifest, options: JobOptions) -> bool:
    """Return whether a lease is to be written: ours anew, or another's that has not been for so long that it died.

    A job without one belongs to nobody who waits, and lives by itself also while somebody looks.
    """
    until = lease_until(job)
    if until is None or not options.lease_seconds:
        return False
    share = 1 - 1 / RENEWALS if _is_ours(job, ours) else 0.5
    return until < datetime.now(UTC) + timedelta(seconds=share * options.lease_seconds)


def _is_ours(job: Manifest, ours: Manifest) -> bool:
    """Return whether a job is this launcher's: made or taken over by it, and by nobody since."""
    return bool(job["metadata"].get("annotations", {}).get(LAUNCHER) == ours["metadata"]["annotations"][LAUNCHER])


def _account(cluster: Cluster, job: Manifest, seen: dict[str, Manifest], log: LogFollower) -> _End:
    """Return why a job has not done its work; of pods that the operator deleted, what was last seen of them tells."""
    name = job["metadata"]["name"]
    here = {pod["metadata"]["name"]: pod for pod in patiently(lambda: cluster.pods(name), allowed=True)}
    pods = list({**seen, **here}.values())
    said = {pod: _last_lines(cluster, pod) for pod in here}
    said[log.pod] = said.get(log.pod) or "\n".join(log.tail)
    if conditions.name(job) == "Succeeded":
        finding = diagnosis.Finding("", "the job", "says that it succeeded, and has not finished what it was to write")
        return _End(diagnosis.to_markdown(job, finding, pods, said), taken=False)
    finding = diagnosis.diagnose(job, pods, cluster.events(name), said)
    return _End(diagnosis.to_markdown(job, finding, pods, said), finding.taken)


def _last_lines(cluster: Cluster, pod: str) -> str:
    try:
        return "\n".join(text for _, text in cluster.log(pod, tail=TAIL_LINES))
    except (ApiException, urllib3.exceptions.HTTPError, OSError):  # its node may be gone, and its log with it
        return ""


def _lease(ours: Manifest, options: JobOptions) -> dict[str, str]:
    """Return the annotations that say who waits for a job, and until when it may go on without another word."""
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
    """Delete the job of this launcher, which may be there although no answer said so; not one of another's."""
    name = job["metadata"]["name"]
    try:
        found = patiently(lambda: cluster.get(name), FAREWELL_SECONDS, allowed=True)
        if found and _is_ours(found, job):
            print(f"told to stop: PyTorchJob {cluster.namespace}/{name} is deleted", file=sys.stderr)
            patiently(lambda: cluster.delete(name, found["metadata"]["uid"]), FAREWELL_SECONDS, allowed=True)
        elif found:
            print(f"told to stop: PyTorchJob {cluster.namespace}/{name} is another's, and goes on", file=sys.stderr)
    except (ApiException, OSError) as error:
        print(f"it could not be ({error}); without a renewed lease the reaper will delete it", file=sys.stderr)


@contextlib.contextmanager
def _told_by_sigterm() -> Iterator[None]:
    """Raise `_Told` at the first SIGTERM of the block; only a main thread can ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def tell(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the job is being deleted already
        raise _Told

    before = signal.signal(signal.SIGTERM, tell)
    try:
        yield
    except _Told:
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, before)
