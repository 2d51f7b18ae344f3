import pytest

from previts import paper, storage
from previts.errors import InputError


def test_rows_that_mean_the_same_experiment_have_one_identity():
    same = ["1/vgg/previts", "1/k400/previts", "6a/gap=varying", "6b/mu=0.3", "6c/lambda=3.0", "6d/unsupervised"]
    assert len({storage.fingerprint(paper.resolve(name, "paper", [])) for name in same}) == 1
    assert paper.resolve("6c/lambda=0.0", "paper", []) == paper.resolve("1/vgg/sampling", "paper", [])
    assert paper.resolve("6d/none", "paper", []) == paper.resolve("1/vgg/moco", "paper", [])


def test_all_other_rows_differ():
    distinct = {storage.fingerprint(paper.resolve(name, "paper", [])) for name in paper.ROWS}
    # Table 1's three arms, two gaps, three mu, two lambda, supervised tracking, six of the eight shares of the data.
    assert len(distinct) == 3 + 2 + 3 + 2 + 1 + 6


@pytest.mark.parametrize("profile", list(paper.PROFILES))
def test_a_profile_keeps_what_tells_rows_apart(profile: str):
    by_paper = {name: storage.fingerprint(paper.resolve(name, "paper", [])) for name in paper.ROWS}
    by_profile = {name: storage.fingerprint(paper.resolve(name, profile, [])) for name in paper.ROWS}
    for one in paper.ROWS:
        for other in paper.ROWS:
            assert (by_paper[one] == by_paper[other]) == (by_profile[one] == by_profile[other])


def test_a_profile_shares_the_videos_of_all_rows():
    for profile in paper.PROFILES:
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
        paper.check_benchmarks(["davs"])
    with pytest.raises(InputError, match="no rows"):
        paper.expand([])


def test_every_reported_metric_belongs_to_a_benchmark_of_its_row():
    for row in paper.ROWS.values():
        assert {metric.split("/")[0] for metric in row.reported} <= set(row.benchmarks)
