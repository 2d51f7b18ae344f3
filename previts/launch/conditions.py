"""The state of a PyTorchJob, read from the conditions in its status."""

from collections.abc import Mapping
from typing import Any

from torchx.specs import AppState

# By priority: of the conditions that are true, the first one here is the state of the job.
ORDER = ("Succeeded", "Failed", "Restarting", "Suspended", "Running", "Created")
STATES = {
    "Succeeded": AppState.SUCCEEDED,
    "Failed": AppState.FAILED,
    "Restarting": AppState.PENDING,
    "Suspended": AppState.PENDING,
    "Running": AppState.RUNNING,
    "Created": AppState.PENDING,
    "": AppState.SUBMITTED,
}


def condition(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the current condition with `type`, `reason` and `message`, or an empty one if there is none yet.

    The operator keeps earlier conditions in the list and sets some of them to "False", so only "True" ones count.
    """
    listed = job.get("status", {}).get("conditions", [])
    true: dict[str, Mapping[str, Any]] = {item["type"]: item for item in listed if item["status"] == "True"}
    for kind in ORDER:
        if kind in true:
            return true[kind]
    return {}


def name(job: Mapping[str, Any]) -> str:
    """Return the type of the current condition, or an empty text before the operator has processed the job."""
    return str(condition(job).get("type", ""))


def is_over(job: Mapping[str, Any]) -> bool:
    """Return whether a job has succeeded or failed."""
    return name(job) in ("Succeeded", "Failed")


def state(job: Mapping[str, Any]) -> AppState:
    """Return the state of a job in torchx's terms."""
    return STATES[name(job)]
