"""The checks before a run, and the loops that it gets."""

import pytest

from previts.config import paper
from previts.errors import InputError
from previts.runs import check, trials


@pytest.fixture
def place(tmp_path):
    (tmp_path / "crawl.csv").write_text("video_id,url\na,a.mp4\n")
    for name in ("voc", "davis"):
        (tmp_path / "data" / name).mkdir(parents=True)
    return tmp_path


def checked(place, **changes):
    arguments = {
        "crawl": str(place / "crawl.csv"),
        "data": str(place / "data"),
        "rows": list(paper.ARMS),
        "seeds": [0],
        "benchmarks": ["voc07", "davis"],
        "profile": "demo",
        "set": [],
        "parts": 3,
    }
    return check.check_run(**{**arguments, **changes})


def test_the_loops_of_a_run_are_over_its_parts_its_trainings_and_in_the_demo_the_evaluations_of_each(place):
    assert checked(place) == ([0, 1, 2], [0, 1, 2], [0, 1, 2])
    assert checked(place, profile="paper") == ([0, 1, 2], [0, 1, 2], [0, 1, 2, 3, 4, 5])
    assert checked(place, seeds=[4, 7], parts=1) == ([0], [*range(6)], [*range(6)])
    # Rows of one experiment share a checkpoint: 6b and 6c have eight rows and seven experiments.
    assert checked(place, rows=["6b", "6c"], benchmarks=[])[1:] == ([*range(7)], [*range(7)])


def test_a_loop_has_at_most_63_iterations(place):
    weights = ["1/supervised:model.weights=x.pt", "2/weights:model.weights=x.pt"]
    weights += ["6d/supervised:fit.weights=x.pt", "6d-video/supervised:fit.weights=x.pt"]
    given = {"rows": ["all"], "benchmarks": [], "profile": "paper", "set": weights, "parts": 8}
    whole = check.check_choices(seeds=range(5), launcher="local", processes=1, **given)
    assert len(whole) == 5 * len(paper.ROWS)
    pairs = trials.list_evaluations(whole, [])
    by_hand = {
        (trial.seed, str(learned), trial.plan.experiment.model.weights, method, benchmark)
        for trial in whole
        for learned in [trial.plan.experiment.learned()]
        for method in [trial.plan.experiment.saliency.method if learned["sampling"]["constraint"] == "tracking" else ""]
        for benchmark in trial.row.benchmarks
    }
    assert len(pairs) == len(by_hand) > 63
    shares = [trials.share(pairs, number) for number in trials.shares(len(pairs))]
    assert len(shares) == 63
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert sorted(str(pair) for share in shares for pair in share) == sorted(map(str, pairs))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": ["7/x"]}, "there is no row"),
        ({"set": ["6:optim.lr=1"]}, "6 is a group of tables, which only --rows takes; give its tables: 6a 6b 6c 6d"),
        ({"rows": []}, "no rows"),
        ({"benchmarks": ["voc"]}, "did you mean 'voc07'"),
        ({"benchmarks": []}, "needs a labelled dataset at .*imagenet"),  # the benchmarks of the paper
        ({"benchmarks": ["in9"]}, "needs a labelled dataset at .*in9"),
        ({"benchmarks": ["ucf101"]}, "has the image model, which ucf101 cannot evaluate"),
        ({"rows": ["1"]}, "--set 1/supervised:model.weights=URI, or leave these rows out: --rows 1/random 1/k400/moco"),
        (
            {"rows": ["6"]},
            "--set 6d/supervised:fit.weights=URI, or leave .*: --rows 6a 6b 6c 6d/none 6d/unsupervised$",
        ),
        ({"seeds": []}, "seeds must be different whole numbers .* at least one"),
        ({"seeds": [1, 1]}, r"seeds must be different .*got \[1, 1\]"),
        ({"seeds": [-1]}, "from 0 to"),
        ({"set": ["seed=3"]}, "--set seed=3: the seeds of a run are given by --seeds"),
        ({"set": ["6b/mu=0.2:seed=3"]}, "the seeds of a run are given by --seeds"),
        ({"set": ["6b:optim.lr=1"]}, "--set 6b:optim.lr=1 changes nothing, because the run has no row of 6b"),
        ({"set": ["1/vgg/moco:video.max_fps=2"]}, "row 1/vgg/moco has other settings of video"),
        ({"profile": "tiny"}, "there is no profile"),
        ({"set": ["optim.lr=quick"]}, "optim.lr must be a number"),
        ({"parts": 0}, "parts must be from 1 to 63, got 0"),
        ({"parts": 64}, "parts must be from 1 to 63, got 64"),
        ({"launcher": "moon"}, "allowed: local, pytorchjob"),
        ({"job": ["spot=true"]}, "are for --launcher pytorchjob, not for local"),
        ({"launcher": "pytorchjob", "job": ["spott=true"]}, "did you mean 'spot'"),
        ({"processes": 0}, "processes must be 1 or more"),
        ({"processes": 3}, "multiple of the number of processes, 3"),
        ({"set": ["objective.queue_size=16"]}, "optim.batch_size = 32 or more"),
        ({"crawl": "/nowhere/crawl.csv"}, "there is no crawl at"),
    ],
)
def test_a_run_with_invalid_choices_is_refused_before_it_starts(place, changes, message):
    with pytest.raises(InputError, match=message):
        checked(place, **changes)


def test_table_6d_is_one_run(place):
    weights = place / "mask_rcnn.pt"
    detector = f"6d/supervised:fit.weights={weights}"
    with pytest.raises(InputError, match=r"fit\.weights: there is nothing at .*mask_rcnn\.pt"):
        checked(place, rows=["6d"], benchmarks=["voc07"], set=[detector])
    weights.touch()
    assert checked(place, rows=["6d"], benchmarks=["voc07"], set=[detector])[1:] == ([0, 1, 2], [0, 1, 2])
    with pytest.raises(InputError, match="row 6d/unsupervised tracks without labels"):
        checked(place, rows=["6d"], set=["saliency.method=supervised", "fit.weights=mask_rcnn.pt"])


def test_rows_that_share_a_checkpoint_must_have_the_same_evaluation_settings(place):
    rows = ["1/k400/moco", "1/vgg/moco"]
    assert checked(place, rows=rows)[1] == [0]
    with pytest.raises(InputError, match="rows 1/k400/moco and 1/vgg/moco share a checkpoint, which is evaluated once"):
        checked(place, rows=rows, set=["1/vgg/moco:evaluation.linear.recipe=virtex"])


def test_missing_weights_are_reported_before_anything_is_downloaded(place):
    missing = [f"1/supervised:model.weights={place / 'nope.pt'}"]
    with pytest.raises(InputError, match=r"model\.weights: .*nope\.pt"):
        checked(place, rows=["1/random", "1/supervised"], benchmarks=["voc07"], set=missing)
