"""The run store: finds, creates and deletes in MLflow what belongs to a root.

For section 4 of PreViTS. Callers catch the errors that are raised while MLflow does not answer, see `outages`.
"""

import fcntl
import logging
import os
import pathlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from previts.runlog.description import MADE_BY
from previts.runlog.entries import Identity
from previts.runlog.stored_run import FINGERPRINT_TAG, GROUP_TAG, NAME_TAG, NOTE_TAG, PARENT_TAG, StoredRun, cut
from previts.storage import files, folders

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

EXPERIMENT = "previts"  # name of the MLflow experiment
ROOT_TAG = "previts.root"
PARAMS_AT_ONCE, PARAM_LENGTH = 100, 6000  # limits of one MLflow request: number of parameters, length of one
# In this view of an experiment, MLflow shows the runs, their charts and their models.
VIEW_TAG, VIEW = "mlflow.experimentKind", "custom_model_development"
ABOUT = (
    "Trials of PreViTS. A parent run is a corpus; its children are rows of the paper's tables, one for each seed. "
    "Group by the tag `row` to see means over seeds. The numbers are in Model training, not in GenAI (top left)."
)

logger = logging.getLogger(__name__)


def limit_waiting() -> None:
    """Limit how long MLflow's client waits; its default is 7 retries with a timeout of 2 minutes each."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


def tracking_uri(root: str) -> str:
    """Return the MLflow tracking URI for the runs of a root."""
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        return given
    folder = files.local_path(root)
    path = os.path.join(os.path.abspath(folder) if folder else os.getcwd(), "mlflow.db")
    quoted = path.replace("%", "%25").replace("?", "%3F")  # all that a URI of a database must quote
    # With a driver in the URI, MLflow does not create the folder with the quoted name.
    return f"sqlite:///{path}" if quoted == path else f"sqlite+pysqlite:///{quoted}"


def open_stored(root: str, identity: Identity, *, working: bool) -> StoredRun:
    """Return the run of an identity, created if it does not exist; with `working`, mark it as running."""
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
            trial = _find(client, experiment_id, tags)
            if trial is None:  # trained elsewhere: the run contains only these metrics
                trial = _create(client, experiment_id, tags, {}, identity.name)
                client.set_terminated(trial.info.run_id)
            return StoredRun(client, trial.info.run_id)
        parent_id = adopted
        if not adopted:
            # The trials have the group's tag too; only the parent has the role.
            key = {GROUP_TAG: identity.group, "previts.role": "group"}
            title = identity.title or identity.group
            about = {NAME_TAG: title, **{name: identity.tags[name] for name in MADE_BY if name in identity.tags}}
            parent = _find(client, experiment_id, key) or _create(client, experiment_id, key, about, title)
            parent_id = parent.info.run_id
        if identity.kind == "group":
            return StoredRun(client, parent_id)
        key = {FINGERPRINT_TAG: identity.fingerprint}
        about = {
            PARENT_TAG: parent_id,
            GROUP_TAG: identity.group,
            ROOT_TAG: files.absolute(root),
            "previts.version": folders.code_version(),
            NAME_TAG: identity.name,
            **identity.tags,
        }
        trial = _find(client, experiment_id, key) or _create(client, experiment_id, key, about, identity.name)
        _describe(client, trial, identity, about, running=parent_id if working and not adopted else "", working=working)
        return StoredRun(client, trial.info.run_id)


def find_trial(root: str, fingerprint: str) -> StoredRun | None:
    """Return the run of a trial, or None if it does not exist.

    Raises:
        OSError, MlflowException: If MLflow does not answer; see `outages`.
    """
    from mlflow.tracking import MlflowClient

    uri, adopted = tracking_uri(root), os.environ.get("MLFLOW_RUN_ID", "")
    if database_file(uri) and not os.path.exists(database_file(uri)):
        return None
    client = MlflowClient(uri)
    if adopted:
        experiment_id = client.get_run(adopted).info.experiment_id
    elif found := client.get_experiment_by_name(EXPERIMENT):
        experiment_id = found.experiment_id
    else:
        return None
    trial = _find(client, experiment_id, {FINGERPRINT_TAG: fingerprint})
    return StoredRun(client, trial.info.run_id) if trial else None


def running_trials(root: str, experiment: str) -> dict[str, StoredRun]:
    """Return the trials of a root that have the status running, by their fingerprints."""
    from mlflow.tracking import MlflowClient

    uri = tracking_uri(root)
    if database_file(uri) and not os.path.exists(database_file(uri)):
        return {}
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    trials: list[Run] = []
    page: str | None = ""
    while found and page is not None:
        # The tag is compared here: a query cannot contain every root, such as one with quotes.
        several = client.search_runs([found.experiment_id], "attributes.status = 'RUNNING'", page_token=page or None)
        trials += [run for run in several if run.data.tags.get(ROOT_TAG) == files.absolute(root)]
        page = several.token or None
    return {trial.data.tags[FINGERPRINT_TAG]: StoredRun(client, trial.info.run_id) for trial in trials}


def delete_artifact(root: str, tag: str, value: str, name: str) -> bool:
    """Delete an artifact, a file or a folder, of the runs with a tag; return whether there was one.

    Raises:
        OSError, MlflowException: If MLflow does not answer; see `outages`.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.tracking import MlflowClient

    uri = tracking_uri(root)
    if database_file(uri) and not os.path.exists(database_file(uri)):
        return False
    client, deleted = MlflowClient(uri), False
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    page: str | None = ""
    while experiments and page is not None:
        # The tag is compared here: a query cannot contain every value, such as one with quotes.
        several = client.search_runs(experiments, f"tags.`{tag}` LIKE '%'", page_token=page or None)
        for run in several:
            if run.data.tags.get(tag) == value and name in {
                item.path for item in client.list_artifacts(run.info.run_id)
            }:
                repository: Any = get_artifact_repository(run.info.artifact_uri, tracking_uri=uri)
                repository.delete_artifacts(name)
                deleted = True
        page = several.token or None
    return deleted


def _experiment(client: "MlflowClient", identity: Identity, uri: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(identity.experiment)
    if found is None:
        try:
            tags = {VIEW_TAG: VIEW, NOTE_TAG: ABOUT}
            return str(client.create_experiment(identity.experiment, artifact_location=_artifacts(uri), tags=tags))
        except MlflowException as error:  # another process may have created it
            found = client.get_experiment_by_name(identity.experiment)
            if found is None:
                raise error
    if VIEW_TAG not in found.tags:
        client.set_experiment_tag(found.experiment_id, VIEW_TAG, VIEW)
    return str(found.experiment_id)


def _artifacts(uri: str) -> str | None:
    """Return the artifact folder next to a database on the local disk; a server has its own."""
    path = database_file(uri)
    return pathlib.Path(path).with_name("mlartifacts").as_uri() if path else None


def database_file(uri: str) -> str:
    """Return the path of a database on the local disk, or "" for a server."""
    if not uri.startswith("sqlite"):
        return ""
    from sqlalchemy import make_url

    path = make_url(uri).database
    return os.path.abspath(path) if path and path != ":memory:" else ""


def _find(client: "MlflowClient", experiment_id: str, tags: Mapping[str, str]) -> "Run | None":
    """Return the earliest run with these tags, or None."""
    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = client.search_runs([experiment_id], query)
    return min(found, key=lambda run: (run.info.start_time, run.info.run_id), default=None)


def _create(
    client: "MlflowClient", experiment_id: str, key: Mapping[str, str], about: Mapping[str, str], name: str
) -> "Run":
    """Create a run; if two processes create it at once on a server, both use the earlier one."""
    tags = {name: cut(value) for name, value in {**key, **about}.items()}
    created = client.create_run(experiment_id, tags=tags, run_name=name or None)
    first = _find(client, experiment_id, key) or created
    if first.info.run_id != created.info.run_id:
        client.delete_run(created.info.run_id)
    return first


def _describe(
    client: "MlflowClient", trial: "Run", identity: Identity, about: Mapping[str, str], *, running: str, working: bool
) -> None:
    """Add missing tags and parameters; with `working`, mark the run and its parent `running` as running.

    A run is incomplete after a killed start, or if a benchmark created it. With `working`, tags that say where it
    works (`identity.tags`) replace those of an earlier start.
    """
    from mlflow.entities import Param, RunTag

    known = trial.data.tags
    changed = [
        RunTag(key, cut(value))
        for key, value in about.items()
        if key not in known or (working and key in identity.tags and known[key] != cut(value))
    ]
    for start in range(0, len(changed), PARAMS_AT_ONCE):
        client.log_batch(trial.info.run_id, tags=changed[start : start + PARAMS_AT_ONCE])
    missing = [Param(key, value) for key, value in identity.params.items() if key not in trial.data.params]
    for start in range(0, len(missing), PARAMS_AT_ONCE):
        client.log_batch(trial.info.run_id, params=missing[start : start + PARAMS_AT_ONCE])
    for run_id in [trial.info.run_id, running] if working else []:
        if run_id:
            client.update_run(run_id, status="RUNNING")


@contextmanager
def _locked(uri: str) -> Iterator[None]:
    """Allow one process at a time to create tables and find runs in a database on the local disk."""
    path = database_file(uri)
    if not path:
        yield
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def outages() -> tuple[type[BaseException], ...]:
    """Return the error types that MLflow raises if its store does not answer or does not accept an entry."""
    from mlflow.exceptions import MlflowException

    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:  # mlflow-skinny: it can only use a server
        return MlflowException, OSError
    return MlflowException, OSError, SQLAlchemyError
