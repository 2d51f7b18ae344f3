"""The whole compiled pipeline, with each step as a Job, on small videos; compared with a run on this machine."""

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp.local
import outputs
import pytest
import torch
from bucket import BUCKET, Bucket
from manifests import ROOT
from node import Node
from runbook import Runbook
from steps import Steps

import images
from pipelines.previts_full import previts_full

pytestmark = pytest.mark.cluster

SETTINGS = {
    "rows": ["1/vgg/previts"],
    "seeds": [0],
    "benchmarks": ["davis"],
    "profile": "demo",
    "parts": 1,
    "set": [
        "video.videos_per_shard=16", "saliency.method=rbd", "saliency.every=6", "augment.size=64",
        "objective.queue_size=16", "objective.batch_norm_groups=1", "optim.batch_size=4", "optim.epochs=1",
        "evaluation.crop=64", "evaluation.resize=72",
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Runs:
    """Roots of the run in pods, copied to this machine, and of the run on this machine; the pages of KFP."""

    pods: Path
    here: Path
    pages: Path
    place: str
    steps: Steps


@pytest.fixture(scope="module")
def runs(node: Node, servers: Runbook, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    if lacking := images.lacking("data", "train"):
        pytest.skip(f"images are not built: python tests/cluster/machine/images.py {' '.join(lacking)}")
    folder = tmp_path_factory.mktemp("steps")
    servers.run(until="previts world")
    world = servers.shell.run("echo $W")[1].split()[-1]  # the same videos in the bucket and here
    bucket, place = Bucket(node), f"{BUCKET}/{folder.name}-{os.getpid()}"
    bucket.get(world, folder / "world")
    flags = [word for name, value in SETTINGS.items() for word in (f"--{name}", *_words(value))]
    command = [sys.executable, "-m", "pipelines", "run-local", *flags]
    command += ["--root", str(folder / "here"), "--crawl", str(folder / "world" / "crawls")]
    command += ["--data", str(folder / "world" / "datasets")]
    with open(folder / "here.log", "w") as log:
        one = {**os.environ, "OMP_NUM_THREADS": "1"}  # as in pods with less than one core
        here = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=one, start_new_session=True)
        try:
            inputs = {"crawl": f"{world}/crawls", "data": f"{world}/datasets", "root": f"{place}/run"}
            runner = kfp.local.SubprocessRunner(use_venv=False)
            kfp.local.init(runner=runner, pipeline_root=str(folder / "pages"))
            steps = Steps.of_launcher(node, "local", folder)
            with steps.engine():
                previts_full(**inputs, **SETTINGS)
            bucket.get(f"{place}/run", folder / "pods")
            assert here.wait(900) == 0, (folder / "here.log").read_text()[-3000:]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(here.pid, signal.SIGKILL)
    return Runs(folder / "pods", folder / "here", folder / "pages", f"{place}/run", steps)


def _words(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def test_every_step_ran_as_a_job_and_left_its_page(runs: Runs):
    made = {path.parent.name for path in runs.pages.rglob("executor_output.json")}
    assert made == {name.removeprefix("exec-") for name in runs.steps.platform}
    pages = {path.parent.name for path in runs.pages.rglob("summary") if path.stat().st_size}
    assert pages == made - {"check-run", "collect-videos", "check-evaluations"}
    (page,) = runs.pages.rglob("page")
    assert "<html" in page.read_text()


def test_the_run_in_pods_has_the_counts_and_numbers_of_the_run_on_this_machine(runs: Runs):
    pods, here = str(runs.pods), str(runs.here)
    assert outputs.counts(pods, SETTINGS["rows"]) == outputs.counts(here, SETTINGS["rows"])
    assert outputs.differences(outputs.report(pods), outputs.report(here)) == []


def test_the_weights_equal_those_of_the_run_on_this_machine(runs: Runs):
    (pods,), (here,) = (list(root.glob("checkpoints/*/encoder.pt")) for root in (runs.pods, runs.here))
    found, expected = (torch.load(file, weights_only=True) for file in (pods, here))
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def test_mlflow_has_the_numbers_of_the_run(node: Node, runs: Runs):
    def tags(run: dict[str, Any]) -> dict[str, str]:
        return {item["key"]: item["value"] for item in run["data"].get("tags", [])}

    found = [run for run in Bucket(node).mlflow_runs() if tags(run).get("previts.root") == runs.place]
    assert [run["info"]["status"] for run in found] == ["FINISHED"]
    metrics = {item["key"]: item["value"] for item in found[0]["data"]["metrics"]}
    (line,) = [line for line in outputs.report(str(runs.pods)) if line["metric"] == "davis/j_mean"]
    assert metrics["davis/j_mean"] == pytest.approx(float(line["value"]))
    assert metrics["loss"] > 0
    assert not list(runs.pods.glob("runlog/*.jsonl")), "MLflow did not accept some entries"
