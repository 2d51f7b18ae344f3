"""A run in MLflow, and how the entries of a run log are sent to it.

For section 4 of PreViTS. Sending the same entries again changes nothing in MLflow, because a spool is sent again after
an outage that interrupts it.
"""

import hashlib
import json
import logging
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from previts.runlog import logged_model
from previts.runlog.entries import AT_START, Entry
from previts.storage import files

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

FINGERPRINT_TAG, GROUP_TAG, PARENT_TAG = "previts.fingerprint", "previts.group", "mlflow.parentRunId"
# What this project wrote last, so that the name and the description that a user wrote are kept.
NAME_TAG, NOTE_DIGEST_TAG, NOTE_TAG = "previts.name", "previts.note", "mlflow.note.content"
# Limits of one MLflow request: number of metrics, length of a tag.
METRICS_AT_ONCE, TAG_LENGTH = 900, 8000
# Error codes for which a retry is useless; every other error counts as an outage.
REJECTIONS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST")
# The types of data sources that MLflow knows, by the scheme of a URI.
_SOURCES = {"s3": "s3", "gs": "gs", "http": "http", "https": "http"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredRun:
    """A run in MLflow."""

    client: "MlflowClient"
    run_id: str

    def send_entries(self, entries: list[Entry]) -> None:
        """Send entries in order; an entry that MLflow rejects is dropped with a warning.

        Metrics that follow each other are collected and sent in one request, before the next entry of another kind.
        """
        from mlflow.exceptions import MlflowException

        waiting: list[Metric] = []
        start = 0
        if any(entry["kind"] == "metrics" and entry["time"] == AT_START for entry in entries):
            start = self.client.get_run(self.run_id).info.start_time
        for number, entry in enumerate(entries):
            if entry["kind"] == "metrics":
                waiting += self._metrics(entry, start)
                following = entries[number + 1]["kind"] if number + 1 < len(entries) else ""
                if following == "metrics" and len(waiting) < METRICS_AT_ONCE:
                    continue
            try:
                self._send_one(entry, waiting)
            except MlflowException as error:
                if error.error_code not in REJECTIONS:
                    raise
                logger.warning("MLflow rejects an entry, which is dropped: %s", first_line(error))
            waiting = []

    def _metrics(self, entry: Entry, start: int) -> "list[Metric]":
        from mlflow.entities import Metric

        linked: dict[str, str | None] = {}
        if fingerprint := entry.get("model"):
            experiment_id = self.client.get_run(self.run_id).info.experiment_id
            model = logged_model.find(self.client, experiment_id, fingerprint)
            linked["model_id"] = model.model_id if model else None
        if entry.get("dataset"):
            linked |= {"dataset_name": entry["dataset"], "dataset_digest": entry["digest"]}
        when = entry["time"] or start
        return [Metric(name, value, when, entry["step"], **linked) for name, value in entry["values"].items()]

    def _send_one(self, entry: Entry, waiting: "list[Metric]") -> None:
        match entry["kind"]:
            case "metrics":
                for start in range(0, len(waiting), METRICS_AT_ONCE):
                    self._send_metrics(waiting[start : start + METRICS_AT_ONCE])
            case "tag":
                self._set_tag(entry["key"], entry["value"], merge=entry.get("merge", False))
            case "label":
                self._label(entry["field"], entry["value"])
            case "dataset":
                self._add_dataset(entry)
            case "model":
                logged_model.store(self.client, self.client.get_run(self.run_id), entry)
            case "artifact":
                self._send_artifact(entry["path"], entry["folder"])
            case "end":
                self.client.set_terminated(self.run_id, entry["status"], entry["time"])
                self._settle_parent()

    def _set_tag(self, key: str, value: str, *, merge: bool) -> None:
        if merge:
            known = self.client.get_run(self.run_id).data.tags.get(key, "")
            value = " ".join(dict.fromkeys([*known.split(), *value.split()]))
        self.client.set_tag(self.run_id, key, cut(value))

    def _send_metrics(self, metrics: "list[Metric]") -> None:
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        try:
            self.client.log_batch(self.run_id, metrics=metrics)
        except MlflowException as error:
            if error.error_code not in REJECTIONS or not any(item.model_id for item in metrics):
                raise
            # The model was deleted, or has another number of the same time: the run still gets the number.
            plain = [Metric(item.key, item.value, item.timestamp, item.step) for item in metrics]
            self.client.log_batch(self.run_id, metrics=plain)

    def _send_artifact(self, path: str, folder: str) -> None:
        """Send a file on this disk or in a store; a file that no longer exists is reported."""
        with tempfile.TemporaryDirectory(prefix="previts-") as temporary:
            local = files.local_path(path)
            try:
                if local is None:
                    local = os.path.join(temporary, path.rsplit("/", 1)[-1])
                    with open(local, "wb") as file:
                        file.write(files.read_bytes(path))
                elif not os.path.exists(local):
                    raise FileNotFoundError(local)
            except FileNotFoundError:
                logger.warning("%s no longer exists and cannot be sent to MLflow", path)
                return
            self.client.log_artifact(self.run_id, local, folder or None)

    def _add_dataset(self, entry: Entry) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = entry["source"]
        kind = _SOURCES.get(source.partition("://")[0], "local")
        dataset = Dataset(
            entry["name"],
            entry["digest"],
            kind,
            json.dumps({"url" if kind == "http" else "uri": source}),
            profile=json.dumps(entry["profile"]),
        )
        self.client.log_inputs(
            self.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", entry["context"])])]
        )

    def _label(self, field: str, value: str) -> None:
        """Set the name or the description of the run, unless the user has changed it."""
        from mlflow.entities import RunTag

        run = self.client.get_run(self.run_id)
        tags = run.data.tags
        if field == "name":
            if run.info.run_name not in (value, tags.get(NAME_TAG)):
                return
            self.client.update_run(self.run_id, name=value)
            self.client.set_tag(self.run_id, NAME_TAG, value)
            return
        text, present = cut(value), tags.get(NOTE_TAG, "")
        if present and note_digest(present) != tags.get(NOTE_DIGEST_TAG):
            return
        both = [RunTag(NOTE_TAG, text), RunTag(NOTE_DIGEST_TAG, note_digest(text))]
        self.client.log_batch(self.run_id, tags=both)

    def _settle_parent(self) -> None:
        """Set the status of the group's run to the worst status of its trials; other parents are not changed."""
        parent_id = self.client.get_run(self.run_id).data.tags.get(PARENT_TAG)
        if parent_id is None:
            return
        parent = self.client.get_run(parent_id)
        if GROUP_TAG not in parent.data.tags or FINGERPRINT_TAG in parent.data.tags:
            return
        trials = self.client.search_runs([parent.info.experiment_id], f"tags.`{PARENT_TAG}` = '{parent_id}'")
        found = {trial.info.status for trial in trials}
        worst = next(status for status in ("RUNNING", "FAILED", "KILLED", "FINISHED") if status in found)
        if worst != "RUNNING":
            self.client.set_terminated(parent_id, worst)


def note_digest(text: str) -> str:
    """Return the digest by which a description of this project is recognised."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:12]


def cut(text: str) -> str:
    """Return a text cut to the longest tag that MLflow stores, at the end of a line if possible."""
    if len(text) <= TAG_LENGTH:
        return text
    kept = text[: TAG_LENGTH - 4]
    return f"{kept[: kept.rfind(chr(10))] if chr(10) in kept[TAG_LENGTH // 2 :] else kept}\n…"


def first_line(error: BaseException) -> str:
    """Return the first line of an error message, at most 300 characters."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
