"""Fixtures of several test folders."""

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import pytest

# One worker for each verb. Each further one is a process that imports for seconds, and another test uses the core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

if TYPE_CHECKING:
    from control_plane import ControlPlane, Kubelet
    from launching import Place
    from odd_videos import OddVideo
    from scripted_api import ScriptedApi

MLFLOW_VARIABLES = (
    "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT",
)  # fmt: skip

namespaces = itertools.count()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Use one thread, whatever an earlier test set: a second one changes the order of sums, and is hardly faster."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the files with slow tests first: if one of them came last, the other cores would be idle."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real videos and datasets, which some measurements need. No other test needs them."""
    folder = Path(os.environ.get("PREVITS_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}: set PREVITS_REAL_DATA to a folder with crawl/, davis/, voc/, in9/, ...")
    return folder


@pytest.fixture(scope="session")
def odd_videos(tmp_path_factory: pytest.TempPathFactory) -> "dict[str, OddVideo]":
    """The table of odd source videos, by name; every reader of source videos is tested with all of it."""
    from odd_videos import write_all

    return write_all(tmp_path_factory.mktemp("odd"))


@pytest.fixture
def mlflow_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment of a machine without an MLflow server. MLflow does not repeat failed requests."""
    for name in MLFLOW_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def mlflow_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database that tests copy, because creating its tables takes seconds."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("tables") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[ControlPlane]":
    """A real Kubernetes API server that has the PyTorchJob resource."""
    import control_plane

    with control_plane.running(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture(scope="session")
def kubelet(plane: "ControlPlane") -> "Iterator[Kubelet]":
    """The only node of that cluster, which serves the logs of pods."""
    from control_plane import Kubelet
    from operator_by_hand import open_node

    kubelet = Kubelet(plane.folder / "certificates")
    open_node(plane, kubelet)
    yield kubelet
    kubelet.close()


@pytest.fixture
def place(plane: "ControlPlane", kubelet: "Kubelet", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Place":
    """A new namespace of that cluster, in which the user `launcher` has the rights of a launcher."""
    from launching import Place
    from operator_by_hand import open_namespace

    from previts.launch import follow, launcher

    namespace = f"team-{next(namespaces)}"
    open_namespace(plane, namespace)
    monkeypatch.setenv("KUBECONFIG", plane.kubeconfig("launcher", namespace))
    monkeypatch.setattr(launcher, "MARKER_SECONDS", 1.0)
    monkeypatch.setattr(follow, "DRAIN_SECONDS", 2.0)
    return Place(plane, kubelet, namespace, tmp_path / "checkpoint" / "manifest.json")


@pytest.fixture
def api() -> "Iterator[ScriptedApi]":
    """An HTTP server that answers as the test says."""
    from scripted_api import ScriptedApi

    api = ScriptedApi()
    yield api
    api.close()
