import math

import numpy as np
import pytest

from previts.evals.davis import measure


def test_jaccard_counts_pixels():
    generator = np.random.default_rng(1)
    first, second = generator.random((2, 5, 6, 7)) < 0.4
    first[3] = second[3] = False
    first[4] = False
    expected = []
    for a, b in zip(first, second, strict=True):
        common = sum(bool(a[y, x] and b[y, x]) for y in range(6) for x in range(7))
        union = sum(bool(a[y, x] or b[y, x]) for y in range(6) for x in range(7))
        expected.append(common / union if union else 1.0)
    assert measure.jaccard(first, second).tolist() == pytest.approx(expected)
    assert expected[3] == 1
    assert expected[4] == 0
    assert (measure.jaccard(first, first) == 1).all()
    with pytest.raises(ValueError, match="share a shape"):
        measure.jaccard(first, second[:, 1:])


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4, 5, 6, 7, 8, 9, 31, 50, 68, 102, 256, 300])
def test_sequence_score_is_the_official_definition(num_frames: int):
    values = np.random.default_rng(num_frames).random(num_frames)
    # Ends of the four bins, halves rounded up, both ends included.
    ends = [math.floor(1 + quarter * (num_frames - 1) / 4 + 0.5) - 1 for quarter in range(5)]
    bins = [[float(values[i]) for i in range(ends[b], ends[b + 1] + 1)] for b in range(4)]
    score = measure.sequence_score(values)
    assert score.mean == pytest.approx(sum(values) / num_frames)
    assert score.recall == pytest.approx(sum(1 for value in values if value > 0.5) / num_frames)
    assert score.decay == pytest.approx(sum(bins[0]) / len(bins[0]) - sum(bins[3]) / len(bins[3]))


def test_a_perfect_tracker_scores_one_and_one_half_is_not_recalled():
    assert measure.sequence_score(np.ones(20)) == measure.SequenceScore(1.0, 1.0, 0.0)
    assert measure.sequence_score(np.full(20, 0.5)).recall == 0.0


def test_decay_is_positive_for_a_tracker_that_loses_the_object():
    assert measure.sequence_score(np.linspace(1, 0, 41)).decay == pytest.approx(0.75)


def test_sequences_count_the_same_whatever_their_length():
    scores = [measure.sequence_score(np.ones(100)), measure.sequence_score(np.zeros(4))]
    assert measure.mean_score(scores) == measure.SequenceScore(0.5, 0.5, 0.0)
    with pytest.raises(ValueError, match="no sequence"):
        measure.mean_score([])
    with pytest.raises(ValueError, match="at least one"):
        measure.sequence_score(np.zeros(0))
