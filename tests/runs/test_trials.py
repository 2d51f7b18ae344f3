"""The trials of a run: rows times seeds, and the perceptions that they need. Oracle: the tables of the paper."""

import itertools

import pytest

from previts.config import paper
from previts.runs import trials

DETECTOR = "6d/supervised:fit.weights=mask_rcnn.pt"


def test_a_trial_has_its_seed_in_the_pretraining_and_in_the_evaluations():
    found = trials.list_trials(["6a"], [3, 1], "demo", ["optim.epochs=2"])
    names = ["6a/gap=varying", "6a/gap=constant", "6a/gap=zero"]
    assert [(trial.row.name, trial.seed) for trial in found] == list(zip(names * 2, [3, 3, 3, 1, 1, 1], strict=True))
    for trial in found:
        assert trial.plan.experiment.seed == trial.plan.evaluation.seed == trial.seed
        assert trial.plan.experiment.optim.epochs == 2
    fixed = trials.list_trials(["6a"], [3, 1], "demo", ["evaluation.seed=9"])
    assert {trial.plan.evaluation.seed for trial in fixed} == {9}


def test_a_checkpoint_is_trained_once_for_each_seed():
    found = trials.list_trials(["6a/gap=varying", "6b/mu=0.3", "6b/mu=0.2"], [0, 1], "demo", [])
    assert [str(trial) for trial in trials.distinct(found)] == [
        "6a/gap=varying, seed 0",
        "6b/mu=0.2, seed 0",
        "6a/gap=varying, seed 1",
        "6b/mu=0.2, seed 1",
    ]


def test_a_checkpoint_gets_the_benchmarks_of_all_rows_that_share_it():
    found = trials.list_trials(["6a/gap=varying", "1/k400/previts"], [5], "paper", [])
    pairs = trials.list_evaluations(found, [])
    assert [(str(trial), benchmark) for trial, benchmark in pairs] == [
        ("6a/gap=varying, seed 5", benchmark) for benchmark in ("voc07", "in1k", "voc_det", "coco")
    ]
    assert [benchmark for _, benchmark in trials.list_evaluations(found, ["davis"])] == ["davis"]
    small = trials.list_trials(["1/k400/previts"], [5], "demo", [])  # the profile leaves the detectors out
    assert [benchmark for _, benchmark in trials.list_evaluations(small, [])] == ["voc07", "in1k"]
    assert [benchmark for _, benchmark in trials.list_evaluations(small, ["coco"])] == ["coco"]


@pytest.mark.parametrize("count", [0, 1, 62, 63, 64, 126, 400])
def test_the_shares_of_a_loop_have_every_item_once(count: int):
    items = list(range(count))
    shares = [trials.share(items, number) for number in trials.shares(count)]
    assert len(shares) == min(count, 63)
    assert sorted(itertools.chain(*shares)) == items
    assert all(len(share) == 1 for share in shares) or count > 63


def test_the_evaluations_of_a_checkpoint_of_the_demo_are_one_share():
    found = trials.list_trials(["1/vgg/moco", "1/vgg/previts"], [0, 1], "demo", [])
    pairs = trials.list_evaluations(found, [])
    shares = trials.evaluation_shares(found, [], "demo")
    assert [[str(trial) for trial, _ in share] for share in shares] == [[str(trial)] * 5 for trial in found]
    assert sorted(str(pair) for share in shares for pair in share) == sorted(map(str, pairs))
    assert [[pair] for pair in pairs] == trials.evaluation_shares(found, [], "paper")
    many = trials.evaluation_shares(trials.list_trials(["1/vgg/moco"], range(70), "demo", []), [], "demo")
    assert len(many) == 63
    assert sum(map(len, many)) == 70 * 5


def test_rows_that_track_alike_share_a_perception_and_rows_without_tracking_use_one_of_them():
    used = trials.perceptions(["6"], "demo", [DETECTOR])
    assert used.pop("6d/supervised") == "6d/supervised"
    assert set(used.values()) == {""}
    assert trials.perceptions(["6d/none", "6d/supervised"], "demo", [DETECTOR]) == {
        "6d/none": "6d/supervised",
        "6d/supervised": "6d/supervised",
    }
    assert trials.perceptions(["1/vgg/moco"], "demo", []) == {"1/vgg/moco": ""}
    # A setting for all rows changes the perception of all, and still needs no name.
    assert set(trials.perceptions(["6a"], "demo", ["saliency.method=rbd"]).values()) == {""}


def test_a_setting_of_one_row_gives_it_a_perception_of_its_own():
    rows = ["6b/mu=0.2", "6b/mu=0.3", "6d/none"]
    used = trials.perceptions(rows, "demo", ["6b/mu=0.2:track.association=mask"])
    assert used == {"6b/mu=0.2": "6b/mu=0.2", "6b/mu=0.3": "", "6d/none": ""}
    # Handcrafted saliency is not fitted, so the settings of the fit make no difference.
    settings = ["saliency.method=rbd", "6b/mu=0.2:fit.frames=12"]
    assert set(trials.perceptions(rows, "demo", settings).values()) == {""}
    filtered = trials.perceptions(rows, "demo", ["6d/none:filter.min_agreement=0.5"])
    assert filtered == {"6b/mu=0.2": "", "6b/mu=0.3": "", "6d/none": "6d/none"}


def test_trials_with_other_tubes_have_other_checkpoints():
    rows = ["6d/unsupervised", "6d/supervised", "6d/none"]
    found = trials.list_trials(rows, [0], "demo", [DETECTOR])
    first, second, _ = found
    assert first.plan.experiment.learned() == second.plan.experiment.learned()
    assert len(trials.distinct(found)) == 3
    assert all(trial.row is paper.find_row(name) for trial, name in zip(found, rows, strict=True))
