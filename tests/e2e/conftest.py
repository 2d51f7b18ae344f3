"""The backend of the end-to-end test, and the runs that several tests compare with."""

import os

import backend as backends
import pytest
import scenarios


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> backends.Backend:
    """The backend that KF_PIPELINES_ENDPOINT names."""
    if not os.environ.get(backends.ENDPOINT):
        pytest.skip(f"{backends.ENDPOINT} is not set: it names the Kubeflow Pipelines to test with (CONTRIBUTING.md)")
    if not os.environ.get("PREVITS_E2E_ROOT"):
        pytest.fail("PREVITS_E2E_ROOT is not set: a folder of a bucket that this machine and all pods can write to")
    return backends.open_backend(os.environ, tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def expected(backend: backends.Backend, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The root of a run on this machine, with equal parameters and an equal world."""
    folder = os.environ.get("PREVITS_E2E_LOCAL") or str(tmp_path_factory.mktemp("local"))
    return backends.run_here(folder, backend.parameters)


@pytest.fixture(scope="session")
def first(backend: backends.Backend, expected: str) -> tuple[str, str]:
    """The id and the root of a run of the whole pipeline."""
    return scenarios.run_once(backend, "first", expected, {})
