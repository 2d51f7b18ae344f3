"""DSR. Oracles: SVD, the optimality conditions of the lasso, scikit-learn's lasso, DSR's formulas in loops."""

import numpy as np
import pytest
from disc_images import disc_image
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import nnls

from previts.saliency import dsr
from previts.saliency.superpixels import at_border, region_means, segment, superpixel_side, to_lab

pytestmark = pytest.mark.filterwarnings("error")


def unit_rows(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def features_of_regions(count=100, **changes):
    image, _ = disc_image(60, 90, **changes)
    lab = to_lab(image)
    labels = segment(lab, count, 10.0, 2)
    feature = region_means(dsr.pixel_features(image, lab), labels)
    return feature, at_border(labels, len(feature), 1)


def lasso_problems():
    """Yield targets, atoms and penalty.

    The atoms are random, of images, with copies and opposites, in a plane, corners of a square, a single one, or all
    below the penalty.
    """
    generator = np.random.default_rng(0)
    yield generator.normal(size=(30, 8)), generator.normal(size=(20, 8)), 0.3
    for noise in (0, 6, 60):
        feature, border = features_of_regions(noise=noise)
        yield unit_rows(feature), unit_rows(feature[border]), 0.01
    atoms = unit_rows(generator.normal(size=(9, 5)))
    yield generator.normal(size=(25, 5)), np.concatenate([atoms, atoms, -atoms]), 0.05
    plane = generator.normal(size=(2, 6))
    yield generator.normal(size=(25, 6)), unit_rows(generator.random((30, 2)) @ plane), 0.01
    square = np.array([[-1.0, -1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, 1]])
    yield np.array([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [2, 0, 3]]), unit_rows(square), 0.01  # all four at once
    yield generator.normal(size=(5, 3)), unit_rows(generator.normal(size=(1, 3))), 0.2
    yield generator.normal(size=(5, 3)), unit_rows(generator.normal(size=(4, 3))), 100.0


def test_lasso_residual_meets_the_optimality_conditions():
    for target, atoms, penalty in lasso_problems():
        residual = dsr.lasso_residual(target, atoms, penalty)
        correlation = residual @ atoms.T
        assert np.abs(correlation).max() <= penalty + 1e-7
        for x, r, c in zip(target, residual, correlation, strict=True):
            # The reconstruction uses only atoms whose correlation is at the penalty, each with the correlation's sign.
            used = np.abs(c) > penalty - 1e-6
            cone = (atoms[used] * np.sign(c[used])[:, None]).T
            missing = nnls(cone, x - r)[1] if used.any() else np.linalg.norm(x - r)
            assert missing < 1e-6


def test_lasso_residual_is_optimal_on_checkerboards():
    for size in range(20, 60, 3):
        checks = np.add.outer(np.arange(size) // 5, np.arange(2 * size) // 5) % 2 * 255
        image = np.repeat(checks[..., None], 3, axis=2).astype(np.uint8)
        lab = to_lab(image)
        labels = segment(lab, 50, 10.0, 2)
        unit = unit_rows(region_means(dsr.pixel_features(image, lab), labels))
        border = at_border(labels, len(unit), 1)
        assert np.abs(dsr.lasso_residual(unit, unit[border], 0.01) @ unit[border].T).max() <= 0.01 + 1e-7


def test_lasso_residual_equals_that_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    target, atoms, penalty = next(lasso_problems())
    size = target.shape[1]
    solver = linear_model.Lasso(alpha=penalty / size, fit_intercept=False, tol=1e-12, max_iter=100_000)
    codes = np.stack([solver.fit(atoms.T, x).coef_.copy() for x in target])
    assert 1 < (codes != 0).sum(axis=1).mean() < size
    np.testing.assert_allclose(dsr.lasso_residual(target, atoms, penalty), target - codes @ atoms, atol=1e-6)


def test_lasso_over_orthonormal_atoms_is_soft_thresholding():
    generator = np.random.default_rng(1)
    target = generator.normal(size=(50, 6))
    basis, _ = np.linalg.qr(generator.normal(size=(6, 6)))
    code = target @ basis.T
    code = np.sign(code) * np.maximum(np.abs(code) - 0.4, 0)
    np.testing.assert_allclose(dsr.lasso_residual(target, basis, 0.4), target - code @ basis, atol=1e-6)


def test_sparse_error_is_the_squared_residual_of_unit_features():
    feature, border = features_of_regions()
    unit = unit_rows(feature)
    squared = [np.dot(r, r) for r in dsr.lasso_residual(unit, unit[border], 0.01)]
    expected = (np.array(squared) - min(squared)) / (max(squared) - min(squared))
    np.testing.assert_allclose(dsr.sparse_error(feature, border), expected, atol=1e-12)


def test_dense_error_is_the_residual_of_the_leading_singular_vectors_of_the_border():
    generator = np.random.default_rng(2)
    counts = set()
    for spread in (0.1, 0.4, 0.6):
        turn, _ = np.linalg.qr(generator.normal(size=(8, 8)))
        feature = generator.normal(size=(60, 8)) * spread ** np.arange(8) @ turn
        border = np.arange(60) % 3 == 0
        _, singular, right = np.linalg.svd(feature[border] - feature[border].mean(axis=0), full_matrices=False)
        count = 1
        while (singular[:count] ** 2).sum() < 0.95 * (singular**2).sum():
            count += 1
        counts.add(count)
        expected = feature - feature[border].mean(axis=0)
        for vector in right[:count]:
            expected = expected - np.outer(expected @ vector, vector)
        expected = np.sqrt((expected**2).sum(axis=1))
        expected = (expected - expected.min()) / (expected.max() - expected.min())
        np.testing.assert_allclose(dsr.dense_error(feature, border), expected, atol=1e-9)
    assert len(counts) == 3


def test_kmeans_finds_separate_clusters():
    generator = np.random.default_rng(3)
    truth = np.arange(80) % 8
    feature = 10 * np.eye(8)[truth] + generator.normal(size=(80, 8))
    found = dsr.clusters(feature)
    assert len(set(zip(truth, found, strict=True))) == 8
    assert len(np.unique(found)) == 8
    np.testing.assert_array_equal(dsr.clusters(np.ones((5, 8))), np.zeros(5))
    assert sorted(dsr.clusters(np.eye(3))) == [0, 1, 2]


def test_propagated_errors_equal_those_of_a_sequential_loop():
    generator = np.random.default_rng(4)
    feature, error, cluster = generator.normal(size=(40, 8)), generator.random(40), generator.integers(0, 4, 40)
    expected, variance = error.copy(), np.mean([np.var(column) for column in feature.T])
    for i in np.argsort(-error):
        weights, total = 0.0, 0.0
        for j in range(40):
            if cluster[j] == cluster[i]:
                weight = np.exp(-np.sum((feature[i] - feature[j]) ** 2) / (2 * variance))
                weights, total = weights + weight, total + weight * expected[j]
        expected[i] = 0.5 * expected[i] + 0.5 * total / weights
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(dsr.propagate(error, feature, cluster), expected, atol=1e-9)


def test_pixel_features_are_scaled_colours_and_positions():
    image, _ = disc_image(20, 30)
    lab = to_lab(image)
    feature = dsr.pixel_features(image, lab)
    for row, column in ((0, 0), (7, 20), (19, 29)):
        scaled = [(lab[row, column, k] - lab[..., k].min()) / (lab[..., k].max() - lab[..., k].min()) for k in range(3)]
        expected = [*(image[row, column] / 255), *scaled, (column + 0.5) / 30, (row + 0.5) / 20]
        np.testing.assert_allclose(feature[row, column], expected, atol=1e-6)


def test_errors_are_weighted_by_a_gaussian_around_their_centre():
    error = np.random.default_rng(5).random((12, 20))
    error[2:5, 12:18] += 3
    rows, columns = np.mgrid[0:12, 0:20]
    row, column = (error * rows).sum() / error.sum(), (error * columns).sum() / error.sum()
    expected = np.zeros((12, 20))
    for y in range(12):
        for x in range(20):
            away = (y - row) ** 2 / (2 * (0.25 * 12) ** 2) + (x - column) ** 2 / (2 * (0.25 * 20) ** 2)
            expected[y, x] = error[y, x] * np.exp(-away)
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(dsr.towards_object(error), expected, atol=1e-12)


def test_posterior_equals_bayes_rule_at_each_pixel():
    generator = np.random.default_rng(6)
    prior, evidence = generator.random((10, 15)), generator.random((10, 15)) ** 2
    evidence[0, 0], evidence[0, 1] = 0, 1
    histograms = {True: np.zeros(60), False: np.zeros(60)}
    for p, s in zip(prior.ravel(), evidence.ravel(), strict=True):
        histograms[bool(p > prior.mean())][min(int(s * 60), 59)] += 1
    likely = {part: gaussian_filter1d(count / count.sum(), 0.02 * 60) for part, count in histograms.items()}
    expected = np.zeros((10, 15))
    for index in np.ndindex(10, 15):
        level = min(int(evidence[index] * 60), 59)
        inside, outside = prior[index] * likely[True][level], (1 - prior[index]) * likely[False][level]
        expected[index] = inside / (inside + outside)
    np.testing.assert_allclose(dsr.posterior(prior, evidence), expected, atol=1e-6)


def test_saliency_equals_a_loop_over_scales_and_pixels():
    image, _ = disc_image(40, 56)
    lab = to_lab(image)
    feature = dsr.pixel_features(image, lab)
    total, weight = np.zeros((40, 56, 2)), np.zeros((40, 56))
    sides = set()
    for count, compactness in reversed(dsr.SCALES):
        if superpixel_side(40, 56, count) in sides:
            continue
        sides.add(superpixel_side(40, 56, count))
        labels = segment(lab, count, compactness, dsr.ITERATIONS)
        means = region_means(feature, labels)
        border = np.isin(np.arange(len(means)), [*labels[0], *labels[-1], *labels[:, 0], *labels[:, -1]])
        cluster = dsr.clusters(means)
        errors = [dsr.propagate(error(means, border), means, cluster) for error in (dsr.dense_error, dsr.sparse_error)]
        for index in np.ndindex(40, 56):
            near = 1 / np.sqrt(((feature[index] - means[labels[index]]) ** 2).sum() + 1e-6)
            total[index] += [near * error[labels[index]] for error in errors]
            weight[index] += near
    assert len(sides) > 2
    maps = total / weight[..., None]
    maps = (maps - maps.min(axis=(0, 1))) / (maps.max(axis=(0, 1)) - maps.min(axis=(0, 1)))
    dense, sparse = dsr.towards_object(maps[..., 0]), dsr.towards_object(maps[..., 1])
    joined = dsr.posterior(dense, sparse) + dsr.posterior(sparse, dense)
    expected = (joined - joined.min()) / (joined.max() - joined.min())
    # Single precision moves a few pixels to a neighbouring bin of the histogram.
    assert np.abs(dsr.pixel_saliency(image, lab) - expected).mean() < 1e-3
