"""Oracles: the fingerprints of the rows under the profile of the paper, and the benchmarks that the paper reports."""

import pytest

from previts.config import paper
from previts.config.benchmarks import BENCHMARKS
from previts.config.profiles import PROFILES, benchmarks_of
from previts.storage import fingerprints


@pytest.mark.parametrize("profile", list(PROFILES))
def test_a_profile_keeps_the_differences_between_rows(profile: str):
    by_paper = {name: fingerprints.fingerprint(paper.resolve(name, "paper", [])) for name in paper.ROWS}
    by_profile = {name: fingerprints.fingerprint(paper.resolve(name, profile, [])) for name in paper.ROWS}
    for one in paper.ROWS:
        for other in paper.ROWS:
            assert (by_paper[one] == by_paper[other]) == (by_profile[one] == by_profile[other])


def test_all_rows_of_a_profile_share_their_videos():
    for profile in PROFILES:
        stored = {paper.resolve(name, profile, []).experiment.video for name in paper.ROWS}
        assert len(stored) == 1


def test_a_run_leaves_out_what_its_profile_leaves_out_and_keeps_the_order():
    image = paper.ROWS["1/vgg/previts"].benchmarks
    assert benchmarks_of(image, "paper") == image == ("voc07", "in1k", "voc_det", "coco", "in9", "davis", "grounding")
    assert benchmarks_of(image, "demo") == ("voc07", "in1k", "in9", "davis", "grounding")
    assert benchmarks_of(("coco",), "demo") == ()


@pytest.mark.parametrize("profile", list(PROFILES))
def test_every_row_keeps_a_benchmark_under_every_profile(profile: str):
    assert set(PROFILES[profile].left_out) <= BENCHMARKS.keys()
    assert [name for name, row in paper.ROWS.items() if not benchmarks_of(row.benchmarks, profile)] == []
