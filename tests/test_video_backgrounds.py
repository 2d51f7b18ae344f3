"""Planted signals: where only the background tells the class, what exchanges it must be lost, and the reverse."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import puppet_clips
import pytest

from previts import evals
from previts.errors import InputError
from previts.evals import features, video_backgrounds
from previts.evaluation import ActionsConfig, BackgroundsConfig, EvaluationConfig
from previts.moco import MoCo
from previts.variants import MIXED, VARIANTS

FAST = ActionsConfig(epochs=10, lr=0.05, batch_size=4, frames=8, size=64, test_clips=1)
CAMS = {"cam_energy", "cam_pointing"}


@pytest.fixture(scope="module")
def model() -> MoCo:
    return puppet_clips.small_model()


@pytest.fixture(scope="module")
def outcomes(model: MoCo, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What classifiers make of clips told by the background, and of clips told by the person."""
    found = {}
    for told_by in ("background", "person"):
        root = tmp_path_factory.mktemp(told_by)
        puppet_clips.write_jhmdb(root / "jhmdb", told_by)
        ucf101 = puppet_clips.write_classifier(root / "classifier.pt", model)
        found[told_by] = evals.evaluate("jhmdb", model, str(root), EvaluationConfig(actions=FAST), "", ucf101)
    return found


def percent(outcome: Any) -> dict[str, float]:
    return {key.removeprefix("jhmdb/"): value for key, value in outcome.metrics.items()}


@pytest.mark.slow
def test_a_classifier_of_backgrounds_collapses_without_them(outcomes: dict[str, Any]):
    found = percent(outcomes["background"])
    print(found)
    assert set(found) == {*VARIANTS, *CAMS}
    assert min(found["original"], found["mixed_same"], found["only_bg_t"]) > 85
    assert max(found["mixed_rand"], found["only_fg"]) < 70
    assert found["mixed_next"] < 15


@pytest.mark.slow
def test_a_classifier_of_persons_does_not_mind_other_backgrounds(outcomes: dict[str, Any]):
    found = percent(outcomes["person"])
    print(found)
    assert min(found[name] for name in ("original", *MIXED)) > 85
    assert max(found[name] for name in ("no_fg", "only_bg_b", "only_bg_t")) < 70


@pytest.mark.slow
def test_attention_lies_where_the_signal_is(outcomes: dict[str, Any]):
    for told_by, outcome in outcomes.items():
        print(told_by, percent(outcome), outcome.protocol["cam_energy_of_an_even_map"])
    person, background = percent(outcomes["person"]), percent(outcomes["background"])
    assert person["cam_energy"] > background["cam_energy"]
    assert person["cam_pointing"] > background["cam_pointing"]
    for outcome in outcomes.values():
        share = outcome.protocol["cam_energy_of_an_even_map"]
        # The square of 26 pixels in the middle 64 of 72 x 64 pixels, give or take what the cut leaves outside.
        assert share == pytest.approx((26 / 64) ** 2, abs=0.03)


@pytest.mark.slow
def test_the_outcome_says_how_it_came_about(model: MoCo, outcomes: dict[str, Any]):
    outcome = outcomes["person"]
    protocol = outcome.protocol
    assert protocol["weights_before"] == protocol["weights_after"] == features.weights_digest(model)
    assert protocol["clips"] == {"1": {"train": 12, "test": 9}}
    assert protocol["start"] == "the classifier that ucf101 left"
    assert protocol["masks"] == {"1 test": {"frames": 3 * (10 + 7 + 10), "empty": 0, "spanned": 0}}
    rows = list(csv.DictReader(io.StringIO(outcome.files["manifest.csv"].decode())))
    assert len(rows) == 3 * 9
    assert {row["variant"] for row in rows} == set(MIXED)
