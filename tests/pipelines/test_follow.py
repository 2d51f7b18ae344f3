"""A run that is followed to its end, and the cause of its failure; the API and Kubernetes are a local HTTP server."""

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp_api import KfpApi, picture

from pipelines import follow, remote

ROOT = Path(__file__).parents[2]
PIPELINE = next(yaml.safe_load_all((ROOT / "pipelines" / "previts_full.yaml").read_text()))
STEPS = {"check-run", "download", "close-run"}
GIVEN = ("crawl=gs://b/c.csv", "root=gs://bucket/previts", "data=gs://bucket/datasets")
DONE = picture("SUCCEEDED", ("check-run", "SUCCEEDED"), ("download", "SUCCEEDED"), ("download", "SUCCEEDED"))


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpApi]:
    monkeypatch.setenv("HOME", str(tmp_path))  # the client stores its contexts there
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.01)
    served = KfpApi()
    yield served
    served.close()


def started(api: KfpApi, *pictures: dict[str, Any]) -> Any:
    """Return a client of the API, on which a run goes as given."""
    api.pictures.append(list(pictures))
    api.runs.append({"run_id": f"r{len(api.runs) + 1}", "shown": 0})
    return remote.connect(api.address, "previts")


def pod(name: str, phase: str, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "previts", "labels": {f"previts/{key}": labels[key] for key in labels}},
        "spec": {"containers": [{"name": "main"}]},
        "status": {"phase": phase},
    }


def test_the_steps_of_the_pipeline_are_its_tasks_with_a_container():
    assert follow.step_names(PIPELINE) == {
        *("check-run", "download", "collect-videos", "fit-saliency", "saliency", "track", "index", "pretrain"),
        *("evaluate", "report", "check-evaluations", "close-run"),
    }


def test_each_change_of_a_step_is_one_line(api: KfpApi, capsys: pytest.CaptureFixture[str]):
    first = picture("RUNNING", ("check-run", "RUNNING"))
    second = picture("RUNNING", ("check-run", "SUCCEEDED"), ("download", "RUNNING"), ("download", "PENDING"))
    client = started(api, picture("PENDING"), first, first, second, DONE)
    assert follow.wait(client, "r1", STEPS, "previts").state == "SUCCEEDED"
    shown = [line.split(" s  ")[1].split() for line in capsys.readouterr().err.splitlines() if " s  " in line]
    assert shown == [
        ["check-run", "RUNNING"],
        ["check-run", "SUCCEEDED"],
        ["download", "RUNNING"],
        ["download", "2", "PENDING"],
        ["download", "SUCCEEDED"],
        ["download", "2", "SUCCEEDED"],
    ]


def test_the_last_steps_may_end_in_the_api_after_their_run(api: KfpApi):
    early = picture("SUCCEEDED", ("check-run", "SUCCEEDED"), ("close-run", "RUNNING"))
    client = started(api, early, picture("SUCCEEDED", ("check-run", "SUCCEEDED"), ("close-run", "SUCCEEDED")))
    run = follow.follow(client, "r1", STEPS)
    assert [task.state for task in follow.tasks_of(run, {"close-run"})] == ["SUCCEEDED"]


def test_a_connection_that_breaks_for_a_moment_is_no_failure(api: KfpApi, capsys: pytest.CaptureFixture[str]):
    client = started(api, DONE)
    api.drops = 9  # more than the client repeats by itself
    assert follow.wait(client, "r1", STEPS, "previts").state == "SUCCEEDED"
    assert capsys.readouterr().err.count("the API does not answer, and is asked again") == 1


def test_a_request_that_is_lost_is_sent_again(api: KfpApi, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.1)
    client = started(api, DONE)
    api.hangs = 9
    begun = time.monotonic()
    assert follow.wait(client, "r1", STEPS, "previts").state == "SUCCEEDED"
    assert time.monotonic() - begun < 10


def test_every_request_has_a_limit(api: KfpApi, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.1)
    client = started(api, DONE)
    api.hangs = 1000
    with pytest.raises(remote.InputError, match="the API of Kubeflow Pipelines does not answer"), remote.answers():
        client.get_run("r1")


def test_the_request_of_a_new_client_has_a_limit(monkeypatch: pytest.MonkeyPatch):
    """Without a namespace of its own, the library asks the API before anything else."""
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(remote.InputError, match="the API of Kubeflow Pipelines does not answer"), remote.answers():
            remote.connect(host, remote.KUBEFLOW)


def test_an_api_that_stays_away_is_an_error(api: KfpApi, monkeypatch: pytest.MonkeyPatch):
    client = started(api, DONE)
    api.drops = 10_000
    monkeypatch.setattr(follow, "OUTAGE_SECONDS", 0.1)
    with pytest.raises(remote.InputError, match="the API of Kubeflow Pipelines does not answer"), remote.answers():
        follow.wait(client, "r1", STEPS, "previts")


def test_a_token_that_is_renewed_during_the_run_is_used(api: KfpApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    token = tmp_path / "token"
    token.write_text("old")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token))
    client = started(api, picture("RUNNING"), DONE)
    follow.follow(client, "r1", STEPS, until=lambda run: run.state == "RUNNING")
    token.write_text("new")
    follow.follow(client, "r1", STEPS)
    assert api.tokens == ["Bearer old", "Bearer new"]


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_every_other_end_than_success_is_an_error(api: KfpApi, state: str):
    client = started(api, picture("RUNNING", ("check-run", "RUNNING")), picture(state, ("check-run", "RUNNING")))
    with pytest.raises(follow.RunFailedError) as raised:
        follow.wait(client, "r1", STEPS, "previts")
    message = str(raised.value)
    assert message.startswith(f"run r1 ended as {state}\n")
    assert "unfinished task: check-run (RUNNING)" in message
    assert "no kubeconfig was found, so the pods are not shown: kubectl -n previts get pods" in message
    assert f"its page: {api.address}/#/runs/details/r1" in message


def test_a_failure_shows_the_task_its_pods_and_their_logs(api: KfpApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KUBECONFIG", api.kubeconfig(tmp_path))
    failed, waiting = pod("x7k2p-1", "Failed", step="download"), pod("x7k2p-2", "Pending")
    failed["status"]["containerStatuses"] = [
        {
            **{"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0},
            "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
        }
    ]
    waiting["metadata"]["annotations"] = {"workflows.argoproj.io/node-name": "x7k2p.root.index-driver"}
    waiting["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient cpu"}
    ]
    api.pods = [
        pod("x7k2p-0", "Succeeded", step="check-run"),
        failed,
        waiting,
        pod("x7k2p-3", "Succeeded", step="close-run"),
    ]
    api.logs = {"x7k2p-1": "previts: 3 of 9 videos failed\nby hand\n", "x7k2p-2": "", "x7k2p-3": "### The run ended\n"}
    last = picture("FAILED", ("check-run", "SUCCEEDED"), ("download", "FAILED"), ("close-run", "SUCCEEDED"))
    last["run_details"]["task_details"][-5]["state_history"] = [
        {"state": "FAILED", "error": {"message": "exit code 2"}}
    ]
    client = started(api, last)
    with pytest.raises(follow.RunFailedError) as raised:
        follow.wait(client, "r1", STEPS, "previts")
    lines = str(raised.value).splitlines()
    assert lines[:10] == [
        "run r1 ended as FAILED",
        "failed task: download: exit code 2",
        "pods of the run: 4, of which 2 have not succeeded",
        "pod x7k2p-1 (download): Failed; main ended with code 137 (OOMKilled)",
        "  | previts: 3 of 9 videos failed",
        "  | by hand",
        "pod x7k2p-2 (index-driver): Pending; Unschedulable: Insufficient cpu",
        "pod x7k2p-3 (close-run): Succeeded",
        "  | ### The run ended",
        f"its page: {api.address}/#/runs/details/r1",
    ]


def test_a_driver_that_fails_is_named(api: KfpApi):
    last = picture("FAILED", ("check-run", "SUCCEEDED"))
    last["run_details"]["task_details"][1]["state"] = "FAILED"
    with pytest.raises(follow.RunFailedError, match="\nfailed task: root-driver\n"):
        follow.wait(started(api, last), "r1", STEPS, "previts")


@pytest.mark.parametrize(
    ("limit", "steps", "message"),
    [
        ("start", (), r"run r1 is PENDING, and no step has started within \d+ s"),
        ("end", (("check-run", "RUNNING"),), r"run r1 has not ended within \d+ s; its state is PENDING"),
    ],
)
def test_a_run_that_does_not_start_or_end_is_an_error(
    api: KfpApi, monkeypatch: pytest.MonkeyPatch, limit: str, steps: tuple[tuple[str, str], ...], message: str
):
    monkeypatch.setattr(follow, "START_SECONDS", 0.2)
    with pytest.raises(follow.RunFailedError, match=message) as raised:
        follow.wait(started(api, picture("PENDING", *steps)), "r1", STEPS, "previts", seconds=0.2 if steps else 60)
    assert ("unfinished task" in str(raised.value)) == bool(steps)


def test_submit_waits_for_the_end(api: KfpApi, capsys: pytest.CaptureFixture[str]):
    api.pictures = [[DONE], [picture("FAILED", ("download", "FAILED"))]]
    remote.submit(GIVEN, host=api.address, production=False, wait=True)
    assert "run r1 ended as SUCCEEDED" in capsys.readouterr().err
    with pytest.raises(follow.RunFailedError, match="failed task: download"):
        remote.submit(GIVEN, host=api.address, production=False, wait=True)
    assert re.search(r"^r2$", capsys.readouterr().out, re.MULTILINE)


def test_wait_may_stand_before_a_parameter():
    assert remote.parameters_first(remote.submit, ["--wait", GIVEN[0]]) == [GIVEN[0], "--wait"]
