"""The root of the runs in the tests of this folder."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path, mlflow_tables: Path) -> Path:
    """A root with an empty MLflow database."""
    (tmp_path / "root").mkdir()
    shutil.copy(mlflow_tables, tmp_path / "root" / "mlflow.db")
    return tmp_path / "root"
