"""What MLflow shows of a trial, its checkpoint and its group: names, tags, parameters, descriptions and dataset.

For section 4 of PreViTS, whose tables compare arms with a baseline. Text only; nothing here calls MLflow.
"""

import getpass
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from previts import origin
from previts.config import fields, paper
from previts.config.experiment import Experiment, Plan
from previts.errors import InputError
from previts.storage import files, folders

# Tags that say where a run was made; the first five have a place of their own in MLflow's pages.
MADE_BY = (
    "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit", "mlflow.docker.image.uri", "mlflow.user",
    "previts.revision", "previts.image", "previts.pipeline_run", "previts.pytorchjob",
)  # fmt: skip
BASELINE = "baseline"  # value of the tag `diff` of the trial that the others are compared with


@dataclass(frozen=True)
class Dataset:
    """The data of a run: its name, a digest of its content, where it is stored, and its size in numbers."""

    name: str
    digest: str
    source: str
    profile: Mapping[str, float]


@dataclass(frozen=True)
class TrialRun:
    """A row with one seed, as MLflow shows it.

    Attributes:
        name: Name of its run.
        params: Every setting.
        tags: Row, seed, table and profile to group by, what differs from the baseline, and where it was made.
    """

    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class LoggedModel:
    """A checkpoint as a logged model of MLflow.

    Attributes:
        fingerprint: Of the checkpoint.
        name: Its name.
        type: The kind of encoder.
        step: Steps that it was trained for.
        params: Every setting.
        tags: Tags, its description among them.
        files: The text of its artifacts by name.
        inputs: Shape of the encoder's input by name, -1 for any size.
        outputs: Shape of its output by name.
    """

    fingerprint: str
    name: str
    type: str
    step: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    files: Mapping[str, str]
    inputs: Mapping[str, list[int]]
    outputs: Mapping[str, list[int]]


def describe_trial(row: str, profile: str, assignments: Sequence[str]) -> TrialRun:
    """Return the description of a trial.

    Args:
        row: Name of the row.
        profile: Size of the run: paper or demo.
        assignments: Settings that were changed, as `--set` takes them.
    """
    plan = paper.resolve(row, profile, assignments)
    settings = _settings(plan)
    differing = _differing(_of_baseline(row, profile, assignments), settings)
    same = "" if row != paper.baseline_of(row) else BASELINE
    tags = {
        "row": row,
        "seed": str(plan.experiment.seed),
        "table": paper.find_row(row).table,
        "profile": profile,
        "diff": same or ", ".join(f"{name}={value}" for name, value in differing.items()) or "none",
        **{f"diff.{name}": value for name, value in differing.items()},
        **_made_by(),
    }
    return TrialRun(f"{row} · seed {plan.experiment.seed}", settings, tags)


def _settings(plan: Plan) -> dict[str, str]:
    return {name: str(value) for name, value in fields.flatten(asdict(plan.experiment)).items()}


def changes_of(row: str, profile: str, params: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of a trial in MLflow that differ from those of its row, except the seed.

    Args:
        row: Name of a row.
        profile: Size of the run.
        params: Parameters of the trial. Those that the row does not have, or that are missing, do not count.
    """
    own = _settings(paper.resolve(row, profile, ()))
    return _differing(own, {name: params.get(name, value) for name, value in own.items()})


def _differing(base: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in settings.items() if name != "seed" and value != base[name]}


def _of_baseline(row: str, profile: str, assignments: Sequence[str]) -> dict[str, str]:
    """Return the settings of the row that a row is compared with."""
    try:
        return _settings(paper.resolve(paper.baseline_of(row), profile, assignments))
    except InputError:  # some settings fit this row only
        return _settings(paper.resolve(paper.baseline_of(row), profile, ()))


def _made_by() -> dict[str, str]:
    """Return the tags that say where a run works, under the names that MLflow shows where it has one."""
    known, job = origin.made_by(), os.environ.get(origin.JOB, "")
    revision, image, run = (known.get(name, "") for name in ("revision", "image", "run"))
    is_job = job or (run and not run.startswith(origin.LOCAL))
    kind, commit = "JOB" if is_job else "LOCAL", revision.removesuffix("-dirty")
    values = ("previts pretrain", kind, commit, image, _user(), revision, image, run, job)
    return {name: value for name, value in zip(MADE_BY, values, strict=True) if value}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return ""


def trial_note(row: str, profile: str, tags: Mapping[str, str], *, checkpoint: str, root: str, data: Dataset) -> str:
    """Return the description of a trial's run, in Markdown: what it is, and how to evaluate, load and trace it."""
    found = paper.find_row(row)
    compared = (
        "It is the baseline." if tags["diff"] == BASELINE else f"Against `{paper.baseline_of(row)}`: `{tags['diff']}`."
    )
    evaluate = [
        *("previts", "evaluate", "--row", row, "--benchmark", found.benchmarks[0], "--checkpoint", checkpoint),
        *("--data", "DATASETS", "--root", root, "--profile", profile),
    ]
    return f"""\
**{found.title}**: row `{row}` of the paper's table {found.table}, seed {tags["seed"]}, profile {profile}. {compared}

Trained on {data.name}, index `{data.digest}`. The checkpoint is `{checkpoint}`.

```sh
{shlex.join(evaluate)}
previts why {shlex.quote(checkpoint)}
```
"""


def describe_model(trial: TrialRun, experiment: Experiment, checkpoint: str, step: int, channels: int) -> LoggedModel:
    """Return the description of a checkpoint.

    Args:
        trial: The trial that made it.
        experiment: What it was trained with.
        checkpoint: URI of its folder.
        step: Steps that it was trained for.
        channels: Number of features that its encoder returns.
    """
    size, frames = experiment.augment.size, experiment.sampling.clip_frames
    is_video = experiment.model.encoder == "s3dg"
    shape = [-1, 3, *([frames] if is_video else []), size, size]
    name = "clips" if is_video else "images"
    return LoggedModel(
        fingerprint=folders.fingerprint_of(checkpoint, "checkpoints"),
        name=re.sub(r"[/:.%\"']", "-", trial.name),  # MLflow does not allow these characters
        type=experiment.model.encoder,
        step=step,
        params=trial.params,
        tags={
            **trial.tags,
            "previts.checkpoint": checkpoint,
            "mlflow.note.content": _model_note(experiment, checkpoint, name, shape, channels),
        },
        files={"experiment.json": experiment.to_json() + "\n"},
        inputs={name: shape},
        outputs={"features": [-1, channels]},
    )


def _model_note(experiment: Experiment, checkpoint: str, name: str, shape: Sequence[int], channels: int) -> str:
    """Return the description of a checkpoint in Markdown, with code that loads its encoder."""
    path, encoder = files.join(checkpoint, "encoder.pt"), experiment.model.encoder
    remote = files.local_path(path) is None
    if encoder == "s3dg":
        imports = ["import torch", "", "from previts.models.encoders import build_encoder"]
        build = [f'encoder = build_encoder("s3dg", width={experiment.model.width})']
        load = ["encoder.load_state_dict(weights)"]
    else:
        imports = ["import torch", "import torchvision"]
        build = [f"encoder = torchvision.models.{encoder}()"]
        load = [
            "encoder.load_state_dict(weights, strict=False)  # the file has no classifier",
            "encoder.fc = torch.nn.Identity()",
        ]
    read = [f"weights = torch.load({path!r}, weights_only=True)"]
    if remote:
        imports.insert(0, "import fsspec")
        read = [f"with fsspec.open({path!r}) as file:", "    weights = torch.load(file, weights_only=True)"]
    sizes = ", ".join(str(number) for number in shape[1:])
    use = [
        f"{name} = torch.rand(4, {sizes})  # RGB, normalised with the mean and standard deviation of ImageNet",
        f"features = encoder.eval()({name})  # (4, {channels})",
    ]
    code = "\n".join([*imports, "", *read, *build, *load, *use])
    return f"""\
The encoder of a checkpoint. Its weights are stored at `{path}`, and not in MLflow. This code loads them:

```python
{code}
```

Under Artifacts, `experiment.json` has all settings, and `MLmodel` has the shapes of the input and the output.
"""


def summary(markdown: str) -> str:
    """Return the tables of a report's Markdown that compare arms, without the columns that no arm has a number for.

    Other parts of the report may name videos, which the user may withdraw later.
    """
    sections = re.split(r"(?m)^(?=## )", markdown)
    compared = [part.strip() for part in sections if re.search(r"(?m)^\| (arm|row) \|", part)]
    return "\n\n".join(_without_empty_columns(part.splitlines()) for part in compared)


def _without_empty_columns(lines: Sequence[str]) -> str:
    """Return the lines of a section with a table, less the columns in which nothing was run."""
    table = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    width = min(map(len, table))
    kept = [place for place in range(width) if not place or any(_has_number(line[place]) for line in table[2:])]
    rows = iter(table)
    return "\n".join(
        f"|{'|'.join(row[place] for place in kept)}|" if line.startswith("|") and (row := next(rows)) else line
        for line in lines
    )


def _has_number(cell: str) -> bool:
    return bool(cell.strip()) and not cell.strip().startswith(("not run", "paper "))
