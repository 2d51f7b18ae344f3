"""Oracles: psutil's own numbers, and the metrics in MLflow, read with its own client."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from mlflow_runs import client_of, free_port, open_trial, runs_of

from previts.runlog import system_metrics
from previts.runlog.system_metrics import LoadSampler, sampled

pytestmark = pytest.mark.usefixtures("mlflow_environment")

SHARE = "system/system_memory_usage_percentage"


def wait_for(found: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not found():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_metrics, "SECONDS", 0.05)


def test_the_means_of_the_samples_are_those_of_the_machine():
    sampler = LoadSampler("", 0.05)
    taken: dict[str, float] = {}
    wait_for(lambda: taken.update(sampler.take()) or taken)
    memory = psutil.virtual_memory()
    assert abs(taken[SHARE] - 100 * memory.used / memory.total) < 20
    assert 0 <= taken["system/cpu_utilization_percentage"] <= 100
    sampler.stop()
    time.sleep(0.2)
    sampler.take()
    time.sleep(0.2)
    assert sampler.take() == {}


def test_the_load_is_sent_with_the_lines_of_the_training_and_only_while_it_runs(root: Path):
    run = open_trial(root)
    with sampled(run, str(root), "f1"):
        assert run.sampler is not None
        time.sleep(0.5)
        run.metrics({"loss": 2.0}, step=7)
    time.sleep(0.2)
    run.metrics({"loss": 1.0}, step=8)
    run.finish()
    client = client_of(root)
    (trial,) = runs_of(client)["trials"]
    assert [point.step for point in client.get_metric_history(trial.info.run_id, SHARE)] == [7]
    assert [point.step for point in client.get_metric_history(trial.info.run_id, "loss")] == [7, 8]


def test_the_load_in_an_outage_is_kept_with_the_other_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    run = open_trial(tmp_path)
    with sampled(run, str(tmp_path), "f1"):
        time.sleep(0.5)
        run.metrics({"loss": 2.0}, step=7)
    (spool,) = (tmp_path / "runlog").glob("*.jsonl")
    entry = json.loads(spool.read_text().splitlines()[-1])
    assert entry["values"]["loss"] == 2.0
    assert SHARE in entry["values"]
    run.close()


def node(monkeypatch: pytest.MonkeyPatch, local_rank: int) -> None:
    """Set what torchrun sets on the second of two machines with two processes each."""
    values = {"WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 1, "LOCAL_RANK": local_rank}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(system_metrics, "SEND_SECONDS", 0.1)


def test_another_node_sends_its_load_to_the_run_of_the_main_process(root: Path, monkeypatch: pytest.MonkeyPatch):
    open_trial(root)
    client = client_of(root)
    (trial,) = runs_of(client)["trials"]
    node(monkeypatch, local_rank=0)

    def names() -> set[str]:
        return {name for name in client.get_run(trial.info.run_id).data.metrics if name.startswith("system/")}

    with sampled(None, str(root), "f1"):
        wait_for(names)
    assert "system/node_1/cpu_utilization_percentage" in names()
    assert all(name.startswith("system/node_1/") for name in names())


@pytest.mark.parametrize("place", ["nowhere", "outage"])
def test_a_node_without_a_run_or_a_server_trains_on_and_ends_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    if place == "outage":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    node(monkeypatch, local_rank=0)
    with sampled(None, str(root), "f1"):
        time.sleep(0.5)
        started = time.monotonic()
    assert time.monotonic() - started < 0.5


def test_the_other_processes_and_a_user_who_switched_it_off_sample_nothing(root: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise AssertionError("it samples")

    run = open_trial(root)
    monkeypatch.setattr(LoadSampler, "__init__", refuse)
    with sampled(None, str(root), "f1"):  # the only process of a training without a run log
        pass
    with monkeypatch.context() as second:
        node(second, local_rank=1)
        with sampled(None, str(root), "f1"):
            pass
    monkeypatch.setenv(system_metrics.SWITCH, "false")
    with sampled(run, str(root), "f1"):
        pass
    run.finish()
