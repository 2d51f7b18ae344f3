import pytest

from previts.config import benchmarks, paper
from previts.config.profiles import PROFILES
from previts.errors import InputError
from previts.stages import checks
from previts.storage import fingerprints


def test_rows_that_mean_the_same_experiment_have_one_identity():
    same = ["1/vgg/previts", "1/k400/previts", "6a/gap=varying", "6b/mu=0.3", "6c/lambda=3.0", "6d/unsupervised"]
    assert len({fingerprints.fingerprint(paper.resolve(name, "paper", [])) for name in same}) == 1
    assert paper.resolve("6c/lambda=0.0", "paper", []) == paper.resolve("1/vgg/sampling", "paper", [])
    assert paper.resolve("6d/none", "paper", []) == paper.resolve("1/vgg/moco", "paper", [])


def test_all_other_rows_differ():
    distinct = {fingerprints.fingerprint(paper.resolve(name, "paper", [])) for name in paper.ROWS}
    # Table 1's three arms, two gaps, three mu, two lambda, supervised tracking, six of the eight shares of the data.
    images = 3 + 2 + 3 + 2 + 1 + 6
    # Table 2's three arms; of table 6, at 50 epochs, the model and its four kinds of variants, and training without it.
    videos = 3 + (1 + 2 + 3 + 3 + 1 + 1)
    released = 2
    untrained = 2  # the image model and the video model, from whatever weights
    assert len(distinct) == images + videos + released + untrained


def test_the_video_model_is_that_of_section_4_1():
    experiment = paper.resolve("2/vgg/previts", "paper", []).experiment
    assert (experiment.model.encoder, experiment.sampling.clip_frames, experiment.optim.lr) == ("s3dg", 16, 0.5)
    assert (experiment.objective.speed_margin, experiment.objective.queue_size) == (0.15, 65535)
    assert paper.resolve("6a-video/gap=varying", "paper", []).experiment.optim.epochs == 50


@pytest.mark.parametrize(
    ("row", "base"), [("as-released/image", "1/vgg/previts"), ("as-released/video", "2/vgg/previts")]
)
def test_as_released_changes_what_the_released_code_changes(row, base):
    mine, theirs = (paper.resolve(name, "paper", []).experiment for name in (base, row))
    fields = {
        f"{section}.{field}"
        for section in ("sampling", "augment", "model", "objective", "optim")
        for field in vars(getattr(mine, section))
        if getattr(getattr(mine, section), field) != getattr(getattr(theirs, section), field)
    }
    both = {
        *("sampling.min_overlap", "sampling.visible", "sampling.other_segment", "augment.blur_probability"),
        *("objective.cam", "objective.mask_pooling", "objective.key_updates", "objective.queue_size"),
        *("objective.speed_margin", "optim.lr"),
    }
    assert fields == both | ({"objective.positives", "objective.enqueued"} if "video" in row else set())


@pytest.mark.parametrize("profile", list(PROFILES))
def test_a_profile_keeps_what_tells_rows_apart(profile: str):
    by_paper = {name: fingerprints.fingerprint(paper.resolve(name, "paper", [])) for name in paper.ROWS}
    by_profile = {name: fingerprints.fingerprint(paper.resolve(name, profile, [])) for name in paper.ROWS}
    for one in paper.ROWS:
        for other in paper.ROWS:
            assert (by_paper[one] == by_paper[other]) == (by_profile[one] == by_profile[other])


def test_a_profile_shares_the_videos_of_all_rows():
    for profile in PROFILES:
        stored = {paper.resolve(name, profile, []).experiment.video for name in paper.ROWS}
        assert len(stored) == 1


def test_a_table_stands_for_its_rows_and_no_row_comes_twice():
    assert [row.name for row in paper.expand(["6b", "6b/mu=0.2"])] == [row.name for row in paper.TABLE_6B]
    assert [row.name for row in paper.expand(paper.ARMS)] == list(paper.ARMS)


def test_unknown_names_are_answered_with_the_closest():
    with pytest.raises(InputError, match="did you mean '1/vgg/previts'"):
        paper.resolve("1/vgg/previt", "paper", [])
    with pytest.raises(InputError, match="allowed: paper, demo"):
        paper.resolve("1/vgg/previts", "laptop", [])
    with pytest.raises(InputError, match="did you mean 'davis'"):
        benchmarks.check(["davs"])
    with pytest.raises(InputError, match="no rows"):
        paper.expand([])


def test_every_reported_metric_belongs_to_a_benchmark_of_its_row():
    for row in paper.ROWS.values():
        assert {metric.split("/")[0] for metric in row.reported} <= set(row.benchmarks)
        checks.check_fit(row.name, paper.resolve(row.name, "paper", []), row.benchmarks)


def test_an_assignment_may_be_for_one_row_or_table():
    changes = ["seed=1", "6b:seed=2", "6b/mu=0.2:seed=3"]
    rows = (None, "6a/gap=zero", "6b/mu=0.0", "6b/mu=0.2")
    assert [paper.resolve(row, "demo", changes).experiment.seed for row in rows] == [1, 1, 2, 3]
    uri = "gs://bucket/a=b/weights.pt"
    assert paper.resolve(None, "demo", [f"model.weights={uri}"]).experiment.model.weights == uri
    with pytest.raises(InputError, match="did you mean '6b/mu=0"):
        paper.resolve(None, "demo", ["6b/mu=0.21:seed=3"])
