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
from previts.launch.options import JobOptions
from previts.launch.pytorchjob import LEASE, Manifest, materialise
from previts.launch.surroundings import surroundings
from previts.launch.watch import TAIL_LINES, LogFollower, changes

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
    job["metadata"]["annotations"].update(_lease(options))
    found, adopted = submit.submit(cluster, job)
    print(f"PyTorchJob {cluster.namespace}/{name} {'goes on' if adopted else 'is submitted'}", file=sys.stderr)
    if adopted:  # its lease is that of a launcher that is no more
        patiently(lambda: cluster.annotate(name, _lease(options)), allowed=True)
    uid = found["metadata"]["uid"]
    log = LogFollower(cluster, diagnosis.replicas(found)[0])
    last: Manifest | None = None
    try:
        for seen in _watched(cluster, name, uid, options):
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
    return _account(cluster, last)


def _watched(cluster: Cluster, name: str, uid: str, options: JobOptions) -> Iterator[Manifest | None]:
    """Yield a job until its end, say what changes, and renew its lease; None if it was deleted."""
    said, renewed = "", time.monotonic()
    for job in changes(cluster, name, uid):
        yield job
        if job is None:
            return
        state = conditions.name(job) or "submitted"
        note = state
        if state not in ("Running", "Succeeded", "Failed"):
            reason = diagnosis.waiting_for(patiently(lambda: cluster.pods(name), allowed=True), cluster.events(name))
            note = f"{state}, {reason}" if reason else state
        if note != said:
            print(f"PyTorchJob {name}: {note}", file=sys.stderr)
        said = note
        if conditions.is_over(job):
            return
        if options.lease_seconds and time.monotonic() - renewed > options.lease_seconds / RENEWALS:
            patiently(lambda: cluster.annotate(name, _lease(options)), allowed=True)
            renewed = time.monotonic()


def _account(cluster: Cluster, job: Manifest) -> _End:
    """Return why a job has not done its work."""
    name = job["metadata"]["name"]
    pods = patiently(lambda: cluster.pods(name), allowed=True)
    said = {pod["metadata"]["name"]: _last_lines(cluster, pod["metadata"]["name"]) for pod in pods}
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


def _lease(options: JobOptions) -> dict[str, str]:
    """Return the annotation until when a job may go on without word from its launcher."""
    if not options.lease_seconds:
        return {}
    until = datetime.now(UTC) + timedelta(seconds=options.lease_seconds)
    return {LEASE: until.isoformat(timespec="seconds")}


def _wait_for(is_finished: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not is_finished():
        if time.monotonic() >= deadline:
            return False
        time.sleep(1)
    return True


def _delete(cluster: Cluster, job: Manifest) -> None:
    """Delete a job that this process waited for; it may be there although no answer said so."""
    name = job["metadata"]["name"]
    print(f"told to stop: PyTorchJob {cluster.namespace}/{name} is deleted", file=sys.stderr)
    try:
        found = patiently(lambda: cluster.get(name), FAREWELL_SECONDS, allowed=True)
        if found and submit.is_same(found, job):
            patiently(lambda: cluster.delete(name, found["metadata"]["uid"]), FAREWELL_SECONDS, allowed=True)
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
