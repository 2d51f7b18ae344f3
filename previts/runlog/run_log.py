"""The run log: the parameters, metrics, artifacts and end of each run, recorded in MLflow.

For section 4 of PreViTS, whose tables compare the arms of one group. The run log never stops the work. Entries that
MLflow does not accept are kept in a file, the spool. They are sent when MLflow answers, at the latest when another run
of the same root starts. Only the main process writes here.

A trial is identified by its fingerprint, so a resumed run continues its MLflow run. Parameters are written once.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from typing import Literal, Protocol

from previts.errors import InputError
from previts.runlog.description import Dataset, LoggedModel, summary
from previts.runlog.entries import AT_START, Entry, Identity
from previts.runlog.run_store import (
    EXPERIMENT,
    PARAM_LENGTH,
    delete_artifact,
    limit_waiting,
    open_stored,
    outages,
    running_trials,
)
from previts.runlog.spool import Spool
from previts.runlog.stored_run import FINGERPRINT_TAG, StoredRun, first_line
from previts.storage import files, leases

Status = Literal["FINISHED", "FAILED", "KILLED"]

REPORT_TAG = "previts.report"  # URI of the report that a group's run has as an artifact
PAGE, REPORT_FOLDER = "report.html", "report"  # its page, and the folder of its other files among the artifacts
SHOWN = (".md", ".csv", ".svg", ".png")  # of the other files, these are stored
RETRY_SECONDS, LONGEST_RETRY_SECONDS = 60.0, 600.0

logger = logging.getLogger(__name__)


class Sampler(Protocol):
    """Measures the load of the machine, such as `system_metrics.LoadSampler`."""

    def take(self) -> dict[str, float]:
        """Return the load since the last call, by the names of its metrics."""


class RunLog:
    """One run in MLflow, or in the spool while MLflow does not answer.

    No method raises an error of MLflow; each returns when the entry is sent or in the spool.

    Attributes:
        sampler: Adds the load of the machine to the metrics, if it is set.
    """

    def __init__(self, root: str, identity: Identity) -> None:
        self._root, self._identity = root, identity
        self._stored: StoredRun | None = None
        self._spool: Spool | None = None
        self._retry_at, self._pause = 0.0, RETRY_SECONDS
        self.sampler: Sampler | None = None

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record metrics of one step."""
        load = self.sampler.take() if self.sampler else {}
        self._record(_metrics({**values, **load}, step))

    def measured(self, values: Mapping[str, float], step: int, model: str, dataset: Dataset) -> None:
        """Record metrics of a logged model on a dataset.

        Args:
            values: The metrics.
            step: Steps that the model was trained for.
            model: Fingerprint of its checkpoint.
            dataset: What it was measured on.
        """
        linked = {"model": model, "dataset": dataset.name, "digest": dataset.digest}
        self._record({**_metrics(values, step), **linked})

    def dataset(self, dataset: Dataset, context: Literal["training", "eval"]) -> None:
        """Record a dataset as an input of the run."""
        self._record({"kind": "dataset", "context": context, **asdict(dataset)})

    def model(self, model: LoggedModel) -> None:
        """Record a checkpoint as a logged model; recording it again updates the same one."""
        self._record({"kind": "model", **asdict(model)})

    def note(self, text: str) -> None:
        """Set the description of the run, in Markdown, unless the user has written another."""
        self._record({"kind": "label", "field": "note", "value": text})

    def rename(self, name: str) -> None:
        """Change the name of the run, unless the user has changed it."""
        self._record({"kind": "label", "field": "name", "value": name})

    def points(self, points: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Record metrics, each with its step; recording them again changes nothing in MLflow."""
        self._record(*({**_metrics(values, step), "time": AT_START} for step, values in points))

    def artifact(self, path: str, folder: str = "") -> None:
        """Record a file as an artifact in `folder`; it must exist until it is sent.

        Args:
            path: Path or URI of the file.
            folder: Folder among the artifacts.
        """
        self._record({"kind": "artifact", "path": files.absolute(path), "folder": folder})

    def tag(self, key: str, value: str) -> None:
        """Set a tag; a new value replaces the old one."""
        self._record({"kind": "tag", "key": key, "value": str(value)})

    def add_to_tag(self, key: str, words: Sequence[str]) -> None:
        """Add words to a tag, each once; those that it has stay."""
        self._record({"kind": "tag", "key": key, "value": " ".join(words), "merge": True})

    def finish(self, status: Status = "FINISHED") -> None:
        """Record how the run ended; if MLflow does not answer, leave the spool for the next run of this root."""
        self._retry_at = 0.0
        self._record({"kind": "end", "status": status})
        self.close()

    def close(self) -> None:
        """Release the spool; if the root is remote, copy the spool to it."""
        if self._spool is not None:
            self._spool.leave()
            self._spool = None

    def start(self) -> None:
        """Find or create the run in MLflow; if that fails, use the spool."""
        if (outage := self._try([])) is not None:
            self._begin_spool(outage)

    def _record(self, *entries: Entry) -> None:
        for entry in entries:
            entry.setdefault("time", int(time.time() * 1000))
        if self._spool is None:
            outage = self._try(list(entries))
            if outage is not None:
                self._begin_spool(outage)
                self._kept().write(list(entries))
            return
        self._spool.write(list(entries))
        if time.monotonic() >= self._retry_at:
            self._resend()

    def _kept(self) -> Spool:
        assert self._spool is not None
        return self._spool

    def _begin_spool(self, outage: BaseException) -> None:
        self._spool = Spool.create(self._root, self._identity)
        self._retry_at = time.monotonic() + self._pause
        logger.warning(
            "MLflow does not accept entries (%s); they are kept in %s and sent when MLflow answers; the run continues",
            first_line(outage),
            self._spool.path,
        )

    def _resend(self) -> None:
        spool = self._kept()
        outage = self._try(spool.entries())
        if outage is None:
            spool.delete()
            self._spool, self._pause = None, RETRY_SECONDS
            logger.warning("MLflow answers again; the kept entries have been sent")
            return
        self._pause = min(2 * self._pause, LONGEST_RETRY_SECONDS)
        self._retry_at = time.monotonic() + self._pause

    def _try(self, entries: list[Entry]) -> BaseException | None:
        """Send entries in order; return the error if MLflow did not accept them, else None."""
        try:
            if self._stored is None:
                self._stored = open_stored(self._root, self._identity, working=self._identity.kind == "trial")
            self._stored.send_entries(entries)
        except outages() as error:
            self._stored = None
            return error
        return None


def open_run(
    root: str,
    *,
    group: str,
    name: str,
    fingerprint: str,
    params: Mapping[str, object],
    tags: Mapping[str, str] | None = None,
    corpus: str = "",
) -> RunLog:
    """Start or continue the run of one trial, and send the spools of earlier runs of this root.

    The store is `MLFLOW_TRACKING_URI`. If it is not set, the store is a file `mlflow.db` in the root, or in the working
    directory if the root is remote. If `MLFLOW_RUN_ID` is set (Kubeflow Pipelines sets it), that run is the parent
    instead of the group's run.

    Args:
        root: Folder or bucket prefix that contains all results.
        group: Name shared by the trials that are compared; one parent run.
        name: Name shown in MLflow; a continued run keeps its first name.
        fingerprint: Identifies the trial; a run with the same fingerprint is continued.
        params: Parameters, written only at the first start.
        tags: Tags; those of the newest start are kept.
        corpus: Name of the corpus, for the first name of the parent run.

    Raises:
        InputError: If group or fingerprint contains a quote, which MLflow's search cannot express.
    """
    texts = {key: str(value)[:PARAM_LENGTH] for key, value in params.items()}
    title = f"{corpus} · {date.today()}" if corpus else ""
    return _start(root, Identity("trial", EXPERIMENT, group, name, fingerprint, texts, dict(tags or {}), title))


def log_result(root: str, fingerprint: str, metrics: Mapping[str, float], dataset: Dataset | None = None) -> None:
    """Add the metrics of a benchmark to the run and the logged model of the trial that was evaluated.

    Args:
        root: Folder or bucket prefix that contains all results.
        fingerprint: Of the trial.
        metrics: The metrics.
        dataset: The labelled set that they were measured on.
    """
    log = _start(root, Identity("addition", EXPERIMENT, name=fingerprint, fingerprint=fingerprint))
    if dataset is None:
        log.metrics(metrics, step=0)
    else:
        log.dataset(dataset, "eval")
        log.measured(metrics, step=0, model=fingerprint, dataset=dataset)
    log.close()


def log_report(root: str, *, group: str, report: str, name: str = "", index: Dataset | None = None) -> None:
    """Store the report about a group's trials with the group's run: its files, its tables, and its folder as a tag.

    Args:
        root: Folder or bucket prefix that contains all results.
        group: The group.
        report: URI of the folder of the report.
        name: New name of the group's run, such as "previts · crawl-1 (72 videos) · 2026-11-30 · 3 rows x 5 seeds".
        index: The index that its trials were trained on.
    """
    log = _start(root, Identity("group", EXPERIMENT, group=group, title=name))
    log.tag(REPORT_TAG, report)
    if name:
        log.rename(name)
    if index:
        log.dataset(index, "training")
    for file in sorted(files.names(report)):
        if file == PAGE:
            log.artifact(files.join(report, file))
        elif file.endswith(SHOWN):
            log.artifact(files.join(report, file), REPORT_FOLDER)
        if file.endswith(".md") and (text := summary(files.read_bytes(files.join(report, file)).decode())):
            log.note(text)
    log.close()


def log_generations(
    root: str,
    tags: Mapping[str, str],
    points: Sequence[tuple[int, Mapping[str, float]]],
    *,
    group: str = "",
    fingerprint: str = "",
    rows: Sequence[str] = (),
) -> None:
    """Add tags and metrics over the generations of a corpus to the run of a trial, or to that of a group.

    A repeated call changes nothing in MLflow.

    Args:
        root: Folder or bucket prefix that contains all results.
        tags: The tags.
        points: Metrics, each with its step, the number of a generation.
        group: The group; give this or the fingerprint.
        fingerprint: Of the trial.
        rows: The rows that the trial stands for, in addition to those that are known.
    """
    kind: Literal["addition", "group"] = "group" if group else "addition"
    log = _start(root, Identity(kind, EXPERIMENT, group=group, name=fingerprint, fingerprint=fingerprint))
    for key, value in tags.items():
        log.tag(key, value)
    if rows:
        log.add_to_tag("rows", rows)
    log.points(points)
    log.close()


def delete_report(root: str, report: str) -> bool:
    """Delete the artifacts that `log_report` stored for a report, and return whether there was one.

    Raises:
        InputError: If MLflow does not answer.
    """
    return any([_deleted(root, REPORT_TAG, report, name) for name in (PAGE, REPORT_FOLDER)])


def delete_pictures(root: str, fingerprint: str, folder: str) -> bool:
    """Delete the folder of images of a trial from its artifacts, and return whether there was one.

    Raises:
        InputError: If MLflow does not answer.
    """
    return _deleted(root, FINGERPRINT_TAG, fingerprint, folder)


def _deleted(root: str, tag: str, value: str, name: str) -> bool:
    try:
        return delete_artifact(root, tag, value, name)
    except outages() as outage:
        raise InputError(
            f"MLflow does not answer ({first_line(outage)}), so {name} of the run with {tag}={value} was not deleted "
            "there; run the same command again when it answers"
        ) from None


def close_runs(root: str) -> int:
    """Mark the trials of a root that still have the status running as failed, if their processes were killed.

    A trial is not changed if another run works on its checkpoint (`storage/leases.py`).

    Returns:
        The number of these trials; 0 if MLflow does not answer.
    """
    try:
        at_work = {name.rsplit("-", 1)[-1] for name in _at_work(files.join(root, "checkpoints"))}
        left = [trial for fingerprint, trial in running_trials(root, EXPERIMENT).items() if fingerprint not in at_work]
        for trial in left:
            trial.send_entries([{"kind": "end", "status": "FAILED", "time": int(time.time() * 1000)}])
    except outages() as outage:
        logger.warning("MLflow does not answer (%s); killed runs keep the status running", first_line(outage))
        return 0
    return len(left)


def _at_work(folder: str) -> list[str]:
    """Return the names of the outputs in a folder on which a process works."""
    names = files.names(folder)
    return [name for name in names if leases.names(uri := files.join(folder, name)) and leases.is_held(uri)]


@contextmanager
def reporting(run: RunLog | None) -> Iterator[None]:
    """Finish a run with a status that depends on how the block ends.

    FINISHED without an error, KILLED after an interrupt or an exit, FAILED after any other error.
    """
    try:
        yield
    except BaseException as error:
        if run is not None:
            run.finish("KILLED" if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit) else "FAILED")
        raise
    if run is not None:
        run.finish("FINISHED")


def _metrics(values: Mapping[str, float], step: int) -> Entry:
    return {"kind": "metrics", "values": {name: float(value) for name, value in values.items()}, "step": step}


def _start(root: str, identity: Identity) -> RunLog:
    for text in (identity.group, identity.fingerprint):
        if "'" in text or '"' in text:
            raise InputError(f"names of runs and groups must be without quotes, got {text!r}; remove the quotes")
    limit_waiting()
    # The standard output of a verb is the URI of its result.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    _replay(root)
    log = RunLog(root, identity)
    log.start()
    return log


def _replay(root: str) -> None:
    """Send the spools that finished runs have left; stop at the first outage."""
    for spool in Spool.left_behind(root):
        try:
            identity, entries = spool.identity(), spool.entries()
        except InputError as error:
            logger.warning("%s: its entries belong to no run and are kept in %s.damaged", error, spool.path)
            spool.set_aside()
            continue
        try:
            if identity is not None:
                open_stored(root, identity, working=False).send_entries(entries)
        except outages():
            spool.leave()
            return
        spool.delete()
