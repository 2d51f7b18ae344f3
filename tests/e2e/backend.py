"""A real Kubeflow Pipelines backend, with the pipeline of the repository uploaded to it."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import outputs
import yaml

from components import _images
from pipelines import follow, remote
from pipelines.previts_full import previts_full
from previts import stages
from previts.runs import trials
from previts.storage import files

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pipelines" / "previts_full.yaml"
ENDPOINT = "KF_PIPELINES_ENDPOINT"
RUN_SECONDS = 4 * 3600.0  # of one run; 66 pods took 23 minutes on two cores
ROWS = ["1/vgg/moco", "1/vgg/sampling", "1/vgg/previts"]
# A job for nodes without GPUs, in the namespace of k8s/overlays/local. Its small request fits next to its launcher.
JOB = [
    "accelerator=",
    "shm=1Gi",
    "service_account=previts-training",
    'secrets=["bucket"]',
    'resources={"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "3Gi"}}',
]


@dataclass(frozen=True)
class Backend:
    """A client of the API, and what all runs of the test share.

    Attributes:
        client: Client of the API.
        root: Folder of the bucket for the worlds and roots of this test.
        namespace: Namespace of the runs.
        account: Service account of their pods.
        parameters: Parameters of all runs, without crawl, root and data.
        job: Settings of a PyTorchJob.
        stamp: Name of this execution of the test, which its roots contain.
        pipeline: Document of the uploaded pipeline.
        ids: Ids of its experiment, pipeline and version.
    """

    client: Any
    root: str
    namespace: str
    account: str
    parameters: dict[str, Any]
    job: list[str]
    stamp: str
    pipeline: dict[str, Any] = field(repr=False)
    ids: tuple[str, str, str]

    @property
    def steps(self) -> set[str]:
        return follow.step_names(self.pipeline)

    def place(self, name: str) -> str:
        """Return a root of results that no earlier execution of the test has used."""
        return files.join(self.root, self.stamp, name)

    def inputs(self, root: str) -> dict[str, Any]:
        """Return all parameters of a run. The world is made once; later executions of the test find it."""
        # On Google, the step `download` may read below folders called `crawls` only.
        world = stages.world(files.join(self.root, "crawls"))
        given = {"crawl": files.join(world, "crawls"), "data": files.join(world, "datasets"), "root": root}
        return {**self.parameters, **given}

    def start(self, name: str, parameters: Mapping[str, Any]) -> str:
        """Create a run of the uploaded pipeline and return its id."""
        experiment, pipeline, version = self.ids
        run = self.client.run_pipeline(
            experiment_id=experiment,
            job_name=f"e2e {self.stamp} {name}",
            params=dict(parameters),
            pipeline_id=pipeline,
            version_id=version,
            service_account=self.account,
        )
        print(f"\nrun {run.run_id} ({name}) is created, with its root {parameters['root']}", file=sys.stderr)
        return str(run.run_id)

    def finish(self, run_id: str) -> Any:
        """Follow a run to its end and return it; an error with its cause if it fails."""
        with self.guarded(run_id):
            return follow.wait(self.client, run_id, self.steps, self.namespace, seconds=RUN_SECONDS)

    @contextlib.contextmanager
    def guarded(self, run_id: str) -> Iterator[None]:
        """Terminate a run at an error of the block, so that it does not take the place of the next one."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):  # the API may be what failed
                if self.client.get_run(run_id).state not in follow.ENDED:
                    self.client.terminate_run(run_id)
                    print(f"run {run_id} is terminated", file=sys.stderr)
            raise

    def check_steps(self, run: Any, rows: list[str]) -> None:
        """Check that all iterations of each step of a run succeeded."""
        found = {step: [task.state for task in follow.tasks_of(run, {step})] for step in self.steps}
        wrong = outputs.unequal(found, self.expected_states(rows), "states")
        assert not wrong, "\n".join([f"run {run.run_id} has steps in other states than it should:", *wrong])

    def expected_states(self, rows: list[str]) -> dict[str, list[str]]:
        """Return the states of each step of a run of the demo that succeeded, one for each iteration of its loop."""
        settings = self.parameters
        listed = trials.list_trials(rows, settings["seeds"], settings["profile"], settings["set"])
        # All evaluations of a checkpoint of the demo are one step.
        trained = len(trials.shares(len(trials.distinct(listed))))
        loops = dict.fromkeys(("download", "saliency", "track"), settings["parts"])
        loops |= dict.fromkeys(("pretrain", "evaluate"), trained)
        return {step: ["SUCCEEDED"] * loops.get(step, 1) for step in self.steps}

    def artifacts(self) -> dict[str, dict[str, str]]:
        """Return the artifacts of each step that the compiled pipeline declares: their types by their names."""
        components = self.pipeline["components"]
        dags = [self.pipeline["root"]["dag"], *(item["dag"] for item in components.values() if "dag" in item)]
        tasks = {name: components[task["componentRef"]["name"]] for dag in dags for name, task in dag["tasks"].items()}
        found = {name: tasks[name].get("outputDefinitions", {}).get("artifacts", {}) for name in self.steps}
        return {
            step: {name: item["artifactType"]["schemaTitle"] for name, item in outputs.items()}
            for step, outputs in found.items()
        }


def open_backend(environment: Mapping[str, str], folder: Path) -> Backend:
    """Connect to the backend that the environment names, and upload the committed pipeline to it."""
    namespace = environment.get("PREVITS_E2E_NAMESPACE", "previts")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    # The committed file has the default names of the images. PREVITS_IMAGES and the like replace them, as in `compile`.
    text = re.sub(r"previts/previts-(data|train):[\w.]+", lambda found: _images._name(found[1]), PACKAGE.read_text())
    package = folder / "previts_full.yaml"
    package.write_text(text)
    with remote.answers():
        client = remote.connect(environment[ENDPOINT], namespace)
        experiment = client.create_experiment("previts-e2e", namespace=namespace).experiment_id
        uploaded = client.upload_pipeline(str(package), f"previts-e2e-{stamp}", namespace=namespace).pipeline_id
        version = client.list_pipeline_versions(uploaded).pipeline_versions[0].pipeline_version_id
    given = shlex.split(environment.get("PREVITS_E2E_PARAMETERS", ""))
    parameters = {"rows": ROWS, "seeds": [0], "benchmarks": [], "set": [], "profile": "demo", "parts": 2}
    return Backend(
        client=client,
        root=environment["PREVITS_E2E_ROOT"],
        namespace=namespace,
        account=environment.get("PREVITS_E2E_ACCOUNT", "previts-steps"),
        parameters={**parameters, **remote.parse(previts_full, given)},
        job=json.loads(environment.get("PREVITS_E2E_JOB", json.dumps(JOB))),
        stamp=stamp,
        pipeline=next(yaml.safe_load_all(text)),
        ids=(experiment, uploaded, version),
    )


def run_here(folder: str, parameters: Mapping[str, Any]) -> str:
    """Run the pipeline with equal parameters on this machine, and return its root; a finished run is found again."""
    folder = os.path.abspath(folder)
    options = ("rows", "seeds", "benchmarks", "profile", "set", "parts")
    lists = {name: value if isinstance(value, list) else [value] for name, value in parameters.items()}
    given = [text for name in options if lists[name] for text in (f"--{name}", *map(str, lists[name]))]
    command = [sys.executable, "-m", "pipelines", "run-local", "--root", folder, *given]
    print(f"\n{shlex.join(command)}", file=sys.stderr)
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0, f"the run on this machine failed; its log is {folder}/run.log"
    return folder
