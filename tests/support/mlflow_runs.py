"""Access to the runs of an MLflow store for tests of the run log; the fixtures of the store are in `conftest.py`."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from mlflow.tracking import MlflowClient

from previts.runlog import run_log, stored_run


def client_of(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root}/mlflow.db")


def runs_of(client: MlflowClient) -> dict[str, list]:
    """Return the runs by role: groups and trials."""
    experiment = client.get_experiment_by_name("previts")
    found = client.search_runs([experiment.experiment_id])
    return {
        "groups": [run for run in found if stored_run.FINGERPRINT_TAG not in run.data.tags],
        "trials": [run for run in found if stored_run.FINGERPRINT_TAG in run.data.tags],
    }


def open_trial(
    root: Path, fingerprint: str = "f1", tags: dict[str, str] | None = None, corpus: str = "", **params: object
) -> run_log.RunLog:
    return run_log.open_run(
        str(root),
        group="corpus",
        name=f"trial {fingerprint}",
        fingerprint=fingerprint,
        params=params,
        tags=tags,
        corpus=corpus,
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Server:
    """A real MLflow server on loopback that can be stopped and started again."""

    def __init__(self, folder: Path, database: str = "") -> None:
        self.folder, self.port = folder, free_port()
        self.database = database or f"sqlite:///{folder}/server.db"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        self.folder.mkdir(exist_ok=True)
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", self.database,
            "--artifacts-destination", f"{self.folder}/files",
        ]  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=self.folder, start_new_session=True
            )
        for _ in range(600):
            try:
                if requests.get(f"{self.uri}/health", timeout=1).ok:
                    return
            except requests.RequestException:
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
            time.sleep(0.1)
        raise AssertionError("the server did not start")

    def down(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def postgres_programs() -> str:
    """Return the folder of PostgreSQL's programs, or "" if they are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    path = str(found[-1]) if found else shutil.which("initdb")
    return os.path.dirname(os.path.realpath(path)) if path else ""


@contextmanager
def postgres() -> Iterator[str]:
    """Run a PostgreSQL server on loopback, with a user that is not root; yield the URI of an empty database."""
    programs, port = postgres_programs(), free_port()
    user = {"user": "nobody", "group": "nogroup"} if os.getuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="previts-postgres-", dir="/tmp"))
    if user:
        shutil.chown(folder, "nobody", "nogroup")
    data, quiet = folder / "data", {"cwd": "/", "stdout": subprocess.DEVNULL, **user}
    subprocess.run([f"{programs}/initdb", "-D", data, "-A", "trust", "-U", "mlflow"], check=True, **quiet)
    options = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
    log = open(folder / "log", "w")  # noqa: SIM115 (closed below)
    server = subprocess.Popen([f"{programs}/postgres", "-D", data, *options], stderr=log, **quiet)
    try:
        ready = [f"{programs}/pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        for _ in range(300):
            if subprocess.run(ready, stdout=subprocess.DEVNULL, check=False).returncode == 0:
                break
            time.sleep(0.1)
        yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        log.close()
        shutil.rmtree(folder)
