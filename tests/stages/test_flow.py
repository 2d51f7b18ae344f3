"""The functions that a pipeline runs between the verbs."""

import pytest

from previts.config import paper
from previts.errors import InputError
from previts.stages import addresses, flow
from previts.storage import folders


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
        "benchmarks": ["voc07", "davis"],
        "profile": "demo",
        "set": [],
        "parts": 3,
    }
    return flow.check_run(**{**arguments, **changes})


def test_a_checked_run_returns_its_rows(place):
    assert checked(place) == list(paper.ARMS)


def test_rows_with_the_same_experiment_are_pretrained_once(place):
    rows = checked(place, rows=["6b", "6c"])
    assert rows == [
        "6b/mu=0.0",
        "6b/mu=0.2",
        "6b/mu=0.3",
        "6b/mu=0.4",
        "6c/lambda=0.0",
        "6c/lambda=2.0",
        "6c/lambda=4.0",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": ["7/x"]}, "there is no row"),
        ({"rows": []}, "no rows"),
        ({"benchmarks": ["voc"]}, "did you mean 'voc07'"),
        ({"benchmarks": []}, "needs a labelled dataset at .*imagenet"),  # the benchmarks of the paper
        ({"benchmarks": ["in9"]}, "needs a labelled dataset at .*in9"),
        ({"benchmarks": ["ucf101"]}, "has the image model, which ucf101 cannot evaluate"),
        ({"rows": ["1"]}, "--set 1/supervised:model.weights=URI"),
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


def test_a_run_on_a_cluster_has_at_most_63_evaluations():
    def check(rows, benchmarks):
        flow.check_loops(rows=rows, benchmarks=benchmarks, profile="paper", set=["1/supervised:model.weights=x.pt"])

    for table in paper.TABLES:
        check([table], [])
    check(["a1", "6a", "6b"], ["voc07", "davis", "in9", "in1k"])  # 15 rows, three of one experiment
    with pytest.raises(InputError, match="need 65 evaluations, a run on a cluster may have 63; start several runs"):
        check(["a1", "6a", "6b"], ["voc07", "davis", "in9", "in1k", "voc_det"])


def test_the_parts_of_a_stage_must_have_one_finished_output(tmp_path):
    uri = folders.address(str(tmp_path), "videos", "x", {})
    with pytest.raises(InputError, match="has not finished"):
        flow.collect_parts([uri, uri])
    folders.commit(uri, {})
    assert flow.collect_parts([uri, uri]) == uri
    with pytest.raises(InputError, match="must write one output"):
        flow.collect_parts([uri, uri + "x"])


def test_each_row_is_evaluated_on_its_own_checkpoint_in_any_order(tmp_path):
    index = folders.address(str(tmp_path), "index", "corpus", {})
    folders.commit(index, {})
    rows = list(paper.ARMS)
    own = {
        row: addresses.checkpoint_address(paper.resolve(row, "demo", ["seed=3"]), index, str(tmp_path)) for row in rows
    }
    given = {"rows": rows, "index": index, "root": str(tmp_path), "profile": "demo", "set": ["seed=3"]}
    for order in (rows, rows[::-1]):
        found = flow.list_evaluations(benchmarks=["voc07", "davis"], checkpoints=[own[row] for row in order], **given)
        assert [(pair["row"], pair["benchmark"]) for pair in found] == [
            (r, b) for r in rows for b in ("voc07", "davis")
        ]
        assert all(pair["checkpoint"] == own[pair["row"]] for pair in found)
    with pytest.raises(InputError, match="has no checkpoint at"):
        flow.list_evaluations(benchmarks=["voc07"], checkpoints=[own[rows[0]]], **given)


def test_supervised_tracking_needs_a_run_of_its_own(place):
    assert checked(place, rows=["6d/none", "6d/unsupervised"]) == ["6d/none", "6d/unsupervised"]
    with pytest.raises(InputError, match=r"row 6d/supervised needs tubes of saliency\.method=supervised.*another run"):
        checked(place, rows=["6d"])
    chosen = ["saliency.method=supervised", "fit.weights=mask_rcnn.pt"]
    assert checked(place, rows=["6d/none", "6d/supervised"], set=chosen) == ["6d/none", "6d/supervised"]
    with pytest.raises(InputError, match="row 6d/unsupervised tracks without labels"):
        checked(place, rows=["6d"], set=chosen)


def test_rows_that_share_a_checkpoint_must_have_the_same_evaluation_settings(place):
    rows = ["1/k400/moco", "1/vgg/moco"]
    assert checked(place, rows=rows) == ["1/k400/moco"]
    with pytest.raises(InputError, match="rows 1/k400/moco and 1/vgg/moco share a checkpoint, which is evaluated once"):
        checked(place, rows=rows, set=["1/vgg/moco:evaluation.linear.recipe=virtex"])


def test_missing_weights_are_reported_before_anything_is_downloaded(place):
    missing = [f"1/supervised:model.weights={place / 'nope.pt'}"]
    with pytest.raises(InputError, match=r"model\.weights: .*nope\.pt"):
        checked(place, rows=["1/random", "1/supervised"], benchmarks=["voc07"], set=missing)


def test_the_closing_step_of_a_failed_run_says_what_to_do(tmp_path):
    text = flow.close_run(str(tmp_path), "FAILED", "Task pretrain failed.")
    assert "Task pretrain failed." in text
    assert "same parameters" in text
    assert "SUCCEEDED" in flow.close_run(str(tmp_path), "SUCCEEDED", "")
