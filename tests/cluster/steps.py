"""The steps of the compiled pipeline as Jobs on a node.

Kubeflow Pipelines is not on the node. So this file builds the pod of a step as KFP's driver does: with the image, the
command, the environment, the volumes, the limits and the labels of the compiled YAML. The pod has the account of runs,
the security context that KFP 2.17 sets, and a read-only root.
"""

import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from kfp.local import status, subprocess_task_handler
from manifests import ROOT, Document
from node import Node, NodeError
from probes import STEP, WORKFLOW

import images
from previts.runs import sizes

SPACE = "previts"
WORK = "/tmp/step"
# Argo's executor passes signals on to the process group of the step, and keeps its outputs. This shell does both.
SHELL = """mkdir -p "$0"
setsid "$@" & child=$!
trap 'kill -TERM -$child' TERM
while :; do wait $child; code=$?; kill -0 $child 2> /dev/null || break; done
echo; echo OUTPUTS OF THE STEP; tar -C "$0" -cz . | base64
exit $code"""
OUTPUTS = re.compile(r"\nOUTPUTS OF THE STEP\n([A-Za-z0-9+/=\n]*)")
NO_RIGHTS = {
    "runAsNonRoot": True, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a step ended.

    Attributes:
        succeeded: Whether its Job succeeded.
        log: Log of its last pod, without the outputs; "" if the pod is gone.
        values: Output parameters.
        files: Contents of its artifacts by name, such as the page `summary`.
    """

    succeeded: bool
    log: str
    values: dict[str, Any]
    files: dict[str, bytes]


class Steps:
    """The steps of a compiled pipeline.

    Args:
        node: The node.
        pipeline: The compiled YAML.
        profile: Profile, whose sizes the large steps have.
        changes: Changes of these sizes, as in the parameter `sizes`.
    """

    def __init__(self, node: Node, pipeline: Path, profile: str = "demo", changes: dict[str, str] | None = None):
        self.node = node
        self.pipeline, platform = yaml.safe_load_all(pipeline.read_text())
        self.platform = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self.sizes = asdict(sizes.sizes(profile, changes or {}))
        self.counter = 0
        self._lock = threading.Lock()

    @classmethod
    def of_launcher(cls, node: Node, launcher: str, folder: Path, **options: Any) -> Self:
        """Compile the pipeline for a launcher, with the digests of the images on the node, and return its steps."""
        known = json.loads((node.images / "names.json").read_text())
        digests = {
            f"PREVITS_{name.upper()}_DIGEST": known[images.NAMES[name]] for name in ("data", "train", "launcher")
        }
        surroundings = {**os.environ, "PREVITS_LAUNCHER": launcher, **digests}
        command = [sys.executable, "-m", "pipelines", "compile", "--folder", str(folder)]
        subprocess.run(command, check=True, env=surroundings, cwd=ROOT)
        return cls(node, folder / "previts_full.yaml", **options)

    def start(self, name: str, arguments: dict[str, Any]) -> "Step":
        """Start a step with its parameters; those that are missing have their defaults.

        Args:
            name: Name of the component, such as `fit-saliency`.
            arguments: Parameters of the component.
        """
        component = self.pipeline["components"][f"comp-{name}"]
        known = component.get("inputDefinitions", {}).get("parameters", {})
        given = {key: item["defaultValue"] for key, item in known.items() if "defaultValue" in item} | arguments
        made = component.get("outputDefinitions", {})
        parameters = {key: {"outputFile": f"{WORK}/{key}"} for key in made.get("parameters", {})}
        artifacts = {
            key: {"artifacts": [{"name": key, "uri": f"{WORK}/{key}", "type": item["artifactType"], "metadata": {}}]}
            for key, item in made.get("artifacts", {}).items()
        }
        outputs = {"parameters": parameters, "artifacts": artifacts, "outputFile": f"{WORK}/executor_output.json"}
        given_json = json.dumps({"inputs": {"parameterValues": given}, "outputs": outputs})
        container = self.pipeline["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
        command = [*container["command"], *container["args"]]
        return self.begin(name, [given_json if word == "{{$}}" else word for word in command], WORK)

    def begin(self, name: str, command: list[str], folder: str) -> "Step":
        """Start a step with its whole command, which writes its outputs below a folder of the pod."""
        with self._lock:
            self.counter += 1
            job = f"step-{name}-{os.getpid()}-{self.counter}"
        self.node.apply(self.job(job, name, ["sh", "-c", SHELL, folder, *command]))
        return Step(self.node, job, folder)

    def job(self, job: str, name: str, command: list[str]) -> Document:
        """Return the Job of a step."""
        executor = self.platform[f"exec-{name}"]
        container = self.pipeline["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
        mounts: list[tuple[str, str, Document]] = [
            (item["volumeName"], item["mountPath"],
             {"emptyDir": {key: item[key] for key in ("medium", "sizeLimit") if key in item}})
            for item in executor.get("emptyDirMounts", [])
        ]  # fmt: skip
        for item in executor.get("secretAsVolume", []):
            source = {"secretName": item["secretName"], "optional": item["optional"]}
            mounts.append((item["secretName"], item["mountPath"], {"secret": source}))
        for item in executor.get("configMapAsVolume", []):
            source = {"name": item["configMapName"], "optional": item["optional"]}
            mounts.append((item["configMapName"], item["mountPath"], {"configMap": source}))
        user = {key: int(executor["securityContext"][key]) for key in ("runAsUser", "runAsGroup")}
        asked = container["resources"]
        amounts = {
            kind: {unit.lower(): self._amount(asked[f"resource{unit}{kind}"]) for unit in ("Cpu", "Memory")}
            for kind in ("Request", "Limit")
        }
        pod = {
            "restartPolicy": "Never",
            "serviceAccountName": "previts-steps",
            "activeDeadlineSeconds": int(executor["activeDeadlineSeconds"]),
            "enableServiceLinks": False,
            "tolerations": executor.get("tolerations", []),
            "containers": [
                {
                    "name": "main",
                    "image": container["image"],
                    "imagePullPolicy": "IfNotPresent",
                    "command": command[:1],
                    "args": command[1:],
                    "env": self._environment(executor, container),
                    "resources": {"requests": amounts["Request"], "limits": amounts["Limit"]},
                    "securityContext": {**NO_RIGHTS, **user},
                    "volumeMounts": [{"name": volume, "mountPath": path} for volume, path, _ in mounts],
                }
            ],
            "volumes": [{"name": volume, **source} for volume, _, source in mounts],
        }
        metadata = executor["podMetadata"]
        labels = {**metadata["labels"], WORKFLOW: "cluster-test", "pipeline/runid": "cluster-test"}
        assert labels[STEP] == name
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job, "namespace": SPACE},
            "spec": {
                "backoffLimit": 0,
                "template": {"metadata": {"labels": labels, "annotations": metadata["annotations"]}, "spec": pod},
            },
        }

    def _environment(self, executor: Document, container: Document) -> list[Document]:
        found = [{"name": item["name"], "value": item["value"]} for item in container.get("env", [])]
        found.append({"name": "KFP_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})
        for item in executor.get("fieldPathAsEnv", []):
            found.append({"name": item["name"], "valueFrom": {"fieldRef": {"fieldPath": item["fieldPath"]}}})
        for kind, reference, key in (
            ("configMapAsEnv", "configMapKeyRef", "configMap"),
            ("secretAsEnv", "secretKeyRef", "secret"),
        ):
            for item in executor.get(kind, []):
                for entry in item["keyToEnv"]:
                    source = {"name": item[f"{key}Name"], "key": entry[f"{key}Key"], "optional": item["optional"]}
                    found.append({"name": entry["envVar"], "valueFrom": {reference: source}})
        return found

    def _amount(self, text: str) -> str:
        """Return an amount; one of the profile if the text asks for a parameter, such as `check-run-cpu`."""
        if not (asked := re.fullmatch(r"\{\{\$\.inputs\.parameters\['pipelinechannel--(.+)'\]\}\}", text)):
            return text
        name = asked[1].removeprefix("check-run-")
        # `download_crawls` calls the amount that it gets from `data_memory` just `memory`.
        return self.sizes["data_memory" if name == "memory" else name]

    @contextlib.contextmanager
    def engine(self) -> Iterator[None]:
        """Let the embedded engine of KFP run its steps as Jobs, with the outputs where it expects them."""
        begin = self.begin

        class AsJob:
            def __init__(self, full_command: list[str], **rest: Any) -> None:
                self.command = full_command

            def run(self) -> status.Status:
                name = self.command[self.command.index("--function_to_execute") + 1].replace("_", "-")
                given = json.loads(self.command[self.command.index("--executor_input") + 1])
                folder = os.path.dirname(given["outputs"]["outputFile"])
                ended = begin(name, self.command, folder).finish()
                print(ended.log, flush=True)
                Path(folder).mkdir(parents=True, exist_ok=True)
                for path, content in ended.files.items():
                    Path(folder, path).write_bytes(content)
                return status.Status.SUCCESS if ended.succeeded else status.Status.FAILURE

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(subprocess_task_handler, "SubprocessTaskHandler", AsJob)
            yield


@dataclass(frozen=True)
class Step:
    """A step that was started. `name` is that of its Job, `folder` that of its outputs in the pod."""

    node: Node
    name: str
    folder: str

    def pods(self) -> list[Document]:
        """Return the pods of the step, the oldest first."""
        text = self.node.kubectl("get", "pods", "-n", SPACE, "-l", f"job-name={self.name}", "-o", "json")
        return sorted(json.loads(text)["items"], key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def log(self) -> str:
        """Return the log of the last pod so far; "" if there is none."""
        with contextlib.suppress(NodeError, IndexError):
            return self.node.kubectl("logs", self.pods()[-1]["metadata"]["name"], "-n", SPACE)
        return ""

    def until(self, text: str, seconds: float = 300) -> str:
        """Wait until the log contains a text, and return the log.

        Raises:
            AssertionError: The step ended without it, or it took too long; with the log and the state of the pods.
        """
        deadline = time.monotonic() + seconds
        while text not in (log := self.log()):
            assert not self._end(), f"{self.name} ended without {text!r}:\n{log}"
            assert time.monotonic() < deadline, f"{self.name} did not say {text!r} in {seconds} s:\n{self.describe()}"
            time.sleep(1)
        return log

    def finish(self, seconds: float = 600) -> Ended:
        """Wait for the end of the step, delete its Job, and return how it ended.

        Raises:
            AssertionError: It took too long; with the log and the state of the pods.
        """
        deadline = time.monotonic() + seconds
        try:
            while not (end := self._end()):
                assert time.monotonic() < deadline, f"{self.name} did not end in {seconds} s:\n{self.describe()}"
                time.sleep(1)
            text = self.log()
            found = OUTPUTS.search(text)
            files = _unpacked(found[1]) if found else {}
            made = json.loads(files.get("executor_output.json", b"{}"))
            log = text[: found.start()] if found else text or self.describe()
            return Ended(end == "Complete", log, made.get("parameterValues", {}), files)
        finally:
            self.delete()

    def describe(self) -> str:
        """Return the log of the step and the state of its pods, for a message."""
        described = self.node.kubectl("describe", "job,pod", "-n", SPACE, "-l", f"job-name={self.name}")
        return f"{self.log()[-3000:]}\n{described[-4000:]}"

    def delete(self) -> None:
        """Delete the Job, which ends its pods."""
        with contextlib.suppress(NodeError):
            self.node.kubectl("delete", "job", self.name, "-n", SPACE, "--ignore-not-found", "--cascade=foreground")

    def _end(self) -> str:
        """Return `Complete` or `Failed`, or "" while the step runs."""
        form = "jsonpath={.status.conditions[?(@.status=='True')].type}"
        conditions = self.node.kubectl("get", "job", self.name, "-n", SPACE, "-o", form).split()
        return next((item for item in ("Complete", "Failed") if item in conditions), "")


def _unpacked(text: str) -> dict[str, bytes]:
    """Return the files of an archive as of the shell of a step, by their paths."""
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(text))) as archive:
        files = [item for item in archive if item.isfile()]
        return {item.name.removeprefix("./"): archive.extractfile(item).read() for item in files}  # type: ignore[union-attr]
