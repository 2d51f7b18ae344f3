"""What a PyTorchJob says of itself: the conditions of its status."""

from collections.abc import Mapping
from typing import Any

from torchx.specs import AppState

# From the last word to the first: a condition that was true once may be set to false later.
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
    """Return the condition that holds, or an empty one: `type`, `reason`, `message`."""
    said = job.get("status", {}).get("conditions", [])
    holding: dict[str, Mapping[str, Any]] = {item["type"]: item for item in said if item["status"] == "True"}
    for kind in ORDER:
        if kind in holding:
            return holding[kind]
    return {}


def name(job: Mapping[str, Any]) -> str:
    """Return the name of the condition that holds, or nothing before the operator has seen the job."""
    return str(condition(job).get("type", ""))


def is_over(job: Mapping[str, Any]) -> bool:
    """Return whether a job has ended, well or not."""
    return name(job) in ("Succeeded", "Failed")


def state(job: Mapping[str, Any]) -> AppState:
    """Return torchx's word for how a job is."""
    return STATES[name(job)]
