"""The reaper, which deletes jobs with an expired lease: `python -m previts.launch.reaper`, run by a CronJob.

A launcher renews the lease of its job. The lease expires when the launcher was killed and could not delete the job. No
launcher waits for a job without a lease, so the reaper does not delete it.

The first run of the CronJob may start before the cluster has settled: the network policies, the DNS, the roles of its
account. So the reaper waits, but not beyond the deadline of the CronJob.
"""

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import urllib3
from kubernetes.client.exceptions import ApiException

from previts.errors import InputError
from previts.launch import conditions
from previts.launch.cluster import NOT_FOUND, Cluster, connect, with_retries
from previts.launch.pytorchjob import Manifest, lease_until

Result = TypeVar("Result")

SLACK = timedelta(minutes=1)  # the clocks of two pods can differ
SETTLE_SECONDS = 180.0  # less than activeDeadlineSeconds in k8s/base/training.yaml


def reap(cluster: Cluster, now: datetime) -> list[str]:
    """Delete the jobs whose lease has expired, and return their names.

    Finished jobs stay until Kubernetes deletes them after `ttl_seconds`. The deletion requires the listed version of
    the job, so a job whose lease is renewed in the meantime stays too.

    Raises:
        ConnectionError: If the API server does not answer, or refuses the account, for `SETTLE_SECONDS`.
    """
    deleted = []
    for job in _jobs(cluster):
        metadata = job["metadata"]
        until = lease_until(job)
        if until is None or until + SLACK > now or conditions.is_over(job) or metadata.get("deletionTimestamp"):
            continue
        listed = (metadata["name"], metadata["uid"], metadata["resourceVersion"])
        if with_retries(partial(cluster.delete, *listed), SETTLE_SECONDS, allowed=True):
            deleted.append(metadata["name"])
    return deleted


def _jobs(cluster: Cluster) -> list[Manifest]:
    """Return the jobs of previts, after the cluster has settled; none if it does not know this kind of resource."""
    try:
        return with_retries(_reporting(cluster.jobs), SETTLE_SECONDS, allowed=True)[0]
    except ApiException as error:
        if error.status != NOT_FOUND:
            raise
        print("this cluster does not know the resource kind PyTorchJob: there is nothing to delete")
        return []


def _reporting(request: Callable[[], Result]) -> Callable[[], Result]:
    """Return a request that prints its first error, so that the log of a waiting reaper says what it waits for."""
    printed = list[str]()

    def send() -> Result:
        try:
            return request()
        except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            if not printed:
                printed.append(f"waiting up to {SETTLE_SECONDS:.0f} s for the API server: {error}")
                print(printed[0], file=sys.stderr, flush=True)
            raise

    return send


def main() -> None:
    """Reap once, in the namespace of this pod or of the kubeconfig."""
    try:
        cluster = connect()
        deleted = reap(cluster, datetime.now(UTC))
    except (InputError, ConnectionError, ApiException) as error:
        sys.exit(f"previts: {error}\nNo job was checked; the next run of the CronJob tries again.")
    names = ", ".join(deleted) or "none"
    print(f"namespace {cluster.namespace}: deleted jobs whose lease has expired: {names}")


if __name__ == "__main__":
    main()
