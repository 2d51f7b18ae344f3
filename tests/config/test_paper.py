"""Oracles: the numbers of the paper, and fingerprints of the experiments."""

import pytest

from previts.config import paper
from previts.config.tables import TABLE_6B
from previts.errors import InputError
from previts.stages import checks
from previts.storage import fingerprints


def test_rows_with_the_same_experiment_have_one_fingerprint():
    same = ["1/vgg/previts", "1/k400/previts", "6a/gap=varying", "6b/mu=0.3", "6c/lambda=3.0", "6d/unsupervised"]
    assert len({fingerprints.fingerprint(paper.resolve(name, "paper", [])) for name in same}) == 1
    assert paper.resolve("6c/lambda=0.0", "paper", []) == paper.resolve("1/vgg/sampling", "paper", [])
    assert paper.resolve("6d/none", "paper", []) == paper.resolve("1/vgg/moco", "paper", [])


def test_all_other_rows_have_different_fingerprints():
    distinct = {fingerprints.fingerprint(paper.resolve(name, "paper", [])) for name in paper.ROWS}
    # The three arms of table 1, two gaps, three mu, two lambda, supervised tracking, six of eight data fractions.
    images = 3 + 2 + 3 + 2 + 1 + 6
    # The three arms of table 2. Of table 6, at 50 epochs: the model, two gaps, three mu, three lambda, supervised
    # tracking, and RSPNet.
    videos = 3 + (1 + 2 + 3 + 3 + 1 + 1)
    released = 2
    untrained = 2  # the image model and the video model
    assert len(distinct) == images + videos + released + untrained


def test_the_video_model_has_the_numbers_of_section_4_1():
    experiment = paper.resolve("2/vgg/previts", "paper", []).experiment
    assert (experiment.model.encoder, experiment.sampling.clip_frames, experiment.optim.lr) == ("s3dg", 16, 0.5)
    assert (experiment.objective.speed_margin, experiment.objective.queue_size) == (0.15, 65535)
    assert paper.resolve("6a-video/gap=varying", "paper", []).experiment.optim.epochs == 50


@pytest.mark.parametrize(
    ("row", "base"), [("as-released/image", "1/vgg/previts"), ("as-released/video", "2/vgg/previts")]
)
def test_as_released_changes_the_fields_that_the_released_code_changes(row, base):
    own, released = (paper.resolve(name, "paper", []).experiment for name in (base, row))
    fields = {
        f"{section}.{field}"
        for section in ("sampling", "augment", "model", "objective", "optim")
        for field in vars(getattr(own, section))
        if getattr(getattr(own, section), field) != getattr(getattr(released, section), field)
    }
    both = {
        *("sampling.min_overlap", "sampling.visible", "sampling.other_segment", "augment.blur_probability"),
        *("objective.cam", "objective.mask_pooling", "objective.key_updates", "objective.queue_size"),
        *("objective.speed_margin", "optim.lr"),
    }
    assert fields == both | ({"objective.positives", "objective.enqueued"} if "video" in row else set())


def test_a_table_stands_for_its_rows_and_no_row_is_repeated():
    assert [row.name for row in paper.expand(["6b", "6b/mu=0.2"])] == [row.name for row in TABLE_6B]
    assert [row.name for row in paper.expand(paper.ARMS)] == list(paper.ARMS)


def test_an_unknown_name_is_reported_with_the_closest_one():
    with pytest.raises(InputError, match="did you mean '1/vgg/previts'"):
        paper.resolve("1/vgg/previt", "paper", [])
    with pytest.raises(
        InputError, match=r"6b is a table, .*; give one of its rows: 6b/mu=0.0, 6b/mu=0.2, 6b/mu=0.3, 6b/"
    ):
        paper.resolve("6b", "paper", [])
    with pytest.raises(InputError, match="allowed: paper, demo"):
        paper.resolve("1/vgg/previts", "laptop", [])
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


@pytest.mark.parametrize(
    ("row", "baseline"),
    [
        ("1/vgg/previts", "1/vgg/moco"),
        ("1/k400/previts", "1/k400/moco"),
        ("1/vgg/moco", "1/vgg/moco"),
        ("1/random", "1/k400/moco"),  # the first trained row of the table
        ("2/weights", "2/vgg/rspnet"),
        ("6b/mu=0.3", "6b/mu=0.0"),
        ("6d-video/supervised", "6d-video/none"),
        ("a1/previts/50", "a1/moco/50"),  # with as many videos
        ("a1/moco/50", "a1/moco/25"),
        ("as-released/video", "2/vgg/previts"),
        ("3/previts", "3/previts"),
    ],
)
def test_the_baseline_of_a_row_is_of_its_kind(row: str, baseline: str):
    assert paper.baseline_of(row) == baseline


def test_the_baseline_is_one_of_the_rows_that_are_shown_in_the_order_of_the_paper():
    shown = ["1/vgg/previts", "1/random", "1/vgg/sampling", "1/k400/previts"]
    assert paper.baseline_of("1/vgg/previts", shown) == "1/vgg/sampling"
    assert paper.baseline_of("1/k400/previts", shown) == "1/k400/previts"
    assert paper.baseline_of("1/random", shown) == "1/k400/previts"
    assert paper.baseline_of("a1/previts/50", ["a1/previts/50", "a1/previts/25"]) == "a1/previts/25"
    assert paper.baseline_of("as-released/video", ["as-released/image", "as-released/video"]) == "as-released/video"
