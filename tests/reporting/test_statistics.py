"""Oracles: SciPy's tests on the raw values, closed forms, scikit-learn on literally repeated items."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from previts.evals.outcome import ItemScores, item_scores
from previts.reporting import statistics

NAMES = [f"class/{number}.jpg" for number in range(200)]


def pairs(seeds: int, seed: int = 0) -> tuple[dict[int, float], dict[int, float]]:
    random = np.random.default_rng(seed)
    first = 60 + 3 * random.standard_normal(seeds)
    second = first + 0.5 + random.standard_normal(seeds)
    return dict(enumerate(second.tolist())), dict(enumerate(first.tolist()))


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_the_interval_of_a_mean_is_that_of_the_t_test(seeds: int):
    values = list(pairs(seeds)[0].values())
    found, expected = statistics.over_seeds(values), stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.value == pytest.approx(np.mean(values))
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    assert found.interval() == pytest.approx(tuple(expected))
    assert (found.n, found.source) == (seeds, "seeds")


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
@pytest.mark.parametrize("comparisons", [1, 7])
def test_a_paired_difference_is_that_of_the_paired_t_test(seeds: int, comparisons: int):
    mine, baseline = pairs(seeds)
    found = statistics.paired_over_seeds(mine, baseline)
    expected = stats.ttest_rel(list(mine.values()), list(baseline.values()))
    assert found is not None
    assert found.value == pytest.approx(np.mean([mine[seed] - baseline[seed] for seed in mine]))
    assert found.p() == pytest.approx(expected.pvalue)
    assert found.p(comparisons) == pytest.approx(min(1, comparisons * expected.pvalue))
    interval = expected.confidence_interval(1 - 0.05 / comparisons)
    assert found.interval(comparisons) == pytest.approx(tuple(interval))


def test_two_seeds_have_the_distribution_of_cauchy():
    found = statistics.paired_over_seeds({0: 3.0, 1: 4.0}, {0: 0.0, 1: 0.0})
    assert found is not None
    # The mean is 3.5, the standard error 0.5, and Student's t with one degree of freedom is Cauchy's distribution.
    assert found.p() == pytest.approx(1 - 2 * math.atan(7) / math.pi)
    assert found.half_width() == pytest.approx(0.5 * math.tan(0.475 * math.pi))


def test_an_interval_excludes_zero_exactly_if_its_p_is_below_a_twentieth():
    outcomes = set()
    for number in range(200):
        found = statistics.paired_over_seeds(*pairs(4, number))
        assert found is not None
        for comparisons in (1, 3, 10):
            low, high = found.interval(comparisons) or (0, 0)
            p = found.p(comparisons)
            assert p is not None
            assert (p < 0.05) == (low > 0 or high < 0)
            outcomes.add((comparisons, p < 0.05))
    assert len(outcomes) == 6  # each case occurred


def test_one_seed_and_equal_values_have_no_interval():
    for found in (
        statistics.over_seeds([71.3]),
        statistics.over_seeds([0.1 + 0.2, 0.3, 0.3]),
        statistics.over_seeds([0.0] * 3),
    ):
        assert (found.error, found.deviation, found.interval(), found.half_width(), found.p()) == (None,) * 5


def test_equal_differences_are_not_infinitely_certain():
    baseline = dict(enumerate([8.1, 17.3, 33.7, 70.9, 0.2]))
    mine = {seed: value + 0.7 for seed, value in baseline.items()}
    assert len({mine[seed] - baseline[seed] for seed in baseline}) > 1  # differ in the last bits
    found = statistics.paired_over_seeds(mine, baseline)
    assert found is not None
    assert found.value == pytest.approx(0.7)
    assert (found.error, found.p(), found.interval(3)) == (None, None, None)


def test_a_difference_is_over_the_seeds_that_both_have():
    mine, baseline = pairs(6)
    del mine[1], baseline[4]
    found = statistics.paired_over_seeds(mine, baseline)
    common = [0, 2, 3, 5]
    expected = stats.ttest_rel([mine[seed] for seed in common], [baseline[seed] for seed in common])
    assert found is not None
    assert (found.n, found.p()) == (4, pytest.approx(expected.pvalue))
    assert statistics.paired_over_seeds({0: 1.0}, {1: 2.0}) is None
    one = statistics.paired_over_seeds({0: 1.0, 2: 5.0}, {1: 2.0, 2: 7.0})
    assert one == statistics.Estimate(-2.0, 1, "seeds", None)


def ranked(seed: int, items: int = 60) -> ItemScores:
    """Scores of three classes with ties and items that are left out; samples may lack the one positive of the third."""
    random = np.random.default_rng(seed)
    labels = np.where(random.random((items, 3)) < [0.5, 0.3, 0.0], 1, -1)
    labels[random.random((items, 3)) < 0.1] = 0
    labels[:1] = 1
    return item_scores(NAMES[:items], np.round(random.standard_normal((items, 3)) + labels, 1), labels)


def literal_map(scores: ItemScores, chosen: np.ndarray) -> float:
    """The mean AP in percent of items that are literally repeated, over the classes with a positive."""
    assert scores.labels is not None
    labels, found = scores.labels[chosen], []
    for number in range(labels.shape[1]):
        kept = labels[:, number] != 0
        truth, mine = labels[kept, number] == 1, scores.values[0, chosen][kept, number]
        if truth.any():
            found.append(100 * average_precision_score(truth, mine))
    return float(np.mean(found))


def test_a_mean_average_precision_of_samples_is_that_of_repeated_items():
    scores, random = ranked(0), np.random.default_rng(1)
    samples = random.integers(0, scores.count, (40, scores.count))
    found = statistics.compute(scores, samples)
    np.testing.assert_allclose(found, [literal_map(scores, chosen) for chosen in samples], rtol=1e-6)
    two = ItemScores(scores.items, np.concatenate([scores.values, ranked(2).values]), scores.labels)
    other = ItemScores(scores.items, ranked(2).values, scores.labels)
    np.testing.assert_allclose(
        statistics.compute(two, samples), (found + statistics.compute(other, samples)) / 2, rtol=1e-6
    )  # fmt: skip


def test_the_error_of_a_mean_average_precision_is_that_of_a_literal_bootstrap():
    scores, random = ranked(0), np.random.default_rng(1)
    numbers = [literal_map(scores, random.integers(0, scores.count, scores.count)) for _ in range(400)]
    found = statistics.resample(scores)
    assert found is not None
    estimate = statistics.over_items(found)
    assert estimate.value == pytest.approx(literal_map(scores, np.arange(scores.count)), rel=1e-6)
    # Both errors are known to a few percent.
    assert estimate.error == pytest.approx(np.std(numbers) * math.sqrt(60 / 59), rel=0.1)


def resampled(values: np.ndarray) -> statistics.Resampled:
    found = statistics.resample(item_scores(NAMES[: len(values)], values))
    assert found is not None
    return found


def test_the_error_of_an_accuracy_is_the_standard_error_of_its_items():
    answers = 100.0 * (np.random.default_rng(0).random(150) < 0.6)
    estimate = statistics.over_items(resampled(answers))
    assert (estimate.n, estimate.source, estimate.value) == (150, "items", answers.mean())
    assert estimate.error == pytest.approx(stats.sem(answers), rel=0.05)


def test_the_difference_over_items_is_paired():
    random = np.random.default_rng(0)
    difficulty = 10 * random.standard_normal(200)
    first, second = (difficulty + random.standard_normal(200) + shift for shift in (50, 50.3))
    found = statistics.paired_over_items(resampled(second), resampled(first))
    expected = stats.ttest_rel(second, first)
    assert found.value == pytest.approx((second - first).mean())
    assert found.error == pytest.approx(stats.sem(second - first), rel=0.05)
    assert found.p() == pytest.approx(expected.pvalue, rel=0.3)
    assert found.error < stats.sem(first) / 5  # resampled independently, the difference would be as uncertain as this


def test_too_few_items_or_different_ones_have_no_interval():
    assert statistics.resample(item_scores(NAMES[:9], np.arange(9.0))) is None
    first = np.zeros(100)
    for differing, known in ((9, False), (10, True)):
        second = first.copy()
        second[:differing] = 100.0
        found = statistics.paired_over_items(resampled(second), resampled(first))
        assert found.value == pytest.approx(differing)
        assert (found.error is not None) == known
    other = statistics.resample(item_scores(NAMES[100:200], first))
    assert other is not None
    with pytest.raises(ValueError, match="not on the same items"):
        statistics.paired_over_items(resampled(first), other)


def test_equal_answers_have_no_interval_and_two_calls_the_same_one():
    assert statistics.over_items(resampled(np.full(50, 100.0))).error is None
    values = np.random.default_rng(0).random(50)
    assert statistics.over_items(resampled(values)) == statistics.over_items(resampled(values))
