"""The root of the runs in the tests of this folder."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_runs import Server


@pytest.fixture
def root(tmp_path: Path, mlflow_tables: Path) -> Path:
    """A root with an empty MLflow database."""
    (tmp_path / "root").mkdir()
    shutil.copy(mlflow_tables, tmp_path / "root" / "mlflow.db")
    return tmp_path / "root"


@pytest.fixture
def server(tmp_path: Path, mlflow_tables: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with an empty database."""
    server = Server(tmp_path / "server")
    server.folder.mkdir()
    shutil.copy(mlflow_tables, server.folder / "server.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    yield server
    server.down()
