"""The whole pipeline on a real Kubeflow Pipelines, see CONTRIBUTING.md; `make e2e` runs it."""

import os
from collections import Counter

import metadata
import pytest
import scenarios
from backend import Backend

pytestmark = pytest.mark.e2e


def test_a_run_has_the_results_of_a_run_on_one_machine(first: tuple[str, str]):
    assert first


def test_each_step_registers_its_artifacts(backend: Backend, first: tuple[str, str]):
    address = os.environ.get("PREVITS_E2E_METADATA")
    if not address:
        pytest.skip("PREVITS_E2E_METADATA is not set: host:port of the service metadata-grpc-service")
    found = metadata.artifacts(address, first[0])
    states = backend.expected_states(backend.parameters["rows"])
    wanted = Counter[tuple[str, str]]()
    for step, outputs in backend.artifacts().items():
        wanted.update(dict.fromkeys(outputs.items(), len(states[step])))
    assert Counter((artifact.name, artifact.type) for artifact in found) == wanted
    faults = [artifact.fault(os.environ.get("PREVITS_E2E_ARTIFACTS", "")) for artifact in found]
    assert not any(faults), "\n".join(filter(None, faults))


def test_a_run_with_pytorchjobs_has_the_same_results(backend: Backend, expected: str):
    scenarios.run_job(backend, expected)


def test_a_scheduled_run_with_nothing_new_makes_nothing_again(backend: Backend, first: tuple[str, str]):
    scenarios.run_on_schedule(backend, first[1])


def test_a_terminated_run_is_resumed(backend: Backend, first: tuple[str, str]):
    scenarios.stop_and_repeat(backend, first[1])
