"""Oracles: the numbers of the paper, and messages written down by hand."""

import dataclasses
import json

import pytest

from previts.config.experiment import Experiment, Plan, SamplingConfig, override
from previts.errors import InputError


def test_an_experiment_is_unchanged_after_json():
    changed = override(Plan(), ["sampling.gap=zero", "augment.jitter=[0.1, 0.2, 0.3, 0.4]", "seed=7"]).experiment
    assert Experiment.from_json(changed.to_json()) == changed != Experiment()


def test_the_defaults_are_the_numbers_of_section_4_1():
    paper = Experiment()
    objective, optim = paper.objective, paper.optim
    assert (objective.temperature, objective.queue_size, objective.attention_weight) == (0.07, 65535, 3.0)
    assert (optim.lr, optim.epochs, optim.batch_size, paper.sampling.min_overlap) == (0.03, 200, 256, 0.3)
    assert (paper.augment.size, paper.model.encoder, paper.video.max_fps) == (224, "resnet50", 25.0)


def test_an_assignment_changes_one_field_and_nothing_else():
    changed = override(Plan(), ["sampling.min_overlap=0.2", "evaluation.limit=5"])
    assert changed.experiment.sampling == dataclasses.replace(SamplingConfig(), min_overlap=0.2)
    assert dataclasses.replace(changed.experiment, sampling=SamplingConfig()) == Experiment()
    assert changed.evaluation.limit == 5


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("sampling.min_overlp=0.2", "did you mean 'sampling.min_overlap'"),
        ("min_overlap=0.2", "did you mean 'sampling.min_overlap'"),
        ("bn_momentum=0.2", "did you mean 'model.bn_momentum'"),
        ("sampling=1", "there is no field 'sampling'"),
        ("sampling.gap=often", "one of varying, constant, zero"),
        ("sampling.min_overlap=1.0", r"in \[0, 1\)"),
        ("optim.epochs=2.5", "a whole number"),
        ("optim.lr=fast", "a number"),
        ("augment.jitter=[1,2]", "a list of 4 numbers"),
        # Numbers that decide memory or the length of a loop have a limit.
        ("augment.size=1000000", "augment.size must be even, from 32 to 4096"),
        ("augment.blur_sigma=[0.1, 1e300]", "0 < low <= high <= 100"),
        ("model.embedding_dim=1000000000000", "from 1 to 65536"),
        ("objective.queue_size=1000000000000", "from 1 to 16777216"),
        ("objective.key_updates=1000000000", "from 1 to 100"),
        ("sampling.crop_attempts=1000000000000", "from 1 to 1000"),
        ("sampling.min_tracked_fraction=-5", "from 0 to 1"),
        ("optim.epochs=1000000000000000000", "from 1 to 1000000"),
        ("fit.size=80000", "a multiple of 8 from 32 to 4096"),
        ("optim.batch_size=100", "multiple of objective.batch_norm_groups"),
        ("sampling.constraint=none", "tracking if objective.attention_weight > 0"),
        ("seed", "section.field=value"),
        ("evaluation.croop=3", "did you mean 'evaluation.crop'"),
    ],
)
def test_an_invalid_assignment_is_refused_with_the_field_and_the_allowed_values(assignment: str, message: str):
    with pytest.raises(InputError, match=message):
        override(Plan(), [assignment])


def test_a_document_with_other_fields_is_refused():
    for text in ('{"sed": 1}', '{"saliency": {"kind": "rbd"}}', "[]"):
        with pytest.raises(InputError, match="must have the fields"):
            Experiment.from_json(text)


def test_a_field_that_an_earlier_version_did_not_write_has_its_default():
    written = json.loads(dataclasses.replace(Experiment(), seed=3).to_json())
    del written["saliency"]["detector_side"], written["model"]["width"]
    assert Experiment.from_json(json.dumps(written)) == dataclasses.replace(Experiment(), seed=3)


def test_fields_that_depend_on_each_other_are_set_in_any_order():
    one = override(Plan(), ["optim.batch_size=30", "objective.batch_norm_groups=15"])
    assert one == override(Plan(), ["objective.batch_norm_groups=15", "optim.batch_size=30"])
