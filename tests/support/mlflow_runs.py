"""Access to the runs of an MLflow store for tests of the run log; the fixtures of the store are in `conftest.py`."""

import socket
from pathlib import Path

from mlflow.tracking import MlflowClient

from previts.runlog import run_log, stored_run


def client_of(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root}/mlflow.db")


def runs_of(client: MlflowClient) -> dict[str, list]:
    """Return the runs by role: groups and arms."""
    experiment = client.get_experiment_by_name("previts")
    found = client.search_runs([experiment.experiment_id])
    return {
        "groups": [run for run in found if stored_run.FINGERPRINT_TAG not in run.data.tags],
        "arms": [run for run in found if stored_run.FINGERPRINT_TAG in run.data.tags],
    }


def open_arm(root: Path, fingerprint: str = "f1", **params: object) -> run_log.RunLog:
    return run_log.open_run(
        str(root), group="corpus", name=f"arm {fingerprint}", fingerprint=fingerprint, params=params
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
