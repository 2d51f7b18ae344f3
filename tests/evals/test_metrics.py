"""Oracles: literal loops, exact fractions, means over random scores."""

from fractions import Fraction

import numpy as np
import pytest

from previts.evals import metrics


def literal_curve(truth: np.ndarray, scores: np.ndarray) -> list[tuple[Fraction, Fraction]]:
    """Return recall and precision at each distinct score as threshold, highest first."""
    points = []
    for threshold in sorted(set(scores.tolist()), reverse=True):
        taken = [bool(t) for t, s in zip(truth, scores, strict=True) if s >= threshold]
        points.append((Fraction(sum(taken), int(truth.sum())), Fraction(sum(taken), len(taken))))
    return points


def planted(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.random(40) < 0.3
    truth[0] = True
    return truth, generator.integers(0, 12, 40) / 4  # many ties


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_is_the_area_under_the_steps(seed: int):
    truth, scores = planted(seed)
    area, before = Fraction(0), Fraction(0)
    for recall, precision in literal_curve(truth, scores):
        area, before = area + (recall - before) * precision, recall
    assert metrics.average_precision(truth, scores) == pytest.approx(float(area), abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_eleven_points_are_the_best_precision_at_each_recall_or_above(seed: int):
    truth, scores = planted(seed)
    curve = literal_curve(truth, scores)
    best = [max(p for r, p in curve if r >= Fraction(tenth, 10)) for tenth in range(11)]
    found = metrics.eleven_point_average_precision(truth, scores)
    assert found == pytest.approx(float(sum(best) / 11), abs=1e-12)


def test_three_of_ten_positives_reach_recall_three_tenths():
    # In floating point 3 / 10 < 0.1 * 3, which would lose one of the eleven points.
    truth = np.array([True] * 3 + [False] * 97 + [True] * 7)
    scores = -np.arange(107.0)
    assert metrics.eleven_point_average_precision(truth, scores) == pytest.approx((4 * 1 + 7 * 10 / 107) / 11)


@pytest.mark.parametrize("function", [metrics.average_precision, metrics.eleven_point_average_precision])
def test_average_precision_needs_a_positive(function):
    with pytest.raises(ValueError, match="at least one positive"):
        function(np.zeros(3, bool), np.arange(3.0))


def test_top_k_accuracy_counts_labels_among_the_best():
    generator = np.random.default_rng(0)
    scores, labels = generator.random((50, 7)), generator.integers(0, 7, 50)
    for k in (1, 3, 7, 9):
        hits = sum(sorted(row, reverse=True).index(row[label]) < k for row, label in zip(scores, labels, strict=True))
        assert metrics.accuracy(metrics.top_k_hits(scores, labels, k)) == pytest.approx(100 * hits / 50)
    # Equal scores must not make a classifier right on all images.
    assert metrics.accuracy(metrics.top_k_hits(np.zeros((70, 7)), np.arange(70) % 7, 1)) == pytest.approx(100 / 7)


def test_mapped_accuracy_uses_the_best_of_all_classes_and_minus_one_is_wrong():
    scores = np.array([[0.1, 0.9, 0.0], [0.0, 0.1, 0.9], [0.9, 0.1, 0.0], [0.0, 0.4, 0.5]])
    # Best classes 1, 2, 0, 2 are 0, -1, 1, -1 in the other numbering.
    assert metrics.accuracy(metrics.mapped_hits(scores, np.array([0, 0, 1, -1 + 2]), np.array([1, 0, -1]))) == 50.0


def test_energy_and_pointing_equal_a_literal_loop():
    generator = np.random.default_rng(3)
    cams, masks = generator.random((5, 4, 3)), generator.random((5, 4, 3)) < 0.4
    cams[3] = 0
    for cam, mask, energy, hit in zip(
        cams, masks, metrics.energy_in_mask(cams, masks), metrics.pointing(cams, masks), strict=True
    ):
        cells = [(float(cam[y, x]), bool(mask[y, x])) for y in range(4) for x in range(3)]
        whole = sum(value for value, _ in cells)
        assert energy == pytest.approx(sum(value for value, inside in cells if inside) / whole if whole else 0)
        assert hit == (max(cells)[1] if whole else 0)
    assert metrics.energy_in_mask(cams, np.ones_like(masks)).tolist() == pytest.approx([1, 1, 1, 0, 1])
    # Clips count as a whole.
    clip = metrics.energy_in_mask(cams[None], masks[None])
    assert clip.tolist() == pytest.approx([float((cams * masks).sum() / cams.sum())])


def test_cells_count_by_their_covered_share_and_equally_strong_cells_share_a_hit():
    cam, share = np.array([[[2.0, 2.0, 1.0]]]), np.array([[[0.5, 0.25, 1.0]]])
    assert metrics.energy_in_mask(cam, share).tolist() == pytest.approx([(1 + 0.5 + 1) / 5])
    assert metrics.pointing(cam, share).tolist() == [0.5]  # one of the two strongest cells is covered by half
    for measure in (metrics.energy_in_mask, metrics.pointing):
        with pytest.raises(ValueError, match="share a grid"):
            measure(cam, share[..., :2])


@pytest.mark.parametrize(("positives", "items"), [(1, 1), (1, 12), (6, 108), (20, 108), (108, 108), (40, 800)])
def test_chance_average_precision_is_the_mean_over_random_scores(positives: int, items: int) -> None:
    truth = np.arange(items) < positives
    generator = np.random.default_rng(0)
    found = [metrics.average_precision(truth, generator.random(items)) for _ in range(400)]
    tolerance = 4 * np.std(found) / len(found) ** 0.5 + 1e-9
    assert metrics.chance_average_precision(positives, items) == pytest.approx(np.mean(found), abs=tolerance)
    assert metrics.chance_average_precision(positives, items) >= positives / items


def test_chance_average_precision_needs_a_positive() -> None:
    for positives, items in ((0, 3), (4, 3)):
        with pytest.raises(ValueError, match="from 1 to the number of items"):
            metrics.chance_average_precision(positives, items)


@pytest.mark.parametrize(("classes", "k"), [(9, 1), (9, 5), (3, 5), (101, 5)])
def test_chance_accuracy_is_the_mean_over_random_scores(classes: int, k: int) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, 20_000)
    found = metrics.accuracy(metrics.top_k_hits(generator.random((len(labels), classes)), labels, k))
    assert metrics.chance_accuracy(classes, k) == pytest.approx(found, abs=1.5)
