"""Bring a job into a cluster: see beforehand that it can be, create it, or take over the one that is there."""

import sys
import time
from functools import partial

from kubernetes.client.exceptions import ApiException

from previts.errors import InputError
from previts.launch import conditions
from previts.launch.cluster import CONFLICT, Cluster, patiently, reason_of
from previts.launch.pytorchjob import GROUP, PLURAL, SPEC_HASH, Manifest

# (verb, resource, group, subresource): the rights without which the launcher cannot do its work.
RIGHTS = (
    *((verb, PLURAL, GROUP, "") for verb in ("create", "get", "list", "watch", "patch", "delete")),
    *((verb, "pods", "", "") for verb in ("get", "list")),
    ("get", "pods", "", "log"),
    ("list", "events", "", ""),
)
FIRST_PATIENCE = 30.0  # a wrong address is as silent as a server that restarts
GONE_SECONDS = 600.0  # pods get their grace before the job that is deleted goes


def preflight(cluster: Cluster, job: Manifest) -> None:
    """See that a job would be taken, before anything waits for it.

    Raises:
        InputError: If the cluster has no PyTorchJobs, this account lacks a right, or the server refuses the job.
    """
    name = job["metadata"]["name"]
    if PLURAL not in patiently(cluster.kinds, FIRST_PATIENCE):
        raise InputError(
            f"this cluster has no PyTorchJob ({GROUP}/v1); install the Kubeflow training operator, or train on one "
            "machine by --launcher local"
        )
    missing = [
        f"  {verb} {resource}{'/' + subresource if subresource else ''}{'.' + group if group else ''}"
        for verb, resource, group, subresource in RIGHTS
        if not patiently(partial(cluster.may, verb, resource, group, subresource))
    ]
    if missing:
        raise InputError(
            f"this account lacks rights in namespace {cluster.namespace}:\n"
            + "\n".join(missing)
            + "\nAsk for a role with them, or give --job namespace=... of one that has it."
        )
    if patiently(lambda: cluster.get(name)):
        return  # `submit` looks at it; what is left of a quota does not matter to one that goes on
    try:
        patiently(lambda: cluster.create(job, dry_run=True))
    except ApiException as error:
        if error.status != CONFLICT:  # it came in between, or a quota was being counted
            raise _refused(name, error) from None


def submit(cluster: Cluster, job: Manifest) -> tuple[Manifest, bool]:
    """Create a job, or adopt one of the same name that does the same; one that is over makes way.

    Returns:
        The job as it is in the cluster, and whether it was there before.

    Raises:
        InputError: If the server refuses the job, or its name belongs to another.
    """
    name = job["metadata"]["name"]
    while True:
        found = patiently(lambda: cluster.get(name))  # first: with a quota that is used up, the server says no more
        if found is None:
            try:
                return patiently(lambda: cluster.create(job)), False
            except ApiException as error:
                if error.status != CONFLICT:
                    raise _refused(name, error) from None
            time.sleep(0.2)  # it came in between, or others were counted for a quota at the same time
            continue
        if found["metadata"].get("deletionTimestamp"):
            wait_until_gone(cluster, found)
            continue
        if conditions.is_over(found) and SPEC_HASH in found["metadata"].get("annotations", {}):
            remove(cluster, found)  # whatever its settings were: they may be what was mended
            continue
        if is_same(found, job):
            return found, True
        raise InputError(
            f"PyTorchJob {name} is there already in namespace {cluster.namespace} and is not the same: it was made by "
            "another, or with another image or other --job settings. Wait for its end, give the same settings, or "
            f"delete it: kubectl -n {cluster.namespace} delete pytorchjob {name}"
        )


def is_same(found: Manifest, job: Manifest) -> bool:
    """Return whether a job of the cluster is what this one would be; what the operator filled in does not count."""
    hashes = [item["metadata"].get("annotations", {}).get(SPEC_HASH, "") for item in (found, job)]
    return bool(hashes[0]) and hashes[0] == hashes[1]


def remove(cluster: Cluster, job: Manifest) -> None:
    """Delete a job and wait until it and its pods are gone."""
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    patiently(lambda: cluster.delete(name, uid), allowed=True)
    wait_until_gone(cluster, job)


def wait_until_gone(cluster: Cluster, job: Manifest) -> None:
    """Wait for the end of a job that is being deleted.

    Raises:
        InputError: If it does not go.
    """
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    deadline = time.monotonic() + GONE_SECONDS
    told = False
    while (found := patiently(lambda: cluster.get(name), allowed=True)) and found["metadata"]["uid"] == uid:
        if time.monotonic() > deadline:
            raise InputError(
                f"PyTorchJob {name} is being deleted and does not go; look at its pods and finalizers: "
                f"kubectl -n {cluster.namespace} describe pytorchjob {name}"
            )
        if not told:
            print(f"waiting for the end of the earlier PyTorchJob {name} ...", file=sys.stderr)
        told = True
        time.sleep(0.5)


def _refused(name: str, error: ApiException) -> InputError:
    reason = reason_of(error)
    if "exceeded quota" in reason:
        return InputError(
            f"the cluster has no quota left for PyTorchJob {name}: {reason}; wait until others end, ask for more, or "
            "train on fewer GPUs"
        )
    return InputError(f"the cluster refuses PyTorchJob {name}: {reason}; mend the --job settings that it names")
