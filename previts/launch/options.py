"""The options of a PyTorchJob (`--job`), which are never part of an experiment's identity.

They are read from `key=value` texts, because a shell, a pipeline parameter (a list of texts) and torchx's `-cfg` can
all pass these. Structured values are JSON with the field names of Kubernetes. This module imports neither torchx nor
kubernetes, so the first step of a run can check the options in a container without these packages.
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
    list: "a JSON list",
}


@dataclass(frozen=True)
class JobOptions:
    """Options of a PyTorchJob. With the defaults, any cluster with GPU nodes can run the job."""

    image: str = field(
        default="",
        metadata={"help": "container image; by default PREVITS_TRAIN_IMAGE, else that of the launcher's pod"},
    )
    namespace: str = field(
        default="", metadata={"help": "namespace of the job; by default that of the pod or kubeconfig"}
    )
    service_account: str = field(default="", metadata={"help": "account of the pods, with rights on the bucket"})
    processes_per_node: int = field(default=8, metadata={"help": "most processes, and GPUs, on one node"})
    accelerator: str = field(default="nvidia.com/gpu", metadata={"help": "resource name of a GPU; empty for CPU nodes"})
    resources: Json = field(default_factory=dict, metadata={"help": "requests and limits of a pod, without GPUs"})
    shm: str = field(default="16Gi", metadata={"help": "size of /dev/shm, through which loader processes pass batches"})
    node_selector: Json = field(default_factory=dict, metadata={"help": "labels that the nodes must have"})
    tolerations: list[Json] = field(
        default_factory=lambda: [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        metadata={"help": "taints of nodes that the pods tolerate"},
    )
    affinity: Json = field(default_factory=dict, metadata={"help": "affinity of the pods"})
    env: list[Json] = field(default_factory=list, metadata={"help": "additional environment variables"})
    user: int = field(
        default=65532, metadata={"help": "user id of the pods; 0: the user of the image, which may be root"}
    )
    secrets: list[str] = field(
        default_factory=list, metadata={"help": "secrets whose keys become environment variables"}
    )
    pull_secrets: list[str] = field(default_factory=list, metadata={"help": "secrets for the registry of the image"})
    volumes: list[Json] = field(default_factory=list, metadata={"help": "volumes of the pods"})
    volume_mounts: list[Json] = field(default_factory=list, metadata={"help": "mounts of the volumes"})
    queue: str = field(default="", metadata={"help": "local queue of Kueue"})
    priority_class: str = field(default="", metadata={"help": "priority class of the pods"})
    spot: bool = field(default=False, metadata={"help": "use spot nodes: an elastic job of a fixed size"})
    restarts: int = field(default=3, metadata={"help": "number of restarts of the pods of a spot job"})
    resubmissions: int = field(
        default=3, metadata={"help": "how often a job is submitted again after its nodes or pods were lost"}
    )
    deadline_seconds: int = field(default=7 * 86400, metadata={"help": "time limit of the job; 0: none"})
    ttl_seconds: int = field(default=86400, metadata={"help": "how long the job is kept after its end"})
    grace_seconds: int = field(
        default=25, metadata={"help": "time from a pod's SIGTERM to its SIGKILL; spot nodes give 25"}
    )
    lease_seconds: int = field(default=900, metadata={"help": "how long the job outlives its launcher; 0: for ever"})

    def __post_init__(self) -> None:
        """Check that Kubernetes accepts each value.

        Raises:
            InputError: If it does not. The message has the option, the allowed values and the given one.
        """
        for name in ("namespace", "service_account", "queue", "priority_class"):
            value = getattr(self, name)
            _require(
                name, value, "a lower-case name as Kubernetes defines it", not value or bool(NAME.fullmatch(value))
            )
        _require("shm", self.shm, "a quantity such as 16Gi", bool(QUANTITY.fullmatch(self.shm)))
        _require("processes_per_node", self.processes_per_node, "1 or more", self.processes_per_node >= 1)
        allowed = "0, or 60 or more: the launcher renews the lease four times in this period"
        _require("lease_seconds", self.lease_seconds, allowed, not self.lease_seconds or self.lease_seconds >= 60)
        for name in ("requests", "limits"):
            amounts = self.resources.get(name, {})
            _require(f"resources {name}", amounts, "a JSON object", isinstance(amounts, dict))
        quantities = [*self.resources.get("requests", {}).items(), *self.resources.get("limits", {}).items()]
        for name, quantity in quantities:
            _require(f"resources {name}", quantity, "a quantity", bool(QUANTITY.fullmatch(str(quantity))))

    def nodes(self, processes: int) -> tuple[int, int]:
        """Return the number of nodes for a number of processes, and the processes of each node.

        Raises:
            InputError: If the nodes would not have the same number of processes.
        """
        amounts = {**self.resources.get("requests", {}), **self.resources.get("limits", {})}
        each = min(processes, int(amounts.get(self.accelerator, 0)) or self.processes_per_node)
        if processes % each:
            raise InputError(
                f"{processes} processes do not fill nodes of {each} evenly; choose a multiple of {each}, or set "
                "--job processes_per_node=..."
            )
        return processes // each, each


def _require(name: str, value: object, allowed: str, holds: bool) -> None:
    if not holds:
        raise InputError(f"job option {name} must be {allowed}, got {value!r}")


def read_options(items: Sequence[str]) -> JobOptions:
    """Parse `key=value` texts. If a key occurs more than once, its last value counts.

    Raises:
        InputError: If an option does not exist or a value does not fit.
    """
    known = option_types()
    values: dict[str, Any] = {}
    for item in items:
        name, text = split_setting(item, known, "job option", "key=value")
        values[name] = parse(name, text)
    return JobOptions(**values)


def parse(name: str, text: str) -> Any:
    """Parse the value of one option.

    Raises:
        InputError: If the text does not have the type of the option.
    """
    kind = option_types()[name]
    value: Any = text
    if kind is not str:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            _require(name, text, KINDS[kind], False)
    fits = type(value) is kind and not (isinstance(value, int) and value < 0)
    _require(name, value, KINDS[kind], fits)
    if kind is list:
        inner = str if name.endswith("secrets") else dict
        _require(
            name,
            value,
            f"a JSON list in which each item is {KINDS[inner]}",
            all(isinstance(item, inner) for item in value),
        )
    return value


def option_types() -> dict[str, type]:
    """Return the type of each option: str, int, bool, dict or list."""
    hints = typing.get_type_hints(JobOptions)
    return {
        item.name: typing.get_origin(hints[item.name]) or hints[item.name] for item in dataclasses.fields(JobOptions)
    }
