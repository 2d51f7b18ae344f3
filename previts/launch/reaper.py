"""The reaper, which deletes jobs with an expired lease: `python -m previts.launch.reaper`, run by a CronJob.

A launcher renews the lease of its job. The lease expires when the launcher was killed and could not delete the job. No
launcher waits for a job without a lease, so the reaper does not delete it.
"""

import sys
from datetime import UTC, datetime, timedelta
from functools import partial

from previts.errors import InputError
from previts.launch import conditions
from previts.launch.cluster import Cluster, connect, with_retries
from previts.launch.pytorchjob import lease_until

SLACK = timedelta(minutes=1)  # the clocks of two pods can differ


def reap(cluster: Cluster, now: datetime) -> list[str]:
    """Delete the jobs whose lease has expired, and return their names.

    Finished jobs stay until Kubernetes deletes them after `ttl_seconds`. The deletion requires the listed version of
    the job, so a job whose lease is renewed in the meantime stays too.
    """
    found, _ = with_retries(cluster.jobs)
    deleted = []
    for job in found:
        metadata = job["metadata"]
        until = lease_until(job)
        if until is None or until + SLACK > now or conditions.is_over(job) or metadata.get("deletionTimestamp"):
            continue
        listed = (metadata["name"], metadata["uid"], metadata["resourceVersion"])
        if with_retries(partial(cluster.delete, *listed)):
            deleted.append(metadata["name"])
    return deleted


def main() -> None:
    """Reap once, in the namespace of this pod or of the kubeconfig."""
    try:
        cluster = connect()
        deleted = reap(cluster, datetime.now(UTC))
    except InputError as error:
        sys.exit(f"previts: {error}")
    names = ", ".join(deleted) or "none"
    print(f"namespace {cluster.namespace}: deleted jobs whose lease has expired: {names}")


if __name__ == "__main__":
    main()
