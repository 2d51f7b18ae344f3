"""The run log: what a run was told, what it measured and how it ended, kept in MLflow.

Serves section 4 of PreViTS, whose tables compare arms of one group. It never decides anything and never stops the
work: what MLflow does not take is kept in a file, the spool, and sent as soon as MLflow answers, at the latest when
another run of the same root starts. Only the main process writes here.

An arm is found again by its fingerprint, so a resumed run continues its record; parameters are written once.
"""

import fcntl
import json
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import IO, TYPE_CHECKING, Any, Literal

from previts import storage
from previts.errors import InputError

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]
Entry = dict[str, Any]

EXPERIMENT = "previts"
SPOOLS = "runlog"
FINGERPRINT_TAG, GROUP_TAG, PARENT_TAG = "previts.fingerprint", "previts.group", "mlflow.parentRunId"
ROOT_TAG = "previts.root"
RETRY_SECONDS, LONGEST_RETRY_SECONDS = 60.0, 600.0
# What MLflow takes at once.
PARAMS_AT_ONCE, METRICS_AT_ONCE, PARAM_LENGTH = 100, 900, 6000
# Answers that another try would not change; everything else counts as an outage.
REJECTIONS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """Which MLflow run is meant: an arm that works now, an arm that is only added to, or the group above its arms."""

    kind: Literal["arm", "addition", "group"]
    experiment: str
    group: str = ""
    name: str = ""
    fingerprint: str = ""
    params: dict[str, str] = field(default_factory=dict)


class RunLog:
    """One run in MLflow, or in the spool while MLflow does not answer.

    No method raises because of MLflow; each returns when the entry is sent or kept.
    """

    def __init__(self, root: str, identity: Identity) -> None:
        self._root, self._identity = root, identity
        self._target: _Target | None = None
        self._spool: _Spool | None = None
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

    def _kept(self) -> "_Spool":
        assert self._spool is not None
        return self._spool

    def _begin_spool(self, outage: BaseException) -> None:
        self._spool = _Spool.create(self._root, self._identity)
        self._retry_at = time.monotonic() + self._pause
        logger.warning(
            "MLflow does not take entries (%s); the work goes on, they are kept in %s and sent when it answers again",
            _first_line(outage),
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
            if self._target is None:
                self._target = _open_target(self._root, self._identity, working=self._identity.kind == "arm")
            self._target.send(entries)
        except _outages() as error:
            self._target = None
            return error
        return None


def open_run(
    root: str, *, group: str, name: str, fingerprint: str, params: Mapping[str, object], experiment: str = EXPERIMENT
) -> RunLog:
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
        experiment: Name of the MLflow experiment.

    Raises:
        InputError: If group or fingerprint has a quote, which MLflow's search cannot express.
    """
    texts = {key: str(value)[:PARAM_LENGTH] for key, value in params.items()}
    return _start(root, Identity("arm", experiment, group, name, fingerprint, texts))


def log_result(root: str, fingerprint: str, metrics: Mapping[str, float], experiment: str = EXPERIMENT) -> None:
    """Add the numbers of a benchmark to the run of the arm that they measure."""
    log = _start(root, Identity("addition", experiment, name=fingerprint, fingerprint=fingerprint))
    log.metrics(metrics, step=0)
    log.close()


def log_report(root: str, *, group: str, report: str, experiment: str = EXPERIMENT) -> None:
    """Keep the page about a group's arms with the group's run, and say where its folder lies."""
    log = _start(root, Identity("group", experiment, group=group))
    log.tag("previts.report", report)
    with tempfile.TemporaryDirectory() as folder:
        page = os.path.join(folder, "report.html")
        with open(page, "wb") as file:
            file.write(storage.read_bytes(storage.join(report, "report.html")))
        log.artifact(page)
    log.close()


def close_runs(root: str, experiment: str = EXPERIMENT) -> int:
    """Mark the arms of a root that still count as running as failed: whoever worked on them was killed.

    Returns:
        How many there were; 0 where MLflow does not answer.
    """
    from mlflow.tracking import MlflowClient

    uri = tracking_uri(root)
    if _database(uri) and not os.path.exists(_database(uri)):
        return 0
    try:
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(experiment)
        query = f"attributes.status = 'RUNNING' and tags.`{ROOT_TAG}` = '{storage.absolute(root)}'"
        left = client.search_runs([found.experiment_id], query) if found else []
        for arm in left:
            _Target(client, arm.info.run_id).send(
                [{"kind": "end", "status": "FAILED", "time": int(time.time() * 1000)}]
            )
    except _outages() as outage:
        logger.warning("MLflow does not answer (%s); runs that were killed stay marked as running", _first_line(outage))
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


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested settings as `{"optim.lr": 0.03, ...}`."""
    found: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def tracking_uri(root: str) -> str:
    """Return where MLflow keeps the runs of a root."""
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        return given
    folder = storage.local_path(root)
    return f"sqlite:///{os.path.join(os.path.abspath(folder) if folder else os.getcwd(), 'mlflow.db')}"


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
    for spool in _Spool.left_behind(root):
        identity, entries = spool.identity(), spool.entries()
        try:
            if identity is not None:
                _open_target(root, identity, working=False).send(entries)
        except _outages():
            spool.leave()
            return
        spool.delete()


@dataclass(frozen=True)
class _Target:
    """A run that MLflow has."""

    client: "MlflowClient"
    run_id: str

    def send(self, entries: list[Entry]) -> None:
        """Send entries in order, numbers in a row together; what MLflow rejects is dropped with a warning."""
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        waiting: list[Metric] = []
        for number, entry in enumerate(entries):
            if entry["kind"] == "metrics":
                step, when = entry["step"], entry["time"]
                waiting += [Metric(name, value, when, step) for name, value in entry["values"].items()]
                following = entries[number + 1]["kind"] if number + 1 < len(entries) else ""
                if following == "metrics" and len(waiting) < METRICS_AT_ONCE:
                    continue
            try:
                self._send_one(entry, waiting)
            except MlflowException as error:
                if error.error_code not in REJECTIONS:
                    raise
                logger.warning("MLflow rejects an entry, it is dropped: %s", _first_line(error))
            waiting = []

    def _send_one(self, entry: Entry, waiting: "list[Any]") -> None:
        match entry["kind"]:
            case "metrics":
                for start in range(0, len(waiting), METRICS_AT_ONCE):
                    self.client.log_batch(self.run_id, metrics=waiting[start : start + METRICS_AT_ONCE])
            case "tag":
                self.client.set_tag(self.run_id, entry["key"], entry["value"])
            case "artifact":
                if os.path.exists(entry["path"]):
                    self.client.log_artifact(self.run_id, entry["path"], entry["folder"] or None)
                else:
                    logger.warning("%s is gone and cannot be sent to MLflow", entry["path"])
            case "end":
                self.client.set_terminated(self.run_id, entry["status"], entry["time"])
                self._settle_parent()

    def _settle_parent(self) -> None:
        """Give the group's run the worst status of its arms; a run that is not ours is left alone."""
        parent_id = self.client.get_run(self.run_id).data.tags.get(PARENT_TAG)
        if parent_id is None:
            return
        parent = self.client.get_run(parent_id)
        if GROUP_TAG not in parent.data.tags or FINGERPRINT_TAG in parent.data.tags:
            return
        arms = self.client.search_runs([parent.info.experiment_id], f"tags.`{PARENT_TAG}` = '{parent_id}'")
        found = {arm.info.status for arm in arms}
        worst = next(status for status in ("RUNNING", "FAILED", "KILLED", "FINISHED") if status in found)
        if worst != "RUNNING":
            self.client.set_terminated(parent_id, worst)


def _open_target(root: str, identity: Identity, *, working: bool) -> _Target:
    """Return the run that an identity names, created where it is not there; `working` marks it as running now."""
    from mlflow.tracking import MlflowClient

    for name in ("mlflow.store.db.utils", "alembic.runtime.migration"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = tracking_uri(root)
    with _locked(uri):
        client = MlflowClient(uri)
        adopted = os.environ.get("MLFLOW_RUN_ID", "")
        experiment_id = client.get_run(adopted).info.experiment_id if adopted else _experiment(client, identity, uri)
        if identity.kind == "addition":
            tags = {FINGERPRINT_TAG: identity.fingerprint}
            arm = _find(client, experiment_id, tags)
            if arm is None:  # trained elsewhere: its numbers are all there is
                arm = _create(client, experiment_id, tags, {}, identity.name)
                client.set_terminated(arm.info.run_id)
            return _Target(client, arm.info.run_id)
        parent_id = adopted
        if not adopted:
            # The arms carry the group's tag too; only the parent has this one.
            key = {GROUP_TAG: identity.group, "previts.role": "group"}
            parent = _find(client, experiment_id, key) or _create(client, experiment_id, key, {}, identity.group)
            parent_id = parent.info.run_id
        if identity.kind == "group":
            return _Target(client, parent_id)
        key = {FINGERPRINT_TAG: identity.fingerprint}
        about = {
            PARENT_TAG: parent_id,
            GROUP_TAG: identity.group,
            ROOT_TAG: storage.absolute(root),
            "previts.version": storage.code_version(),
        }
        arm = _find(client, experiment_id, key) or _create(client, experiment_id, key, about, identity.name)
        _describe(client, arm, identity, about, running=parent_id if working and not adopted else "", working=working)
        return _Target(client, arm.info.run_id)


def _experiment(client: "MlflowClient", identity: Identity, uri: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(identity.experiment)
    if found is None:
        try:
            return str(client.create_experiment(identity.experiment, artifact_location=_artifacts(uri)))
        except MlflowException as error:  # another process was faster
            found = client.get_experiment_by_name(identity.experiment)
            if found is None:
                raise error
    return str(found.experiment_id)


def _artifacts(uri: str) -> str | None:
    """Return the folder beside a database on this disk; a server has its own."""
    path = _database(uri)
    return os.path.join(os.path.dirname(path), "mlartifacts") if path else None


def _database(uri: str) -> str:
    prefix = "sqlite:///"
    return os.path.abspath(uri.removeprefix(prefix)) if uri.startswith(prefix) else ""


def _find(client: "MlflowClient", experiment_id: str, tags: Mapping[str, str]) -> "Run | None":
    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = client.search_runs([experiment_id], query)
    return min(found, key=lambda run: (run.info.start_time, run.info.run_id), default=None)


def _create(
    client: "MlflowClient", experiment_id: str, key: Mapping[str, str], about: Mapping[str, str], name: str
) -> "Run":
    """Create a run; of two that were created at once on a server, both processes keep the earlier."""
    created = client.create_run(experiment_id, tags={**key, **about}, run_name=name or None)
    first = _find(client, experiment_id, key) or created
    if first.info.run_id != created.info.run_id:
        client.delete_run(created.info.run_id)
    return first


def _describe(
    client: "MlflowClient", arm: "Run", identity: Identity, about: Mapping[str, str], *, running: str, working: bool
) -> None:
    """Complete a run that a benchmark or a killed start has left incomplete, and mark it and its parent as running."""
    from mlflow.entities import Param

    for key, value in about.items():
        if key not in arm.data.tags:
            client.set_tag(arm.info.run_id, key, value)
    missing = [Param(key, value) for key, value in identity.params.items() if key not in arm.data.params]
    for start in range(0, len(missing), PARAMS_AT_ONCE):
        client.log_batch(arm.info.run_id, params=missing[start : start + PARAMS_AT_ONCE])
    for run_id in [arm.info.run_id, running] if working else []:
        if run_id:
            client.update_run(run_id, status="RUNNING")


@contextmanager
def _locked(uri: str) -> Iterator[None]:
    """Let one process at a time create tables and look for runs in a database on this disk."""
    path = _database(uri)
    if not path:
        yield
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _outages() -> tuple[type[BaseException], ...]:
    """Return what MLflow raises when its store does not answer or does not take what is sent."""
    from mlflow.exceptions import MlflowException

    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:  # mlflow-skinny: there is only a server
        return MlflowException, OSError
    return MlflowException, OSError, SQLAlchemyError


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


class _Spool:
    """A file of entries that wait for MLflow, one JSON document a line, the first the identity of their run.

    It is locked while its run is at work, so that no other process sends it too.
    """

    def __init__(self, root: str, path: str, file: IO[str]) -> None:
        self.path, self._root, self._file = path, root, file

    @staticmethod
    def create(root: str, identity: Identity) -> "_Spool":
        folder = _spool_folder(root)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"{identity.fingerprint or identity.group}-{uuid.uuid4().hex[:8]}.jsonl")
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (open for as long as the run)
        fcntl.flock(file, fcntl.LOCK_EX)
        spool = _Spool(root, path, file)
        spool.write([asdict(identity)])
        return spool

    @staticmethod
    def left_behind(root: str) -> "Iterator[_Spool]":
        """Yield the spools that no process holds, those of a remote root fetched to this disk."""
        folder = _spool_folder(root)
        if storage.local_path(root) is None:
            for name in storage.names(storage.join(root, SPOOLS)):
                os.makedirs(folder, exist_ok=True)
                if not os.path.exists(os.path.join(folder, name)):
                    data = storage.read_bytes(storage.join(root, SPOOLS, name))
                    storage.write_bytes(os.path.join(folder, name), data)
        for name in storage.names(folder):
            if not name.endswith(".jsonl"):
                continue
            try:
                file = open(os.path.join(folder, name), "a+", encoding="utf-8")  # noqa: SIM115
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            if os.fstat(file.fileno()).st_nlink:  # else another process has just sent and removed it
                yield _Spool(root, file.name, file)

    def write(self, entries: list[Entry]) -> None:
        """Append entries; they survive the death of the process."""
        self._file.writelines(json.dumps(entry) + "\n" for entry in entries)
        self._file.flush()

    def identity(self) -> Identity | None:
        """Return whose entries these are, None where the process died in the first line."""
        lines = self._lines()
        return Identity(**lines[0]) if lines else None

    def entries(self) -> list[Entry]:
        """Return the entries in order."""
        return self._lines()[1:]

    def _lines(self) -> list[Entry]:
        self._file.seek(0)
        # A process that was killed may have left half a line at the end.
        return [json.loads(line) for line in self._file if line.endswith("\n")]

    def leave(self) -> None:
        """Close the file for another run to send; a root elsewhere gets a copy, as this disk may not last."""
        self._file.close()
        if self._copy():
            storage.upload(self.path, self._copy())

    def delete(self) -> None:
        """Remove the file and its copy: its entries have been sent."""
        os.remove(self.path)
        self._file.close()
        if self._copy() and storage.exists(self._copy()):
            fs, path = storage.open_fs(self._copy())
            fs.rm_file(path)

    def _copy(self) -> str:
        """Return where a root elsewhere keeps a copy of this file, nothing for a root on this disk."""
        here = storage.local_path(self._root) is not None
        return "" if here else storage.join(self._root, SPOOLS, os.path.basename(self.path))


def _spool_folder(root: str) -> str:
    """Return the folder of spools on this disk: in the root if that is here, else among temporary files."""
    folder = storage.local_path(root)
    if folder is not None:
        return os.path.join(os.path.abspath(folder), SPOOLS)
    return os.path.join(tempfile.gettempdir(), f"previts-{SPOOLS}-{storage.fingerprint(storage.absolute(root))}")
