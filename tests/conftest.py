import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from control_plane import ControlPlane, Kubelet
    from launching import Place

# Small networks hardly gain by a second thread, and where the cores are shared, two threads wait for each other.
torch.set_num_threads(1)

MLFLOW_VARIABLES = (
    "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT",
)  # fmt: skip

namespaces = itertools.count()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real videos and labelled sets, for measuring; the project runs and is tested without them."""
    folder = Path(os.environ.get("PREVITS_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set PREVITS_REAL_DATA to a folder with crawl/, davis/, voc/, in9/, ...")
    return folder


@pytest.fixture
def mlflow_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MLflow as on a machine that knows no server, and without its patience."""
    for name in MLFLOW_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def mlflow_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database: making its tables takes seconds, which one test alone needs to see."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("tables") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[ControlPlane]":
    """A Kubernetes API server with PyTorchJob installed."""
    import control_plane

    with control_plane.running(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture(scope="session")
def kubelet(plane: "ControlPlane") -> "Iterator[Kubelet]":
    """The one node of that cluster, which has the logs of pods."""
    from control_plane import Kubelet
    from operator_by_hand import open_node

    kubelet = Kubelet(plane.folder / "certificates")
    open_node(plane, kubelet)
    yield kubelet
    kubelet.close()


@pytest.fixture
def place(plane: "ControlPlane", kubelet: "Kubelet", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Place":
    """A namespace of that cluster, in which the user `launcher` may launch."""
    from launching import Place
    from operator_by_hand import open_namespace

    from previts.launch import follow, launcher

    namespace = f"team-{next(namespaces)}"
    open_namespace(plane, namespace)
    monkeypatch.setenv("KUBECONFIG", plane.kubeconfig("launcher", namespace))
    monkeypatch.setattr(launcher, "MARKER_SECONDS", 1.0)
    monkeypatch.setattr(follow, "DRAIN_SECONDS", 2.0)
    return Place(plane, kubelet, namespace, tmp_path / "checkpoint" / "manifest.json")
