"""What `python -m pipelines submit` and `schedule` send to the API of Kubeflow Pipelines, here a local HTTP server."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kfp_api import KfpApi

from pipelines import remote
from previts.errors import InputError
from previts.launch import cluster

ROOT = Path(__file__).parents[2]
NEEDED = ["root=gs://bucket/previts", "data=gs://bucket/datasets"]
DIGESTS = {
    f"PREVITS_{name}_DIGEST": f"sha256:{name[0].lower() * 64}" for name in ("DATA", "TRAIN", "LAUNCHER", "MLFLOW")
}
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[KfpApi, str]]:
    monkeypatch.setenv("HOME", str(tmp_path))  # the client stores its contexts there
    served = KfpApi()
    yield served, served.address
    served.close()


def pipelines(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**ENVIRONMENT, "HOME": str(tmp_path), **environment},
        cwd=tmp_path,
    )


def test_a_run_uses_images_with_digests_and_its_own_account(tmp_path: Path, api: tuple[KfpApi, str]):
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


def test_a_schedule_runs_one_at_a_time_and_is_created_once(api: tuple[KfpApi, str], capsys: pytest.CaptureFixture[str]):
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


def test_a_missing_token_is_named_with_the_command_that_writes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(InputError, match=r"/token with the token .* cannot be read .*kubectl -n team create token"):
        remote.connect("http://127.0.0.1:9", "team")


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


def test_the_kfp_commands_of_the_documentation_work(tmp_path: Path, api: tuple[KfpApi, str]):
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
