"""What `python -m pipelines submit` and `schedule` send to the API of Kubeflow Pipelines, here a local HTTP server."""

import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import remote
from previts.errors import InputError
from previts.launch import cluster

ROOT = Path(__file__).parents[2]
NEEDED = ["root=gs://bucket/previts", "data=gs://bucket/datasets"]
DIGESTS = {
    f"PREVITS_{name}_DIGEST": f"sha256:{name[0].lower() * 64}" for name in ("DATA", "TRAIN", "LAUNCHER", "MLFLOW")
}
NOW = "2026-01-01T00:00:00Z"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}


def refused(body: dict[str, Any]) -> bool:
    """Return whether the API would refuse the parameters: each must have its declared type, none may be missing."""
    declared = body["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
    given = body["runtime_config"]["parameters"]
    types = {"STRING": str, "NUMBER_INTEGER": int, "LIST": list, "STRUCT": dict}
    fits = all(type(given[name]) is types[spec["parameterType"]] for name, spec in declared.items() if name in given)
    needed = {name for name, spec in declared.items() if not spec.get("isOptional")}
    return not (fits and needed <= set(given) <= set(declared))


class Api:
    """Answers the requests for experiments, runs and schedules that the client sends."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.schedules: list[dict[str, Any]] = []

    def answer(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        match method, path.split("?")[0].rsplit("/", 1)[-1]:
            case "GET", "healthz":
                return {"multi_user": True}
            case "GET", "experiments":
                return {"experiments": [{"experiment_id": "e1", "display_name": "previts", "namespace": "previts"}]}
            case "GET", "recurringruns":
                return {"recurringRuns": self.schedules}
            case "GET", "r1":
                return self.runs[-1]
            case "GET", "s1":
                return self.schedules[-1]
            case "POST", ("runs" | "recurringruns") if refused(body):
                return None
            case "POST", "runs":
                self.runs.append({**body, "run_id": "r1", "created_at": NOW})
                return self.runs[-1]
            case "POST", "recurringruns":
                self.schedules.append({**body, "recurring_run_id": "s1", "created_at": NOW})
                return self.schedules[-1]
        return None


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Api, str]]:
    monkeypatch.setenv("HOME", str(tmp_path))  # the client stores its contexts there
    served = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            answer = served.answer(self.command, self.path, json.loads(self.rfile.read(length) or "{}"))
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer or {}).encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield served, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def pipelines(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**ENVIRONMENT, "HOME": str(tmp_path), **environment},
        cwd=tmp_path,
    )


def test_a_run_uses_images_with_digests_and_its_own_account(tmp_path: Path, api: tuple[Api, str]):
    served, host = api
    given = [
        "crawl=gs://bucket/crawl.csv",
        *NEEDED,
        "parts=32",
        'rows=["6a"]',
        "seeds=[0, 7]",
        'gpu_nodes={"pool": "l4"}',
    ]
    done = pipelines(tmp_path, "submit", *given, "--host", host, PREVITS_REGISTRY="registry/previts", **DIGESTS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("r1")
    (run,) = served.runs
    assert run["service_account"] == "previts-steps"
    assert run["experiment_id"] == "e1"
    parameters = run["runtime_config"]["parameters"]
    assert parameters["parts"] == 32
    assert parameters["rows"] == ["6a"]
    assert parameters["seeds"] == [0, 7]
    assert parameters["gpu_nodes"] == {"pool": "l4"}
    pipeline = run["pipeline_spec"]["pipeline_spec"]
    images = {item["container"]["image"] for item in pipeline["deploymentSpec"]["executors"].values()}
    assert images == {f"registry/previts/previts-{n}@sha256:{n[0] * 64}" for n in ("data", "train")}
    assert run["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]


def test_a_schedule_runs_one_at_a_time_and_is_created_once(api: tuple[Api, str], capsys: pytest.CaptureFixture[str]):
    served, host = api
    given = ("crawl=gs://bucket/crawls", *NEEDED)
    remote.schedule(given, cron="0 0 3 * * 1", host=host, production=False)
    assert capsys.readouterr().out.strip().endswith("s1")
    (made,) = served.schedules
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 1"
    assert int(made["max_concurrency"]) == 1
    assert made["no_catchup"]
    assert made["mode"] == "ENABLE"
    assert made["runtime_config"]["parameters"]["crawl"] == "gs://bucket/crawls"
    with pytest.raises(InputError, match="kfp recurring-run delete s1"):
        remote.schedule(given, host=host, production=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["crawl=gs://b/c.csv", *NEEDED], "have a tag and no digest"),
        (["crawl=gs://b/c.csv"], "required parameters are missing: add data=..., root=..."),
        (["crawl=gs://b/c.csv", *NEEDED, "prts=3"], "there is no parameter 'prts' (did you mean 'parts'?)"),
        (["crawl=gs://b/c.csv", *NEEDED, "parts=many"], "parts must be a whole number, got 'many'"),
        (["crawl=gs://b/c.csv", *NEEDED, "rows=6a"], "rows must be a JSON list"),
        (["crawl=gs://b/c.csv", *NEEDED, "rows=[6]"], "rows must be a JSON list of texts, got '[6]'"),
        (["crawl=gs://b/c.csv", *NEEDED, 'seeds=["0"]'], "seeds must be a JSON list of whole numbers, got"),
        (["crawl=gs://b/c.csv", *NEEDED, "seeds=[0.5]"], "seeds must be a JSON list of whole numbers, got"),
        (["crawl=gs://b/c.csv", *NEEDED, "seeds=[true]"], "seeds must be a JSON list of whole numbers, got"),
        (["crawl=gs://b/c.csv", *NEEDED, "seeds=[1, 1]"], "seeds must be different whole numbers"),
        (["crawl=gs://b/c.csv", *NEEDED, 'gpu_nodes={"a": 1}'], "gpu_nodes must be a JSON object of texts"),
        (["crawl=gs://b/c.csv", *NEEDED, 'rows=["7"]'], "there is no row '7'"),
        (
            ["crawl=gs://b/c.csv", *NEEDED, "seeds=[-1]"],
            "(here lists are JSON: 'seeds=[0, 1, 2]' instead of --seeds 0 1 2)",
        ),
        (["crawl=gs://b/c.csv", *NEEDED, "seeds=[2147483648]"], "numbers from 0 to 2**31 - 1"),
        (["crawl=gs://b/c.csv", *NEEDED, "evaluation_processes=0"], "processes must be 1 or more, got 0"),
        (["crawl=gs://b/c.csv", *NEEDED, 'sizes={"cpu": "0"}'], "sizes: cpu must be cores such as 2 or 900m"),
        (["crawl=gs://b/c.csv", *NEEDED, "parts=2", "parts=3"], "parts is given twice"),
        (["crawl=videos", *NEEDED], "crawl must be a URI that every pod of the cluster can read"),
    ],
)
def test_an_invalid_run_is_refused_before_any_request(given: list[str], message: str):
    with pytest.raises(InputError, match=re.escape(message)):
        remote.submit(tuple(given), host="http://127.0.0.1:9")


def test_an_api_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    with pytest.raises(InputError, match=r"Kubeflow Pipelines does not answer .*; check --host"):
        remote.submit(("crawl=gs://b/c.csv", *NEEDED), host="http://127.0.0.1:9", production=False)


def test_parameters_may_stand_before_between_and_after_options(monkeypatch: pytest.MonkeyPatch):
    host, given = ["--host", "http://a=b"], ["crawl=gs://b/c.csv", "root=gs://b/r"]
    ordered = [*given, *host, "--no-production"]
    for arguments in ([*host, "--no-production", *given], [given[0], *host, given[1], "--no-production"], ordered):
        assert remote.parameters_first(remote.submit, arguments) == ordered
    with pytest.raises(InputError, match="--set is a parameter of the pipeline: write set=VALUE, without --"):
        remote.parameters_first(remote.submit, ["--set", "6b:optim.lr=1", *given])


def test_a_production_compile_refuses_tags():
    with pytest.raises(InputError, match=r"previts-data:0\.2\.0"):
        remote.check_images()


def test_with_the_pytorchjob_launcher_the_pretraining_step_only_waits(tmp_path: Path):
    done = pipelines(tmp_path, "compile", "--folder", str(tmp_path), PREVITS_LAUNCHER="pytorchjob")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "previts_full.yaml").read_text()
    (waiting,) = [part for part in text.split("\n    exec-") if part.startswith("pretrain:") and "container:" in part]
    assert "image: previts/previts-launcher:0.2.0" in waiting
    assert "value: previts/previts-train:0.2.0" in waiting
    assert "accelerator" not in waiting
    assert "cpuLimit: 1.0" in waiting
    settings = list(yaml.safe_load_all(text))[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    # The job ends if this step is preempted, so sixteen GPUs would stop because of one core.
    keys = {name: [item["key"] for item in step.get("tolerations", [])] for name, step in settings.items()}
    assert "cloud.google.com/gke-spot" not in keys["exec-pretrain"]
    assert "cloud.google.com/gke-spot" in keys["exec-evaluate"]


def test_only_the_pretraining_step_can_start_jobs():
    """In the committed pipeline too, because `launcher` is a parameter. KFP has one account for all steps of a run."""
    settings = list(yaml.safe_load_all((ROOT / "pipelines" / "previts_full.yaml").read_text()))[1]
    steps = settings["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    mounted = {name: [item["secretName"] for item in step.get("secretAsVolume", [])] for name, step in steps.items()}
    assert [name for name in mounted if mounted[name]] == ["exec-pretrain"]
    (secret,) = steps["exec-pretrain"]["secretAsVolume"]
    assert (secret["secretName"], secret["mountPath"]) == ("previts-launcher", cluster.ACCOUNTS[0])
    assert secret["optional"]


def test_the_kfp_commands_of_the_documentation_work(tmp_path: Path, api: tuple[Api, str]):
    served, host = api
    text = (ROOT / "docs" / "cluster.md").read_text().replace("\\\n", " ")
    lines = [shlex.split(line) for line in re.findall(r"^\.venv/bin/kfp (.*create .*)$", text, re.MULTILINE)]
    assert [line[:2] for line in lines] == [["run", "create"], ["recurring-run", "create"]]
    for line in lines:
        command = [
            sys.executable,
            "-c",
            "from kfp.cli.__main__ import main; main()",
            "--endpoint",
            host,
            "--namespace",
            "previts",
            *line,
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, env={**ENVIRONMENT, "HOME": str(tmp_path)}
        )
        assert done.returncode == 0, done.stderr
    assert served.runs[0]["runtime_config"]["parameters"]["crawl"] == "gs://bucket/crawl.csv"
    (made,) = served.schedules
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert int(made["max_concurrency"]) == 1
    assert made["no_catchup"]
    assert made["mode"] == "ENABLE"
    assert served.runs[0]["runtime_config"]["parameters"]["parts"] == 32
