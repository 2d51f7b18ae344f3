from pathlib import Path

import pytest

from previts.runlog import run_store

pytestmark = pytest.mark.usefixtures("mlflow_environment")


def test_tracking_uri_is_the_given_one_or_a_file_in_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert run_store.tracking_uri(str(tmp_path / "root")) == f"sqlite:///{tmp_path}/root/mlflow.db"
    assert run_store.tracking_uri("memory://bucket/root") == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert run_store.tracking_uri(str(tmp_path)) == "http://mlflow:5000"
