"""Submission of a job: check that the cluster accepts it, create it, or adopt a running job that does the same."""

import sys
import time
from functools import partial

from kubernetes.client.exceptions import ApiException

from previts.errors import InputError
from previts.launch import conditions
from previts.launch.cluster import CONFLICT, Cluster, reason_of, with_retries
from previts.launch.pytorchjob import GROUP, PLURAL, SPEC_HASH, Manifest

# (verb, resource, group, subresource): the rights that the launcher needs.
RIGHTS = (
    *((verb, PLURAL, GROUP, "") for verb in ("create", "get", "list", "watch", "patch", "delete")),
    *((verb, "pods", "", "") for verb in ("get", "list")),
    ("get", "pods", "", "log"),
    ("list", "events", "", ""),
)
FIRST_RETRY_SECONDS = 30.0  # shorter for the first request: a wrong address looks like a server that restarts
GONE_SECONDS = 600.0  # a deleted job is removed after the grace periods of its pods


def preflight(cluster: Cluster, job: Manifest) -> None:
    """Check that the cluster would accept a job, without creating it.

    Raises:
        InputError: If the cluster does not know PyTorchJobs, this account lacks a right, or the server refuses the job.
    """
    name = job["metadata"]["name"]
    if PLURAL not in with_retries(cluster.resources, FIRST_RETRY_SECONDS):
        raise InputError(
            f"this cluster does not know the resource kind PyTorchJob ({GROUP}/v1); install the Kubeflow training "
            "operator, or train on one machine with --launcher local"
        )
    missing = [
        f"  {verb} {resource}{'/' + subresource if subresource else ''}{'.' + group if group else ''}"
        for verb, resource, group, subresource in RIGHTS
        if not with_retries(partial(cluster.is_allowed, verb, resource, group, subresource))
    ]
    if missing:
        raise InputError(
            f"this account lacks rights in namespace {cluster.namespace}:\n"
            + "\n".join(missing)
            + "\nAsk for a role with these rights, or set --job namespace=... to a namespace where it has them."
        )
    if with_retries(lambda: cluster.get(name)):
        return  # `submit` decides what to do with it; a job that runs already needs no further quota
    try:
        with_retries(lambda: cluster.create(job, dry_run=True))
    except ApiException as error:
        if error.status != CONFLICT:  # a conflict: another process created the job, or a quota is being updated
            raise _refused(name, error) from None


def submit(cluster: Cluster, job: Manifest) -> tuple[Manifest, bool]:
    """Create a job, or adopt a running job with the same name and specification. A finished one is deleted first.

    Returns:
        The job as it is in the cluster, and whether it was adopted.

    Raises:
        InputError: If the server refuses the job, or another job has its name.
    """
    name = job["metadata"]["name"]
    while True:
        # Read before creating: if the quota is used up, the server reports that and not the existing job.
        found = with_retries(lambda: cluster.get(name))
        if found is None:
            try:
                return with_retries(lambda: cluster.create(job)), False
            except ApiException as error:
                if error.status != CONFLICT:
                    raise _refused(name, error) from None
            time.sleep(0.2)  # another process created the job, or a quota is being updated
            continue
        if found["metadata"].get("deletionTimestamp"):
            wait_until_gone(cluster, found)
            continue
        if conditions.is_over(found) and SPEC_HASH in found["metadata"].get("annotations", {}):
            remove(cluster, found)  # also if its settings differ, because the user may have fixed them
            continue
        if is_same(found, job):
            return found, True
        raise InputError(
            f"PyTorchJob {name} already exists in namespace {cluster.namespace} with other settings: another program "
            "created it, or it has another image or other --job settings. Wait for its end, use the same settings, or "
            f"delete it: kubectl -n {cluster.namespace} delete pytorchjob {name}"
        )


def is_same(found: Manifest, job: Manifest) -> bool:
    """Return whether two jobs have the same specification. Fields that the operator fills in do not count."""
    hashes = [item["metadata"].get("annotations", {}).get(SPEC_HASH, "") for item in (found, job)]
    return bool(hashes[0]) and hashes[0] == hashes[1]


def remove(cluster: Cluster, job: Manifest) -> None:
    """Delete a job and wait until it and its pods no longer exist."""
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    with_retries(lambda: cluster.delete(name, uid), allowed=True)
    wait_until_gone(cluster, job)


def wait_until_gone(cluster: Cluster, job: Manifest) -> None:
    """Wait until a job that is being deleted no longer exists.

    Raises:
        InputError: If it still exists after `GONE_SECONDS`.
    """
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    deadline = time.monotonic() + GONE_SECONDS
    reported = False
    while (found := with_retries(lambda: cluster.get(name), allowed=True)) and found["metadata"]["uid"] == uid:
        if time.monotonic() > deadline:
            raise InputError(
                f"PyTorchJob {name} is still being deleted after {GONE_SECONDS:.0f} s; check its pods and finalizers: "
                f"kubectl -n {cluster.namespace} describe pytorchjob {name}"
            )
        if not reported:
            print(f"waiting for the deletion of the earlier PyTorchJob {name} ...", file=sys.stderr)
        reported = True
        time.sleep(0.5)


def _refused(name: str, error: ApiException) -> InputError:
    reason = reason_of(error)
    if "exceeded quota" in reason:
        return InputError(
            f"the cluster has no quota left for PyTorchJob {name}: {reason}; wait until other jobs end, ask for more "
            "quota, or train on fewer GPUs"
        )
    return InputError(f"the cluster refuses PyTorchJob {name}: {reason}; fix the --job settings in this message")
