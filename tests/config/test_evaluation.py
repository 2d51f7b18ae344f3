"""Oracles: the published protocols, and values just outside of each allowed range."""

import re

import pytest

from previts.config.evaluation import EvaluationConfig
from previts.config.experiment import Plan, override
from previts.errors import InputError


def test_the_defaults_are_the_published_protocols():
    config = EvaluationConfig()
    assert (config.resize, config.crop) == (256, 224)
    # detectron2: 24k steps on VOC, and the 1x schedule of 90k steps on COCO, with 16 images a batch
    detection = config.detection
    assert (detection.voc_steps, detection.coco_steps, detection.batch_size) == (24_000, 90_000, 16)
    assert (detection.voc_sides, detection.coco_sides) == ((480, 800), (640, 800))
    # The released code: 64 frames of 224 x 224, ten clips a video, 8 GPUs with 4 clips each
    actions = config.actions
    assert (actions.frames, actions.size, actions.test_clips, actions.batch_size) == (64, 224, 10, 32)


@pytest.mark.parametrize(
    ("assignment", "allowed"),
    [
        ("evaluation.crop=31", "from 32 to evaluation.resize"),
        ("evaluation.crop=257", "from 32 to evaluation.resize"),
        ("evaluation.batch_size=0", "1 or more"),
        ("evaluation.runs=0", "1 or more"),
        ("evaluation.limit=-1", "0 or more"),
        ("evaluation.seed=-1", "from 0 to"),
        ("evaluation.linear.epochs=0", "1 or more"),
        ("evaluation.davis.threshold=0", "in (0, 1]"),
        ("evaluation.davis.threshold=1.1", "in (0, 1]"),
        ("evaluation.actions.frames=12", "a multiple of 8"),
        ("evaluation.actions.lr=0", "more than 0"),
        ("evaluation.actions.split=4", "one of 1, 2, 3, all"),
        ("evaluation.detection.voc_sides=[800,480]", "the smaller first"),
        ("evaluation.detection.coco_sides=[640,801]", "a multiple of 32 apart"),
        ("evaluation.detection.cells=1", "2 or more"),
    ],
)
def test_a_value_outside_of_its_range_is_refused_with_the_allowed_values(assignment: str, allowed: str):
    field = assignment.partition("=")[0]
    with pytest.raises(InputError, match=f"{re.escape(field)} must be .*{re.escape(allowed)}"):
        override(Plan(), [assignment])


def test_the_ends_of_a_range_are_allowed():
    ends = ["evaluation.crop=32", "evaluation.resize=32", "evaluation.davis.threshold=1"]
    changed = override(Plan(), ends).evaluation
    assert (changed.crop, changed.resize, changed.davis.threshold) == (32, 32, 1.0)
