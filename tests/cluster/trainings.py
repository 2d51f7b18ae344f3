"""Trainings on the node: the small corpus that they read, the steps that start them, and their jobs and pods."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import small_corpus
from bucket import BUCKET, Bucket
from manifests import ROOT, Document
from node import Node, NodeError
from small_verbs import PERCEIVE, SMALL
from steps import SPACE, Ended, Step, Steps

ROW, EPOCHS = "1/vgg/previts", 60
# Two processes; one epoch of the four videos is one training step.
SETTINGS = [*SMALL, "objective.batch_norm_groups=2", f"optim.epochs={EPOCHS}"]
ENDLESS = 100_000  # epochs, for a training that a test ends
# One thread for each process, as torchrun sets it for two processes of one machine.
JOB = [
    "accelerator=",
    "processes_per_node=1",
    "shm=256Mi",
    "service_account=previts-training",
    'secrets=["bucket"]',
    'resources={"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "2", "memory": "3Gi"}}',
    'env=[{"name": "OMP_NUM_THREADS", "value": "1"}, {"name": "PREVITS_CHECKPOINT_SECONDS", "value": "3"}]',
]
TOTALS = re.compile(r"\| 0/(\d+) \[")  # in the first line of a progress: how many steps are to do
HERE = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
LIST = "import sys; from previts.storage import files; print(*files.names(sys.argv[1]))"


@dataclass(frozen=True)
class Trainings:
    """What all trainings share.

    Attributes:
        node: The node.
        steps: The steps of the pipeline for the launcher `pytorchjob`.
        bucket: The bucket of the node.
        folder: Folder of this machine.
        root: Prefix of the roots in the bucket.
    """

    node: Node
    steps: Steps
    bucket: Bucket
    folder: Path
    root: str

    @classmethod
    def on(cls, node: Node, folder: Path) -> "Trainings":
        """Return the trainings on a node whose servers are ready."""
        root = f"{BUCKET}/{folder.name}-{os.getpid()}"
        return cls(node, Steps.of_launcher(node, "pytorchjob", folder), Bucket(node), folder, root)

    @cached_property
    def index(self) -> str:
        """The index of four small videos, which this machine makes and copies to the bucket."""
        crawls, made = small_corpus.two_crawls(self.folder), self.folder / "corpus"
        run([sys.executable, "-c", PERCEIVE, crawls, str(made), *SETTINGS], env=HERE, cwd=self.folder)
        self.bucket.put(made, f"{self.root}/corpus")
        (found,) = made.glob("index/*")
        return f"{self.root}/corpus/index/{found.name}"

    @cached_property
    def expected(self) -> dict[str, Any]:
        """The model of the same training as two processes of this machine."""
        (index,) = (self.folder / "corpus" / "index").glob(Path(self.index).name)
        root = self.folder / "local"
        arguments = ["--row", ROW, "--index", str(index), "--root", str(root), "--profile", "demo", "--processes", "2"]
        command = [sys.executable, "-m", "previts", "pretrain", *arguments, "--set", *SETTINGS]
        run(command, env=HERE, cwd=self.folder)
        (model,) = root.glob("checkpoints/*/model.pt")
        return load(model)

    def model(self, uri: str) -> dict[str, Any]:
        """Return the model of a finished training of the bucket."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        self.bucket.get(uri, folder)
        return load(folder / "model.pt")

    def start(self, name: str, *job: str, epochs: int = EPOCHS) -> "Training":
        """Start the step `pretrain` with a root of its own.

        Args:
            name: Name of the root.
            job: Settings of the job besides `JOB`.
            epochs: Number of training steps.
        """
        arguments = {
            "indexes": {"": self.index},
            "root": f"{self.root}/{name}",
            "rows": [ROW],
            "seeds": [0],
            "part": 0,
            "profile": "demo",
            "set": [*SETTINGS, *([f"optim.epochs={epochs}"] if epochs != EPOCHS else [])],
            "launcher": "pytorchjob",
            "processes": 2,
            "job": [*JOB, *job],
        }
        return Training(self, arguments, self.steps.start("pretrain", arguments))


def run(command: list[str], **options: Any) -> str:
    """Run a command and return its output.

    Raises:
        AssertionError: It failed; with its messages.
    """
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def load(path: Path) -> dict[str, Any]:
    """Return the content of `model.pt`."""
    import torch

    return dict(torch.load(path, weights_only=True))


@dataclass
class Training:
    """A training whose step was started, with its job and the pods of the job. At the end of the block, all is deleted.

    Attributes:
        trainings: What it shares with others.
        arguments: Parameters of its step.
        step: The last attempt of its step.
        earlier: The attempts before. One of them owns the job, as a run of a pipeline does.
    """

    trainings: Trainings
    arguments: dict[str, Any]
    step: Step
    earlier: list[Step] = field(default_factory=list)

    @cached_property
    def name(self) -> str:
        """The name of the job, once the launcher has submitted it."""
        return re.findall(r"PyTorchJob previts/(\S+) is ", self.step.until(f"PyTorchJob {SPACE}/"))[0]

    @cached_property
    def uri(self) -> str:
        """The folder that the job writes."""
        return str(self.job()["metadata"]["annotations"]["previts/target"])

    def job(self) -> Document:
        """Return the job; empty if there is none."""
        text = self.kubectl("get", "pytorchjob", self.name, "--ignore-not-found", "-o", "json")
        return dict(json.loads(text)) if text else {}

    def pod(self, replica: str) -> Document:
        """Return the pod of a replica such as `worker-0`; empty if there is none."""
        text = self.kubectl("get", "pod", f"{self.name}-{replica}", "--ignore-not-found", "-o", "json")
        return dict(json.loads(text)) if text else {}

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the namespace of the job."""
        return self.trainings.node.kubectl("-n", SPACE, *arguments)

    def until_trains(self) -> None:
        """Wait until the job has taken steps and saved a state from which it can resume."""
        self.step.until("pretrain:")
        until(lambda: "step-" in self.trainings.bucket.run(sys.executable, "-c", LIST, self.uri), self.step.describe)

    def evict(self, pod: str) -> str:
        """Ask the API to evict a pod, and return its refusal, or ""."""
        metadata = {"name": pod, "namespace": SPACE}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
        path = f"/api/v1/namespaces/{SPACE}/pods/{pod}/eviction"
        try:
            self.trainings.node.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(body))
        except NodeError as refusal:
            return str(refusal)
        return ""

    def finish(self) -> Ended:
        """Wait for the end of the step, delete it with its job, and return how it ended."""
        return self.step.finish()

    def again(self) -> None:
        """Start the next attempt of the step."""
        self.earlier.append(self.step)
        self.step = self.trainings.steps.start("pretrain", self.arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for step in [self.step, *self.earlier]:
            step.delete()


def until(holds: Callable[[], Any], describe: Callable[[], str] = lambda: "", seconds: float = 300) -> Any:
    """Wait until a function returns a value that is true, and return it.

    Raises:
        AssertionError: It took too long; with a description.
    """
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"still false after {seconds:.0f} s\n{describe()}"
        time.sleep(0.5)
    return found
