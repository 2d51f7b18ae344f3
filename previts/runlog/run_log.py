"""The run log: what a run was told, what it measured and how it ended, kept in MLflow.

Serves section 4 of PreViTS, whose tables compare arms of one group. It never decides anything and never stops the
work: what MLflow does not take is kept in a file, the spool, and sent as soon as MLflow answers, at the latest when
another run of the same root starts. Only the main process writes here.

An arm is found again by its fingerprint, so a resumed run continues its record; parameters are written once.
"""

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from previts.errors import InputError
from previts.runlog.run_store import PARAM_LENGTH, StoredRun, first_line, open_stored, outages, running_arms
from previts.runlog.spool import Entry, Identity, Spool
from previts.storage import files

Status = Literal["FINISHED", "FAILED", "KILLED"]

EXPERIMENT = "previts"  # of MLflow
RETRY_SECONDS, LONGEST_RETRY_SECONDS = 60.0, 600.0

logger = logging.getLogger(__name__)


class RunLog:
    """One run in MLflow, or in the spool while MLflow does not answer.

    No method raises because of MLflow; each returns when the entry is sent or kept.
    """

    def __init__(self, root: str, identity: Identity) -> None:
        self._root, self._identity = root, identity
        self._stored: StoredRun | None = None
        self._spool: Spool | None = None
        self._retry_at, self._pause = 0.0, RETRY_SECONDS

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers of one step."""
        plain = {name: float(value) for name, value in values.items()}
        self._record({"kind": "metrics", "values": plain, "step": step})

    def artifact(self, path: str, folder: str = "") -> None:
        """Record a file of this machine's disk, below `folder` of the run's artifacts."""
        self._record({"kind": "artifact", "path": os.path.abspath(path), "folder": folder})

    def tag(self, key: str, value: str) -> None:
        """Set a tag; a later value replaces an earlier one."""
        self._record({"kind": "tag", "key": key, "value": str(value)})

    def finish(self, status: Status = "FINISHED") -> None:
        """Say how the run ended; where MLflow does not answer, leave the spool for the next run of this root."""
        self._retry_at = 0.0
        self._record({"kind": "end", "status": status})
        self.close()

    def close(self) -> None:
        """Let go of the spool, and put it beside the results where these lie elsewhere."""
        if self._spool is not None:
            self._spool.leave()
            self._spool = None

    def start(self) -> None:
        """Find or create the run in MLflow; where that is not possible now, go on with the spool."""
        if (outage := self._try([])) is not None:
            self._begin_spool(outage)

    def _record(self, entry: Entry) -> None:
        entry["time"] = int(time.time() * 1000)
        if self._spool is None:
            outage = self._try([entry])
            if outage is not None:
                self._begin_spool(outage)
                self._kept().write([entry])
            return
        self._spool.write([entry])
        if time.monotonic() >= self._retry_at:
            self._resend()

    def _kept(self) -> Spool:
        assert self._spool is not None
        return self._spool

    def _begin_spool(self, outage: BaseException) -> None:
        self._spool = Spool.create(self._root, self._identity)
        self._retry_at = time.monotonic() + self._pause
        logger.warning(
            "MLflow does not take entries (%s); the work goes on, they are kept in %s and sent when it answers again",
            first_line(outage),
            self._spool.path,
        )

    def _resend(self) -> None:
        spool = self._kept()
        outage = self._try(spool.entries())
        if outage is None:
            spool.delete()
            self._spool, self._pause = None, RETRY_SECONDS
            logger.warning("MLflow answers again; what was kept has been sent")
            return
        self._pause = min(2 * self._pause, LONGEST_RETRY_SECONDS)
        self._retry_at = time.monotonic() + self._pause

    def _try(self, entries: list[Entry]) -> BaseException | None:
        """Send entries in order; return what kept MLflow from taking them."""
        try:
            if self._stored is None:
                self._stored = open_stored(self._root, self._identity, working=self._identity.kind == "arm")
            self._stored.send(entries)
        except outages() as error:
            self._stored = None
            return error
        return None


def open_run(root: str, *, group: str, name: str, fingerprint: str, params: Mapping[str, object]) -> RunLog:
    """Start or continue the run of one arm, and send what earlier runs of this root could not.

    The store is `MLFLOW_TRACKING_URI`, else a file `mlflow.db` in the root, or in the working directory where the root
    is not on this machine. A run named by `MLFLOW_RUN_ID` (Kubeflow Pipelines sets it) is the parent instead of the
    group's.

    Args:
        root: Folder or bucket prefix under which every result lies.
        group: What the arms that are compared have in common; one parent run.
        name: Shown in MLflow; of a continued run, the first name stays.
        fingerprint: Names the arm: an equal one continues that run.
        params: Written at the first start only; see `flatten`.

    Raises:
        InputError: If group or fingerprint has a quote, which MLflow's search cannot express.
    """
    texts = {key: str(value)[:PARAM_LENGTH] for key, value in params.items()}
    return _start(root, Identity("arm", EXPERIMENT, group, name, fingerprint, texts))


def log_result(root: str, fingerprint: str, metrics: Mapping[str, float]) -> None:
    """Add the numbers of a benchmark to the run of the arm that they measure."""
    log = _start(root, Identity("addition", EXPERIMENT, name=fingerprint, fingerprint=fingerprint))
    log.metrics(metrics, step=0)
    log.close()


def log_report(root: str, *, group: str, report: str) -> None:
    """Keep the page about a group's arms with the group's run, and say where its folder lies."""
    log = _start(root, Identity("group", EXPERIMENT, group=group))
    log.tag("previts.reporting.page", report)
    with tempfile.TemporaryDirectory() as folder:
        page = os.path.join(folder, "report.html")
        with open(page, "wb") as file:
            file.write(files.read_bytes(files.join(report, "report.html")))
        log.artifact(page)
    log.close()


def close_runs(root: str) -> int:
    """Mark the arms of a root that still count as running as failed: whoever worked on them was killed.

    Returns:
        How many there were; 0 where MLflow does not answer.
    """
    try:
        left = running_arms(root, EXPERIMENT)
        for arm in left:
            arm.send([{"kind": "end", "status": "FAILED", "time": int(time.time() * 1000)}])
    except outages() as outage:
        logger.warning("MLflow does not answer (%s); runs that were killed stay marked as running", first_line(outage))
        return 0
    return len(left)


@contextmanager
def reporting(run: RunLog | None) -> Iterator[None]:
    """Finish a run by how the block ends: FINISHED, FAILED, or KILLED when it was interrupted or told to exit."""
    try:
        yield
    except BaseException as error:
        if run is not None:
            run.finish("KILLED" if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit) else "FAILED")
        raise
    if run is not None:
        run.finish("FINISHED")


def _start(root: str, identity: Identity) -> RunLog:
    for text in (identity.group, identity.fingerprint):
        if "'" in text or '"' in text:
            raise InputError(f"names of runs and groups must be without quotes, got {text!r}")
    # Training must not stand still for MLflow's own patience: 7 tries of up to 2 minutes each.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    _replay(root)
    log = RunLog(root, identity)
    log.start()
    return log


def _replay(root: str) -> None:
    """Send what runs that are over have left in their spools; stop at the first outage."""
    for spool in Spool.left_behind(root):
        identity, entries = spool.identity(), spool.entries()
        try:
            if identity is not None:
                open_stored(root, identity, working=False).send(entries)
        except outages():
            spool.leave()
            return
        spool.delete()
