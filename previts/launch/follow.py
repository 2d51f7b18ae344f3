"""Follow one job: its changes, and the log of its first replica, through servers that restart."""

import collections
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import urllib3
from kubernetes.client.exceptions import ApiException

from previts.launch.cluster import GONE, NOT_FOUND, PATIENCE_SECONDS, Cluster, is_passing, moment_of, patiently
from previts.launch.pytorchjob import Manifest

PULSE_SECONDS = 20.0
DRAIN_SECONDS = 5.0
TAIL_LINES = 20
FIRST_PAUSE = 0.2  # after a watch that broke, and each time twice as long


def changes(cluster: Cluster, name: str, uid: str, pulse: float = PULSE_SECONDS) -> Iterator[Manifest | None]:
    """Yield a job as it is, at each change and at least once a pulse; None, at the end, if it was deleted.

    A watch goes on where the last one stopped. Where it cannot, because the server has forgotten that version (410) or
    was away, the job is asked for anew: what happened in between shows in its status.

    Raises:
        ConnectionError: If the server stays away for ten minutes.
    """
    version, away, pause = "", 0.0, FIRST_PAUSE
    job: Manifest | None = None
    while True:
        try:
            if not version:
                found, version = patiently(lambda: cluster.jobs(name), allowed=True)
                job = next((item for item in found if item["metadata"]["uid"] == uid), None)
            yield job
            if job is None:
                return
            for kind, seen in cluster.watch(name, version, pulse):
                away, pause, version = 0.0, FIRST_PAUSE, seen["metadata"]["resourceVersion"]
                job = seen if seen["metadata"]["uid"] == uid and kind != "DELETED" else None
                yield job
                if job is None:
                    return
            away, pause = 0.0, FIRST_PAUSE
        except (ApiException, urllib3.exceptions.HTTPError, OSError, json.JSONDecodeError) as error:
            if not is_passing(error, allowed=True) and getattr(error, "status", None) != GONE:
                raise
            version = ""
            away = away or time.monotonic()
            if time.monotonic() - away > PATIENCE_SECONDS:
                raise ConnectionError(f"the API server cannot be watched: {error}") from error
            time.sleep(pause)
            pause = min(2 * pause, PULSE_SECONDS)  # a server that is too busy for watches has the list to answer too


class LogFollower:
    """Passes on the lines of one pod in the background, from when it starts until `stop`."""

    def __init__(self, cluster: Cluster, pod: str, say: Callable[[str], None] | None = None) -> None:
        self._cluster, self.pod = cluster, pod
        self._say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        self.tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)  # once the pod is gone, all there is
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"log of {pod}", daemon=True)
        self._thread.start()

    def stop(self, drain: float | None = None) -> None:
        """End, after passing on what is still to come for some seconds."""
        self._stopped.set()
        self._thread.join(DRAIN_SECONDS if drain is None else drain)

    def _follow(self) -> None:
        last, aside, pause = "", "", 1.0
        while True:
            over = self._stopped.is_set()  # then once more: what was said after the last connection broke
            try:
                since = _seconds_since(last) if last else 0
                for stamp, text in self._cluster.log(self.pod, follow=not over, since_seconds=since):
                    if stamp > last:
                        last, pause = stamp, 1.0
                    elif stamp or text == aside:  # said already
                        continue
                    else:
                        aside = text
                    self.tail.append(text)
                    self._say(text)
            except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
                # Not there yet, not started yet, between two lives, or its server restarts.
                if not is_passing(error, allowed=True) and getattr(error, "status", None) not in (400, NOT_FOUND):
                    print(f"the log of {self.pod} cannot be read: {error}", file=sys.stderr)
                    return
            if over:
                return
            self._stopped.wait(pause)
            pause = min(2 * pause, 15.0)


def _seconds_since(stamp: str) -> int:
    """Return the whole seconds since a time of the cluster's, and some more: its clock may be another."""
    return max(1, int((datetime.now(UTC) - moment_of(stamp)).total_seconds()) + 10)
