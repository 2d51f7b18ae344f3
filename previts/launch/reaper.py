"""Delete jobs whose launcher died without a word: `python -m previts.launch.reaper`, by a CronJob.

A launcher renews the lease of its job; a job without a lease belongs to nobody who waits, and is left alone.
"""

import sys
from datetime import UTC, datetime, timedelta
from functools import partial

from previts.errors import InputError
from previts.launch import conditions
from previts.launch.cluster import Cluster, connect, patiently
from previts.launch.pytorchjob import lease_until

SLACK = timedelta(minutes=1)  # clocks of two pods differ


def reap(cluster: Cluster, now: datetime) -> list[str]:
    """Delete the jobs whose lease has run out, and return their names.

    A job that is over stays for a look until its time to live has passed. One whose lease is renewed at this very
    moment stays too: it is deleted only as it was seen.
    """
    found, _ = patiently(cluster.jobs)
    deleted = []
    for job in found:
        metadata = job["metadata"]
        until = lease_until(job)
        if until is None or until + SLACK > now or conditions.is_over(job) or metadata.get("deletionTimestamp"):
            continue
        seen = (metadata["name"], metadata["uid"], metadata["resourceVersion"])
        if patiently(partial(cluster.delete, *seen)):
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
    print(f"namespace {cluster.namespace}: jobs deleted because nobody waits for them any more: {names}")


if __name__ == "__main__":
    main()
