"""A stand-in of Kubeflow Pipelines 2.17 and Argo, with their rules that decide whether a step can start again.

Written from the logic of KFP's driver, launcher and metadata client, and of Argo's `processNodeRetries`:

- The driver of a task creates an execution, and looks for no earlier one of the same name. Its launcher updates the
  execution whose id it got from the driver. So another attempt of the launcher's pod adds none. Another run of the
  driver does: Argo starts drivers again when it retries a DAG.
- An input from another task, and the final status of a DAG, are looked up in all executions below the parent DAG. Two
  of one name are an error. Constants and parameters of the parent DAG need no look-up.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

LISTED = ("taskOutputParameter", "taskOutputArtifact", "taskFinalStatus")


class ResolveError(Exception):
    """The driver cannot resolve the inputs of a task."""


@dataclass
class Execution:
    id: int
    name: str
    parent: int
    state: str = "RUNNING"


@dataclass
class Backend:
    """The executions of one run. `pipeline` is the compiled pipeline."""

    pipeline: dict[str, Any]
    executions: list[Execution] = field(default_factory=list)

    def drive(self, name: str, task: dict[str, Any], parent: int) -> Execution:
        """Run the driver of a task in the DAG of an execution; raise a ResolveError if its inputs are ambiguous."""
        inputs = task.get("inputs", {})
        for source in [*inputs.get("parameters", {}).values(), *inputs.get("artifacts", {}).values()]:
            if any(kind in source for kind in LISTED):
                self.below(parent)
        self.executions.append(Execution(len(self.executions) + 1, name, parent))
        return self.executions[-1]

    def launch(self, execution: Execution, state: str) -> None:
        """Run an attempt of the launcher of a task. A pod that was lost publishes no state."""
        if state != "LOST":
            execution.state = state

    def below(self, parent: int) -> dict[str, Execution]:
        """Return the executions below a DAG, nested DAGs included."""
        found: dict[str, Execution] = {}
        for execution in self.executions:
            if execution.parent != parent:
                continue
            name = f"{execution.name}_{parent}"
            if name in found:
                raise ResolveError(f'failed to resolve inputs: two tasks have the same task name "{name}"')
            found[name] = execution
        for execution in list(found.values()):
            found |= self.below(execution.id)
        return found


def tasks(pipeline: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield (path of names from the root, task) of each task of a compiled pipeline, DAGs before what is in them."""

    def walk(dag: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
        for name, task in dag["tasks"].items():
            yield (*path, name), task
            component = pipeline["components"][task["componentRef"]["name"]]
            if "dag" in component:
                yield from walk(component["dag"], (*path, name))

    return walk(pipeline["root"]["dag"], ())


@dataclass(frozen=True)
class Attempt:
    """An attempt of a pod: when it started, when it ended, and how; times in seconds after the first start."""

    start: float
    end: float
    phase: str


def attempts(policy: dict[str, Any], deadline: float, ends: list[tuple[float, str]]) -> list[Attempt]:
    """Return the attempts that Argo makes of a pod with a retry policy of KFP and a deadline of the pod.

    Args:
        policy: The retry policy, {} for none.
        deadline: Seconds after which the kubelet ends the pod.
        ends: For each attempt, after how many seconds it would end by itself, and its phase.
    """
    limit = int(policy.get("maxRetryCount", 0))
    pause, factor = (float(str(policy.get(name, 0)).rstrip("s")) for name in ("backoffDuration", "backoffFactor"))
    whole = float(policy["backoffMaxDuration"].rstrip("s")) if policy else math.inf
    made: list[Attempt] = []
    for seconds, phase in ends:
        start = made[-1].end + pause * factor ** (len(made) - 1) if made else 0.0
        last = min(start + deadline, whole) if made else deadline
        made.append(Attempt(start, min(start + seconds, last), phase if start + seconds <= last else "Failed"))
        waits_until = made[-1].end + pause * factor ** (len(made) - 1)
        if made[-1].phase != "Failed" or len(made) > limit or waits_until > whole:
            break
    return made


def pods(pipeline: dict[str, Any], loops: dict[str, int]) -> int:
    """Return how many pods a run has: a driver for each DAG, loop and iteration, and a driver and a step for each task.

    Args:
        pipeline: The compiled pipeline.
        loops: Number of iterations of each loop, by the name of its list in the DAG around it.
    """

    def count(dag: dict[str, Any]) -> int:
        whole = 0
        for task in dag["tasks"].values():
            component = pipeline["components"][task["componentRef"]["name"]]
            inside = count(component["dag"]) if "dag" in component else 1
            if "parameterIterator" in task:
                items = task["parameterIterator"]["items"]["inputParameter"].removeprefix("pipelinechannel--")
                whole += 1 + loops[items] * (1 + inside)
            else:
                whole += 1 + inside
        return whole

    return 1 + count(pipeline["root"]["dag"])
