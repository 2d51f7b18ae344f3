"""The numbers of arms, read from MLflow alone.

For section 4 of PreViTS, whose tables compare the arms of one group.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from previts.errors import InputError
from previts.runlog.run_store import EXPERIMENT, database_file, outages, tracking_uri
from previts.runlog.stored_run import FINGERPRINT_TAG, PARENT_TAG, first_line

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


@dataclass(frozen=True)
class StoredArm:
    """An arm in MLflow.

    Attributes:
        rows: The rows of the paper that it stands for: those with equal settings share one training.
        seed: Its seed.
        profile: Size of the run.
        index: Fingerprint of the index that it was trained on.
        metrics: Its newest numbers by name.
    """

    rows: tuple[str, ...]
    seed: str
    profile: str
    index: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """The parent runs that are compared, their arms, and a link to them; "" if the store is a file."""

    names: tuple[str, ...]
    arms: tuple[StoredArm, ...]
    link: str


def read_comparison(root: str, runs: Sequence[str]) -> Comparison:
    """Return the arms of parent runs.

    Args:
        root: Folder or bucket prefix of all results, for the store if `MLFLOW_TRACKING_URI` is not set.
        runs: Ids or names of parent runs. Of several with one name, the newest is used. Empty: the newest of all.

    Raises:
        InputError: If MLflow does not answer, or there is no such run.
    """
    from mlflow.tracking import MlflowClient

    uri = tracking_uri(root)
    if (path := database_file(uri)) and not os.path.exists(path):
        raise InputError(f"there are no runs: {path} does not exist; give another --root, or set MLFLOW_TRACKING_URI")
    try:
        client = MlflowClient(uri)
        parents = _parents(client, runs)
        arms = [arm for parent in parents for arm in _children(client, parent)]
    except outages() as outage:
        raise InputError(f"MLflow at {uri} does not answer ({first_line(outage)})") from None
    experiment = parents[0].info.experiment_id
    page = f"{uri.rstrip('/')}/#/experiments/{experiment}/runs?workflowType=machine_learning"
    return Comparison(
        tuple(parent.info.run_name for parent in parents),
        tuple(arm for arm in map(_arm, arms) if arm.rows),
        page if uri.startswith("http") else "",
    )


def _parents(client: "MlflowClient", names: Sequence[str]) -> "list[Run]":
    """Return the parent runs with these ids or names, newest first where there is a choice."""
    experiments = [item.experiment_id for item in client.search_experiments()]
    newest = ["attributes.start_time DESC"]
    if not names:
        known = client.get_experiment_by_name(EXPERIMENT)
        query = "tags.`previts.role` = 'group'"
        found = client.search_runs([known.experiment_id], query, max_results=1, order_by=newest) if known else []
        if not found:
            raise InputError("MLflow has no run that compares arms; run `previts pretrain`, or give --runs")
        return list(found)
    every = _all(client, experiments, f"tags.`{FINGERPRINT_TAG}` LIKE '%'")
    ids = {arm.data.tags[PARENT_TAG] for arm in every if PARENT_TAG in arm.data.tags}
    parents = sorted((client.get_run(run_id) for run_id in ids), key=lambda run: -run.info.start_time)
    chosen = []
    for name in dict.fromkeys(names):
        run = next((run for run in parents if name in (run.info.run_id, run.info.run_name)), None)
        if run is None:
            known_names = ", ".join(repr(run.info.run_name) for run in parents[:5])
            raise InputError(f"MLflow has no run {name!r} that compares arms; the newest are {known_names or '(none)'}")
        chosen.append(run)
    return chosen


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


def _arm(run: "Run") -> StoredArm:
    tags, params = run.data.tags, run.data.params
    known = tags.get("rows") or tags.get("row") or params.get("row", "")  # runs of earlier versions have a parameter
    return StoredArm(
        tuple(dict.fromkeys([*known.split(), *tags.get("row", "").split()])),
        tags.get("seed") or params.get("seed", "0"),
        tags.get("profile") or params.get("profile", ""),
        tags.get("previts.index") or params.get("index", ""),
        run.data.metrics,
    )
