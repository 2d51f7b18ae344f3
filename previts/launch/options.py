"""What a cluster needs to know of a training job beside the program: never part of an experiment's identity.

Read from `key=value` texts, the one form that a shell, a pipeline's parameter (a list of texts) and torchx's `-cfg` can
all write. What is not text, number or yes/no is JSON in Kubernetes' own words. Nothing here imports torchx or
kubernetes, so a run's options can be checked before it starts, in a container that has neither.
"""

import dataclasses
import json
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from previts.config.fields import split_setting
from previts.errors import InputError

Json = dict[str, Any]

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|[KMGTPE]i?)?")
KINDS = {
    str: "text",
    int: "a whole number of 0 or more",
    bool: "true or false",
    dict: "a JSON object",
    list: "JSON list",
}


@dataclass(frozen=True)
class JobOptions:
    """Settings of a PyTorchJob; each has a default that asks the cluster for nothing special."""

    image: str = field(default="", metadata={"help": "by default PREVITS_TRAIN_IMAGE, else that of the pod"})
    namespace: str = field(default="", metadata={"help": "by default that of the pod or the kubeconfig"})
    service_account: str = field(default="", metadata={"help": "whose rights the training has, such as a bucket's"})
    processes_per_node: int = field(default=8, metadata={"help": "at most so many processes, and GPUs, a node"})
    accelerator: str = field(default="nvidia.com/gpu", metadata={"help": "resource of one GPU; none for CPU nodes"})
    resources: Json = field(default_factory=dict, metadata={"help": "requests and limits of a node beside its GPUs"})
    shm: str = field(default="16Gi", metadata={"help": "size of /dev/shm, where loader processes hand over batches"})
    node_selector: Json = field(default_factory=dict, metadata={"help": "labels of the nodes"})
    tolerations: list[Json] = field(
        default_factory=lambda: [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        metadata={"help": "taints of nodes that do not matter"},
    )
    affinity: Json = field(default_factory=dict, metadata={"help": "affinity of the pods"})
    env: list[Json] = field(default_factory=list, metadata={"help": "further environment variables"})
    user: int = field(default=65532, metadata={"help": "whom the pods run as; 0: whom the image says, even root"})
    secrets: list[str] = field(default_factory=list, metadata={"help": "secrets whose keys become the environment"})
    pull_secrets: list[str] = field(default_factory=list, metadata={"help": "secrets that open the image's registry"})
    volumes: list[Json] = field(default_factory=list, metadata={"help": "volumes of the pods"})
    volume_mounts: list[Json] = field(default_factory=list, metadata={"help": "where they are mounted"})
    queue: str = field(default="", metadata={"help": "Kueue's local queue"})
    priority_class: str = field(default="", metadata={"help": "priority class of the pods"})
    spot: bool = field(default=False, metadata={"help": "nodes may vanish: an elastic job of a fixed size"})
    restarts: int = field(default=3, metadata={"help": "how often a spot job's pods are restarted"})
    resubmissions: int = field(default=3, metadata={"help": "how often a job whose nodes were taken is begun again"})
    deadline_seconds: int = field(default=7 * 86400, metadata={"help": "after which the job is stopped; 0: never"})
    ttl_seconds: int = field(default=86400, metadata={"help": "after its end the job is kept so long for a look"})
    grace_seconds: int = field(default=25, metadata={"help": "between a pod's SIGTERM and its end; spot gives 25"})
    lease_seconds: int = field(default=900, metadata={"help": "the job outlives its launcher by so much; 0: for good"})

    def __post_init__(self) -> None:
        """Check each value against what Kubernetes takes.

        Raises:
            InputError: Naming the option, what is allowed and what was given.
        """
        for name in ("namespace", "service_account", "queue", "priority_class"):
            value = getattr(self, name)
            _require(name, value, "a lower-case name of Kubernetes", not value or bool(NAME.fullmatch(value)))
        _require("shm", self.shm, "a quantity such as 16Gi", bool(QUANTITY.fullmatch(self.shm)))
        _require("processes_per_node", self.processes_per_node, "1 or more", self.processes_per_node >= 1)
        allowed = "0, or 60 or more: the launcher renews its lease that often"
        _require("lease_seconds", self.lease_seconds, allowed, not self.lease_seconds or self.lease_seconds >= 60)
        quantities = [*self.resources.get("requests", {}).items(), *self.resources.get("limits", {}).items()]
        for name, quantity in quantities:
            _require(f"resources {name}", quantity, "a quantity", bool(QUANTITY.fullmatch(str(quantity))))

    def nodes(self, processes: int) -> tuple[int, int]:
        """Return over how many nodes processes are spread, and how many each gets.

        Raises:
            InputError: If they do not fill the nodes evenly.
        """
        amounts = {**self.resources.get("requests", {}), **self.resources.get("limits", {})}
        each = min(processes, int(amounts.get(self.accelerator, 0)) or self.processes_per_node)
        if processes % each:
            raise InputError(
                f"{processes} processes do not fill nodes of {each} evenly; give a multiple of {each}, or "
                "--job processes_per_node=..."
            )
        return processes // each, each


def _require(name: str, value: object, allowed: str, holds: bool) -> None:
    if not holds:
        raise InputError(f"job option {name} must be {allowed}, got {value!r}")


def read_options(items: Sequence[str]) -> JobOptions:
    """Return the options that `key=value` texts set; the last word on a key counts.

    Raises:
        InputError: If there is no such option, or a text is no value of it.
    """
    known = kinds()
    values: dict[str, Any] = {}
    for item in items:
        name, text = split_setting(item, known, "job option", "key=value")
        values[name] = parse(name, text)
    return JobOptions(**values)


def parse(name: str, text: str) -> Any:
    """Return the value that a text means for an option."""
    kind = kinds()[name]
    value: Any = text
    if kind is not str:
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            _require(name, text, KINDS[kind], False)
    fits = type(value) is kind and not (isinstance(value, int) and value < 0)
    _require(name, value, KINDS[kind], fits)
    if kind is list:
        inner = str if name.endswith("secrets") else dict
        _require(name, value, f"a JSON list of {KINDS[inner]}", all(isinstance(item, inner) for item in value))
    return value


def kinds() -> dict[str, type]:
    """Return the options and what each holds: str, int, bool, dict or list."""
    hints = typing.get_type_hints(JobOptions)
    return {
        item.name: typing.get_origin(hints[item.name]) or hints[item.name] for item in dataclasses.fields(JobOptions)
    }
