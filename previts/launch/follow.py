"""Streams the changes of a running job and the log of a pod; continues after a restart of the API server."""

import collections
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import urllib3
from kubernetes.client.exceptions import ApiException

from previts.launch.cluster import GONE, NOT_FOUND, RETRY_SECONDS, Cluster, is_temporary, log_time, with_retries
from previts.launch.pytorchjob import Manifest

PULSE_SECONDS = 20.0
DRAIN_SECONDS = 5.0  # for the last lines of a log after the end of its job
TAIL_LINES = 20
FIRST_PAUSE = 0.2  # seconds after a broken watch; doubled after each further one


def changes(cluster: Cluster, name: str, uid: str, pulse: float = PULSE_SECONDS) -> Iterator[Manifest | None]:
    """Yield the current job at each change and at least once a pulse. Yield None and end when it was deleted.

    Each watch continues at the version where the last one stopped. That is not possible if the server no longer knows
    the version (410) or was not reachable. Then the job is read again: its status shows what happened in between.

    Args:
        cluster: The cluster of the job.
        name: Name of the job.
        uid: Its uid. A new job with the same name counts as a deletion.
        pulse: Seconds of one watch.

    Raises:
        ConnectionError: If the server does not answer for ten minutes.
    """
    version, failing_since, pause = "", 0.0, FIRST_PAUSE
    job: Manifest | None = None
    while True:
        try:
            if not version:
                found, version = with_retries(lambda: cluster.jobs(name), allowed=True)
                job = next((item for item in found if item["metadata"]["uid"] == uid), None)
            yield job
            if job is None:
                return
            for kind, changed in cluster.watch(name, version, pulse):
                failing_since, pause, version = 0.0, FIRST_PAUSE, changed["metadata"]["resourceVersion"]
                job = changed if changed["metadata"]["uid"] == uid and kind != "DELETED" else None
                yield job
                if job is None:
                    return
            failing_since, pause = 0.0, FIRST_PAUSE
        except (ApiException, urllib3.exceptions.HTTPError, OSError, json.JSONDecodeError) as error:
            if not is_temporary(error, allowed=True) and getattr(error, "status", None) != GONE:
                raise
            version = ""
            failing_since = failing_since or time.monotonic()
            if time.monotonic() - failing_since > RETRY_SECONDS:
                raise ConnectionError(
                    f"PyTorchJob {cluster.namespace}/{name} cannot be watched: {error}; check the API server. The same "
                    "command takes over the running job"
                ) from error
            time.sleep(pause)
            # Each attempt also reads the list, so a server that is too busy for watches must get fewer attempts.
            pause = min(2 * pause, PULSE_SECONDS)


class LogFollower:
    """Prints the log of one pod in the background, until `stop`. The pod may start later.

    Attributes:
        pod: Name of the pod.
        tail: The last lines, which are lost in the cluster when the pod is deleted.
    """

    def __init__(self, cluster: Cluster, pod: str, write: Callable[[str], None] | None = None) -> None:
        """Start to follow.

        Args:
            cluster: The cluster of the pod.
            pod: Name of the pod.
            write: Gets each line; by default it is printed to stderr.
        """
        self._cluster, self.pod = cluster, pod
        self._write = write or (lambda line: print(line, file=sys.stderr, flush=True))
        self.tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"log of {pod}", daemon=True)
        self._thread.start()

    def stop(self, drain: float | None = None) -> None:
        """End after printing the last lines, for at most `drain` seconds (by default `DRAIN_SECONDS`)."""
        self._stopped.set()
        self._thread.join(DRAIN_SECONDS if drain is None else drain)

    def _follow(self) -> None:
        last, unstamped, pause = "", "", 1.0
        while True:
            over = self._stopped.is_set()  # then read once more, for lines after the last connection broke
            try:
                since = _seconds_since(last) if last else 0
                for stamp, text in self._cluster.log(self.pod, follow=not over, since_seconds=since):
                    if stamp > last:
                        last, pause = stamp, 1.0
                    elif stamp or text == unstamped:  # printed already
                        continue
                    else:
                        unstamped = text
                    self.tail.append(text)
                    self._write(text)
            except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
                # The pod does not exist yet, has not started yet or is restarting, or the API server restarts.
                if not is_temporary(error, allowed=True) and getattr(error, "status", None) not in (400, NOT_FOUND):
                    print(f"cannot read the log of pod {self.pod}: {error}; the job continues", file=sys.stderr)
                    return
            if over:
                return
            self._stopped.wait(pause)
            pause = min(2 * pause, 15.0)


def _seconds_since(stamp: str) -> int:
    """Return the seconds since a time of the log, plus 10 because the clock of the node can differ."""
    return max(1, int((datetime.now(UTC) - log_time(stamp)).total_seconds()) + 10)
