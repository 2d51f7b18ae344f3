"""The entries of a run log, and the identity of the run that they belong to: plain JSON, checked when it is read back.

For section 4 of PreViTS. A field that was added later has a default, so that the spools of earlier versions are read.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from previts.storage.documents import from_json

Entry = dict[str, Any]
# A time of a metric that stands for the start of its run. MLflow's database keeps metrics of one time, step and value
# once, so such a metric can be sent again.
AT_START = 0


@dataclass(frozen=True)
class Identity:
    """Names an MLflow run: a trial at work, a trial that gets additional metrics, or the group's parent run.

    Attributes:
        kind: Which of these.
        experiment: Name of the MLflow experiment.
        group: Name shared by the trials that are compared.
        name: First name of a trial's run.
        fingerprint: Identifies a trial.
        params: Parameters of a trial.
        tags: Tags of a trial.
        title: First name of the parent run.
    """

    kind: Literal["trial", "addition", "group"]
    experiment: str
    group: str = ""
    name: str = ""
    fingerprint: str = ""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    title: str = ""


@dataclass(frozen=True)
class _Metrics:
    """Metrics of one step; `model` is the fingerprint of the model that they belong to, `dataset` that of its data."""

    kind: Literal["metrics"]
    values: dict[str, float]
    step: int
    time: int = 0
    model: str = ""
    dataset: str = ""
    digest: str = ""


@dataclass(frozen=True)
class _Artifact:
    kind: Literal["artifact"]
    path: str
    folder: str
    time: int = 0


@dataclass(frozen=True)
class _Tag:
    """A tag; with `merge`, its words are added to those that the tag has."""

    kind: Literal["tag"]
    key: str
    value: str
    merge: bool = False
    time: int = 0


@dataclass(frozen=True)
class _Label:
    """The name or the description of a run, which is not changed if the user has written another."""

    kind: Literal["label"]
    field: Literal["name", "note"]
    value: str
    time: int = 0


@dataclass(frozen=True)
class _Dataset:
    kind: Literal["dataset"]
    name: str
    digest: str
    source: str
    profile: dict[str, float]
    context: Literal["training", "eval"]
    time: int = 0


@dataclass(frozen=True)
class _Model:
    """A logged model; `inputs` and `outputs` are the shapes of its float32 tensors, -1 for any size."""

    kind: Literal["model"]
    fingerprint: str
    name: str
    type: str
    step: int
    params: dict[str, str]
    tags: dict[str, str]
    files: dict[str, str]
    inputs: dict[str, list[int]]
    outputs: dict[str, list[int]]
    time: int = 0


@dataclass(frozen=True)
class _End:
    kind: Literal["end"]
    status: Literal["FINISHED", "FAILED", "KILLED"]
    time: int


_KINDS: dict[str, type] = {
    "metrics": _Metrics,
    "artifact": _Artifact,
    "tag": _Tag,
    "label": _Label,
    "dataset": _Dataset,
    "model": _Model,
    "end": _End,
}


def check_entry(line: Any, name: str, remedy: str) -> Entry:
    """Return a parsed line as an entry.

    Args:
        line: The parsed line.
        name: The file that it is in, for messages.
        remedy: What happens to a damaged line, for messages.

    Raises:
        InputError: If it is of no kind, or a field is unknown, missing or of another type.
    """
    kind = str(line.get("kind")) if isinstance(line, dict) else ""
    from_json(_KINDS.get(kind, _Metrics), line, name, remedy)
    entry: Entry = line
    return entry
