"""RBD. Oracles: shortest paths by scipy, the energy of RBD as least squares, its formulas in loops over pairs."""

import numpy as np
import pytest
from scipy.sparse.csgraph import floyd_warshall

from previts.saliency import rbd
from previts.saliency.superpixels import Regions, pairwise_distance

pytestmark = pytest.mark.filterwarnings("error")


def random_graph(generator, count):
    colour = pairwise_distance(generator.random((count, 3)) * 50)
    linked = generator.random((count, count)) < 0.2
    return colour, linked | linked.T | np.eye(count, dtype=bool) | np.eye(count, k=1, dtype=bool) | np.eye(
        count, k=-1, dtype=bool
    )


def test_geodesic_distance_is_the_shortest_path():
    generator = np.random.default_rng(0)
    for count in (2, 5, 40):
        colour, linked = random_graph(generator, count)
        clip = float(np.median(colour))
        cost = np.where(linked, np.maximum(colour - clip, 0), np.inf)
        # scipy ignores zeros of a dense matrix, so links without cost have a cost below the tolerance.
        expected = floyd_warshall(np.where(linked, np.maximum(cost, 1e-6), 0))
        np.testing.assert_allclose(rbd.geodesic_distance(colour, linked, clip), expected, rtol=1e-5, atol=1e-4)


def test_geodesic_distance_along_a_chain_is_the_sum_of_its_steps():
    lightness = np.array([0.0, 10, 13, 33, 34])
    colour = np.abs(lightness[:, None] - lightness[None])
    linked = np.eye(5, dtype=bool) | np.eye(5, k=1, dtype=bool) | np.eye(5, k=-1, dtype=bool)
    found = rbd.geodesic_distance(colour, linked, 4.0)
    np.testing.assert_allclose(found[0], [0, 6, 6, 22, 22])


def test_optimise_minimises_the_energy_of_rbd():
    generator = np.random.default_rng(1)
    for count in (1, 2, 6, 30):
        smooth = generator.random((count, count))
        smooth = smooth + smooth.T
        background, foreground = generator.random(count) + 0.01, generator.random(count)
        # sum 5 b s^2 + f (s - 1)^2 + 1/2 sum_ij w (s_i - s_j)^2 as a least-squares problem with a row for each term.
        rows = [np.diag(np.sqrt(5 * background)), np.diag(np.sqrt(foreground))]
        targets = [np.zeros(count), np.sqrt(foreground)]
        for i in range(count):
            for j in range(i):
                row = np.zeros((1, count))
                row[0, i], row[0, j] = np.sqrt(smooth[i, j]), -np.sqrt(smooth[i, j])
                rows.append(row)
                targets.append(np.zeros(1))
        expected = np.linalg.lstsq(np.vstack(rows), np.concatenate(targets), rcond=None)[0]
        np.testing.assert_allclose(rbd.optimise(smooth, background, foreground), expected, atol=1e-9)


def test_border_connectivity_has_its_closed_form():
    # 9 equal regions, 8 of them at the border: length / sqrt(area) = 8 / 3. Regions far from all others: 0 or 1.
    border = np.array([True] * 8 + [False])
    np.testing.assert_allclose(rbd.border_connectivity(np.zeros((9, 9)), border, 7.0), 8 / 3)
    apart = np.full((9, 9), 100.0)
    np.fill_diagonal(apart, 0)
    np.testing.assert_allclose(rbd.border_connectivity(apart, border, 7.0), border.astype(float))


def test_adaptive_scales_equal_the_means_by_loops():
    generator = np.random.default_rng(2)
    for spread in (1.0, 3.0, 30.0):
        colour, adjacent = random_graph(generator, 30)
        colour *= spread / 10
        ring = (adjacent.astype(int) @ adjacent) > 0
        m1 = np.mean([min(colour[i, j] for j in range(30) if adjacent[i, j] and j != i) for i in range(30)])
        m2 = np.mean([min(colour[i, j] for j in range(30) if ring[i, j] and j != i) for i in range(30)])
        links = sorted((colour[i, j] for i in range(30) for j in range(30) if adjacent[i, j] and j != i), reverse=True)
        top = np.mean(links[: round(0.01 * len(links))])
        expected = (m2, max(5, min(10, 3 * m1, top / 10)), min(3 * m1, 0.2 * top, 20))
        np.testing.assert_allclose(rbd.adaptive_scales(colour, adjacent, ring), expected)


def test_contrast_equals_the_weighted_sum_by_loops():
    generator = np.random.default_rng(3)
    colour, place, background = generator.random((20, 20)), generator.random((20, 2)), generator.random(20)
    expected = np.zeros(20)
    for i in range(20):
        for j in range(20):
            distance = np.hypot(*(place[i] - place[j]))
            expected[i] += (
                colour[i, j] * (np.exp(-(distance**2) / (2 * 0.4**2)) if distance <= 1.2 else 0) * background[j]
            )
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    found = rbd.background_contrast(colour, place, background)
    kept = found > 0
    np.testing.assert_allclose(found[kept], expected[kept])
    assert 0 < kept.sum() < 20
    assert expected[kept].min() > expected[~kept].max()

    def between(cut):  # Otsu: the cut between two neighbours with the largest variance between classes
        low, high = expected[expected <= cut], expected[expected > cut]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0

    assert between(expected[~kept].max()) == pytest.approx(max(between(cut) for cut in expected), rel=0.02)


def loops_over_regions(lab, place, adjacent, border):
    """Return the RBD saliency of regions by loops over pairs, and their border connectivity."""
    count = len(lab)
    nodes = range(count)
    colour = [[float(np.linalg.norm(lab[i] - lab[j])) for j in nodes] for i in nodes]
    ring = [[any(adjacent[i, k] and adjacent[k, j] for k in nodes) for j in nodes] for i in nodes]
    m1 = np.mean([min(colour[i][j] for j in nodes if adjacent[i, j] and j != i) for i in nodes])
    m2 = np.mean([min(colour[i][j] for j in nodes if ring[i][j] and j != i) for i in nodes])
    links = sorted((colour[i][j] for i in nodes for j in nodes if adjacent[i, j] and j != i), reverse=True)
    top = np.mean(links[: max(1, round(0.01 * len(links)))])
    geo, nei = max(5, min(10, 3 * m1, top / 10)), min(3 * m1, 0.2 * top, 20)

    def weight(distance, sigma):
        return np.exp(-(distance**2) / (2 * sigma**2)) if distance <= 3 * sigma else 0.0

    clique = [[bool(border[i] and border[j]) for j in nodes] for i in nodes]
    path = np.array(
        [[max(1e-6, colour[i][j] - m2) if adjacent[i, j] or clique[i][j] else 0 for j in nodes] for i in nodes]
    )
    path = floyd_warshall(path)
    area = [sum(weight(path[i, j], geo) for j in nodes) for i in nodes]
    length = [sum(weight(path[i, j], geo) for j in nodes if border[j]) for i in nodes]
    connectivity = np.array(length) / np.sqrt(area)
    background = 1 - np.exp(-(connectivity**2) / 2)
    contrast = rbd.background_contrast(np.array(colour), place, background)  # has its own test above
    system = np.zeros((count, count))
    for i in nodes:
        system[i, i] += 5 * (1000 if connectivity[i] > 3 else background[i]) + contrast[i]
        for j in nodes:
            smooth = (weight(colour[i][j], nei) if ring[i][j] or clique[i][j] else 0) + 0.1 * adjacent[i, j]
            system[i, i] += smooth
            system[i, j] -= smooth
    result = np.linalg.solve(system, contrast)
    return (result - result.min()) / (result.max() - result.min()), connectivity


def test_saliency_of_regions_equals_loops_over_pairs():
    generator = np.random.default_rng(6)
    certain = 0
    for spread in (2.0, 8.0, 25.0):
        rows, columns = np.divmod(np.arange(48), 8)
        near = (abs(rows[:, None] - rows) <= 1) & (abs(columns[:, None] - columns) <= 1)
        border = (rows == 0) | (rows == 5) | (columns == 0) | (columns == 7)
        lab = generator.normal(50, spread, (48, 3))
        lab[(rows >= 2) & (rows <= 3) & (columns >= 3) & (columns <= 5)] += 20
        place = np.stack([(rows + 0.5) / 6, (columns + 0.5) / 8], axis=1)
        expected, connectivity = loops_over_regions(lab, place, near, border)
        certain += int((connectivity > 3).sum())
        found = rbd.region_saliency(Regions(np.zeros((1, 1), np.int32), lab, place, near, border))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert certain


def test_a_single_region_is_not_salient():
    one = Regions(
        np.zeros((4, 4), np.int32), np.zeros((1, 3)), np.full((1, 2), 0.5), np.ones((1, 1), bool), np.ones(1, bool)
    )
    assert rbd.region_saliency(one).tolist() == [0]
