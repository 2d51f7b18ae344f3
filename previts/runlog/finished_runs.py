"""The numbers of trials, read from MLflow alone.

For section 4 of PreViTS, whose tables compare the arms of one group.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from previts.errors import InputError
from previts.runlog.run_store import database_file, limit_waiting, outages, tracking_uri
from previts.runlog.stored_run import FINGERPRINT_TAG, PARENT_TAG, first_line

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


@dataclass(frozen=True)
class StoredTrial:
    """A trial in MLflow.

    Attributes:
        rows: The rows of the paper that it stands for: those with equal settings share one training.
        fingerprint: Of its checkpoint.
        seed: Its seed.
        profile: Size of the run.
        index: Fingerprint of the index that it was trained on.
        group: Id of its parent run.
        params: Every setting.
        metrics: Its newest numbers by name.
    """

    rows: tuple[str, ...]
    fingerprint: str
    seed: str
    profile: str
    index: str
    group: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """The parent runs that are compared, their trials, and a link to them; "" if the store is a file."""

    names: tuple[str, ...]
    trials: tuple[StoredTrial, ...]
    link: str


def read_comparison(root: str, runs: Sequence[str], metrics: Collection[str]) -> Comparison:
    """Return the trials of parent runs.

    Args:
        root: Folder or bucket prefix of all results, for the store if `MLFLOW_TRACKING_URI` is not set.
        runs: Ids or names of parent runs. Of several with one name, the newest is used. Empty: the newest with numbers.
        metrics: Names of the metrics that count as numbers.

    Raises:
        InputError: If MLflow does not answer, or there is no such run.
    """
    from mlflow.tracking import MlflowClient

    limit_waiting()
    uri = tracking_uri(root)
    if (path := database_file(uri)) and not os.path.exists(path):
        raise InputError(f"there are no runs: {path} does not exist; give another --root, or set MLFLOW_TRACKING_URI")
    try:
        client = MlflowClient(uri)
        parents = _parents(client)
        chosen = [_named(name, parents) for name in dict.fromkeys(runs)] if runs else parents
        found: list[tuple[Run, list[StoredTrial]]] = []
        for parent in chosen:
            trials = [_trial(run) for run in _children(client, parent) if FINGERPRINT_TAG in run.data.tags]
            trials = [trial for trial in trials if trial.rows and trial.seed.isdecimal()]
            if any(trial.metrics.keys() & metrics for trial in trials):
                found.append((parent, trials))
                if not runs:
                    break
    except outages() as outage:
        raise InputError(f"MLflow at {uri} does not answer ({first_line(outage)})") from None
    if not found:
        names = ", ".join(repr(parent.info.run_name) for parent in chosen[:5])
        raise InputError(f"the trials of {names or 'no run'} have no numbers yet; run `previts evaluate`")
    page = f"{uri.rstrip('/')}/#/experiments/{found[0][0].info.experiment_id}/runs?workflowType=machine_learning"
    return Comparison(
        tuple(parent.info.run_name for parent, _ in found),
        tuple(trial for _, trials in found for trial in trials),
        page if uri.startswith("http") else "",
    )


def _parents(client: "MlflowClient") -> "list[Run]":
    """Return the parent runs of all trials, newest first; one may be a run of Kubeflow Pipelines."""
    experiments = [item.experiment_id for item in client.search_experiments()]
    trials = _all(client, experiments, f"tags.`{FINGERPRINT_TAG}` LIKE '%'")
    ids = {trial.data.tags[PARENT_TAG] for trial in trials if PARENT_TAG in trial.data.tags}
    return sorted((client.get_run(run_id) for run_id in ids), key=lambda run: -run.info.start_time)


def _named(name: str, parents: "Sequence[Run]") -> "Run":
    found = next((run for run in parents if name in (run.info.run_id, run.info.run_name)), None)
    if found is None:
        names = ", ".join(repr(run.info.run_name) for run in parents[:5])
        raise InputError(f"MLflow has no run {name!r} that compares arms; the newest are {names or '(none)'}")
    return found


def _all(client: "MlflowClient", experiments: Sequence[str], query: str) -> "list[Run]":
    found: list[Run] = []
    page: str | None = ""
    while experiments and page is not None:
        several = client.search_runs(list(experiments), query, page_token=page or None)
        found += several
        page = several.token or None
    return found


def _children(client: "MlflowClient", parent: "Run") -> "list[Run]":
    return _all(client, [parent.info.experiment_id], f"tags.`{PARENT_TAG}` = '{parent.info.run_id}'")


def _trial(run: "Run") -> StoredTrial:
    tags, params = run.data.tags, run.data.params
    known = tags.get("rows") or tags.get("row") or params.get("row", "")  # runs of earlier versions have a parameter
    return StoredTrial(
        tuple(dict.fromkeys([*known.split(), *tags.get("row", "").split()])),
        tags[FINGERPRINT_TAG],
        tags.get("seed") or params.get("seed", "0"),
        tags.get("profile") or params.get("profile", ""),
        tags.get("previts.index") or params.get("index", ""),
        tags[PARENT_TAG],
        params,
        run.data.metrics,
    )
