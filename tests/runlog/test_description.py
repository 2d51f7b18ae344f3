"""Oracles: the settings of the rows as the paper defines them, and torchvision's own encoder."""

import dataclasses
import shlex
from pathlib import Path

import fsspec
import pytest
import torch
import torchvision

from previts import origin
from previts.config import paper
from previts.config.experiment import Experiment
from previts.config.fields import flatten
from previts.models.encoders import build_encoder
from previts.runlog import description
from previts.runlog.description import BASELINE, MADE_BY

DATA = description.Dataset("crawl-1 (9 videos)", "d1", "root/index/i-d1", {"videos": 9})


def differing(row: str, *settings: str) -> dict[str, str]:
    tags = description.describe_trial(row, "paper", settings).tags
    return {name.removeprefix("diff."): value for name, value in tags.items() if name.startswith("diff.")}


def test_the_tags_name_the_settings_that_differ_from_the_baseline():
    assert differing("6b/mu=0.3") == {"sampling.min_overlap": "0.3"}
    assert differing("1/vgg/previts") == {"sampling.constraint": "tracking", "objective.attention_weight": "3.0"}
    assert differing("1/random") == {"model.frozen": "True"}
    for row in ("1/vgg/moco", "2/k400/rspnet", "6b/mu=0.0", "3/previts"):
        assert (differing(row), description.describe_trial(row, "paper", ()).tags["diff"]) == ({}, BASELINE)


def test_a_seed_and_a_setting_of_all_rows_do_not_differ_but_one_of_a_single_row_does():
    common = ("seed=4", "optim.epochs=3", "6b/mu=0.2:optim.lr=0.5")
    assert differing("6b/mu=0.2", *common) == {"sampling.min_overlap": "0.2", "optim.lr": "0.5"}
    assert differing("6b/mu=0.3", *common) == {"sampling.min_overlap": "0.3"}
    trial = description.describe_trial("6b/mu=0.2", "paper", common)
    assert (trial.name, trial.tags["row"], trial.tags["seed"], trial.tags["table"]) == (
        "6b/mu=0.2 · seed 4", "6b/mu=0.2", "4", "6b",
    )  # fmt: skip
    assert trial.tags["diff"] == "sampling.min_overlap=0.2, optim.lr=0.5"


def test_settings_that_the_baseline_does_not_accept_are_compared_with_its_own():
    assert differing("1/vgg/previts", "objective.attention_weight=1") == {
        "sampling.constraint": "tracking", "objective.attention_weight": "1.0",
    }  # fmt: skip


@pytest.mark.parametrize("row", paper.ROWS)
def test_every_row_has_its_settings_and_nothing_else_as_parameters(row: str):
    trial = description.describe_trial(row, "demo", ())
    settings = flatten(dataclasses.asdict(paper.resolve(row, "demo", ()).experiment))
    assert trial.params == {name: str(value) for name, value in settings.items()}


def test_where_a_run_was_made_is_in_its_tags(monkeypatch: pytest.MonkeyPatch):
    image = "registry/previts-train@sha256:abc"
    values = {
        origin.REVISION: "c0ffee-dirty",
        origin.IMAGE: image,
        origin.RUN: "run-7",
        origin.JOB: "previts-pretrain-1",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    tags = description.describe_trial("1/vgg/moco", "demo", ()).tags
    assert {name: tags[name] for name in MADE_BY if name != "mlflow.user"} == {
        "mlflow.source.name": "previts pretrain",
        "mlflow.source.type": "JOB",
        "mlflow.source.git.commit": "c0ffee",
        "mlflow.docker.image.uri": image,
        "previts.revision": "c0ffee-dirty",
        "previts.image": image,
        "previts.pipeline_run": "run-7",
        "previts.pytorchjob": "previts-pretrain-1",
    }


def test_a_run_on_the_embedded_engine_is_local(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(origin.JOB, raising=False)
    monkeypatch.setenv(origin.RUN, f"{origin.LOCAL}1")
    assert description.describe_trial("1/vgg/moco", "demo", ()).tags["mlflow.source.type"] == "LOCAL"


def code_of(note: str) -> str:
    return note.split("```python\n")[1].split("```")[0]


@pytest.mark.parametrize("row", ["1/vgg/previts", "2/vgg/previts"])
@pytest.mark.parametrize("folder", ["plain", "odd ?#%20&'\"é"])
def test_the_code_in_the_description_of_a_model_loads_its_encoder(tmp_path: Path, row: str, folder: str):
    experiment = paper.resolve(row, "demo", ["augment.size=32"]).experiment
    torch.manual_seed(3)
    encoder = build_encoder(experiment.model.encoder, width=experiment.model.width)
    checkpoint = tmp_path / folder / "checkpoints" / "c-0123456789ab"
    checkpoint.mkdir(parents=True)
    kept = {name: value for name, value in encoder.state_dict().items() if not name.startswith("fc.")}
    torch.save(kept, checkpoint / "encoder.pt")
    trial = description.describe_trial(row, "demo", ["augment.size=32"])
    model = description.describe_model(trial, experiment, str(checkpoint), 5, encoder.channels)
    known: dict[str, object] = {}
    exec(code_of(model.tags["mlflow.note.content"]), known)  # the user runs this
    ((name, shape),) = model.inputs.items()
    assert tuple(known[name].shape[1:]) == tuple(shape[1:])
    assert tuple(known["features"].shape) == (4, model.outputs["features"][1])
    torch.testing.assert_close(known["features"], encoder.eval()(known[name]))
    assert Experiment.from_json(model.files["experiment.json"]) == experiment
    if row.startswith("1/"):
        assert isinstance(known["encoder"], torchvision.models.ResNet)


def test_the_code_for_a_checkpoint_in_a_store_opens_its_uri():
    encoder = build_encoder("resnet18")
    kept = {name: value for name, value in encoder.state_dict().items() if not name.startswith("fc.")}
    uri = "memory://bucket/root/checkpoints/c-0123456789ab"
    with fsspec.open(f"{uri}/encoder.pt", "wb") as file:
        torch.save(kept, file)
    experiment = paper.resolve("1/vgg/moco", "demo", ()).experiment
    trial = description.describe_trial("1/vgg/moco", "demo", ())
    known: dict[str, object] = {}
    exec(code_of(description.describe_model(trial, experiment, uri, 5, 512).tags["mlflow.note.content"]), known)
    torch.testing.assert_close(known["features"], encoder.eval()(known["images"]))


def test_the_description_of_an_arm_has_commands_that_a_shell_reads_as_they_were():
    tags = description.describe_trial("6b/mu=0.2", "demo", ()).tags
    odd = "/data/odd ?#'é root"
    note = description.trial_note("6b/mu=0.2", "demo", tags, checkpoint=f"{odd}/checkpoints/c-1", root=odd, data=DATA)
    words = shlex.split(note.split("```sh\n")[1].splitlines()[0])
    assert words[words.index("--checkpoint") + 1] == f"{odd}/checkpoints/c-1"
    assert words[words.index("--root") + 1] == odd
    assert "sampling.min_overlap=0.2" in note
    assert "`6b/mu=0.0`" in note


REPORT = """\
# PreViTS: measured and reported

**The corpus shows video-17.**

## Table 1

| arm | VOC07 mAP | ImageNet-1k Top-1 |
| --- | --- | --- |
| MoCo \\| one | 40.1 / paper 68.3 | not run (1) / paper 46.9 |
| PreViTS | failed (2) / paper 73.0 | not run (1) / paper 50.6 |
| cited | paper 70.0 | paper 50.0 |

A legend.

## Missing numbers

1. not run (video-17)

## Corpus 123

| step | number | remark |
| --- | --- | --- |
| fetched | 3 | video-17 |
"""


def test_the_summary_of_a_report_has_its_measured_columns_and_no_part_that_names_videos():
    assert (
        description.summary(REPORT)
        == """\
## Table 1

| arm | VOC07 mAP |
| --- | --- |
| MoCo \\| one | 40.1 / paper 68.3 |
| PreViTS | failed (2) / paper 73.0 |
| cited | paper 70.0 |

A legend."""
    )
    assert description.summary("# A report without tables\n") == ""
