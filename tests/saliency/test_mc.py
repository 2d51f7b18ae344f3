"""MC. Oracles: simulated random walks, the explicit chain iterated to absorption, closed forms, loops."""

import numpy as np
import pytest

from previts.saliency import mc
from previts.saliency.superpixels import describe_regions, pairwise_distance

pytestmark = pytest.mark.filterwarnings("error")


def random_chain(generator, count):
    """Return symmetric weights of a connected graph with self-links, and its border nodes."""
    weight = generator.random((count, count)) * (generator.random((count, count)) < 0.4)
    weight = weight + weight.T + 0.2 * (np.eye(count, k=1) + np.eye(count, k=-1))
    np.fill_diagonal(weight, 1)
    border = np.arange(count) % 3 == 0
    return weight, border


def explicit_chain(weight, border):
    """Return the transition matrix of all nodes and one absorbing copy of each border node."""
    count, ends = len(weight), np.flatnonzero(border)
    step = np.zeros((count + len(ends), count + len(ends)))
    step[:count, :count] = weight
    step[:count, count:] = weight[:, ends]
    step[count:, count:] = np.eye(len(ends))
    return step / step.sum(axis=1, keepdims=True)


def test_absorbed_time_equals_that_of_the_explicit_chain():
    generator = np.random.default_rng(0)
    for count in (1, 2, 7, 40):
        weight, border = random_chain(generator, count)
        step = explicit_chain(weight, border)
        for cost in (np.ones(count), generator.random(count) + 0.1):
            state, expected = np.eye(len(step)), np.zeros(count)
            while state[:, :count].sum() > 1e-13:
                expected += (state[:, :count] @ cost)[:count]
                state = state @ step
            np.testing.assert_allclose(mc.absorbed_time(weight, border, cost), expected, rtol=1e-9)


def test_absorbed_time_is_the_mean_length_of_random_walks():
    generator = np.random.default_rng(1)
    weight, border = random_chain(generator, 6)
    cumulative = explicit_chain(weight, border).cumsum(axis=1)
    found = mc.absorbed_time(weight, border, np.ones(6))
    for start in (1, 4):
        place, steps = np.full(20_000, start), np.zeros(20_000)
        while (place < 6).any():
            steps += place < 6
            place = (generator.random(20_000)[:, None] > cumulative[place]).sum(axis=1).clip(max=len(cumulative) - 1)
        assert found[start] == pytest.approx(steps.mean(), abs=5 * steps.std() / np.sqrt(20_000))


def test_absorbed_time_on_a_line_has_its_closed_form():
    # On a line the times of a fair walk have a second difference of -2. An end has one neighbour. The neighbour of an
    # end has three: both sides and the copy of the end.
    weight = np.eye(9, k=1) + np.eye(9, k=-1)
    time = mc.absorbed_time(weight, np.arange(9) % 8 == 0, np.ones(9))
    np.testing.assert_allclose(np.diff(time[1:-1], n=2), -2)
    np.testing.assert_allclose(time[0], 1 + time[1])
    np.testing.assert_allclose(time[1], 1 + time[0] / 3 + time[2] / 3)
    np.testing.assert_allclose(time, time[::-1])


def test_links_reach_two_steps_and_across_the_image():
    labels = np.arange(35).reshape(5, 7).astype(np.int32)
    regions = describe_regions(np.zeros((5, 7, 3), np.float32), labels, 1)
    found = mc.links(regions.adjacent, labels)
    for one in range(35):
        for other in range(35):
            expected = False
            for middle in range(35):
                expected |= near(one, middle) and near(middle, other)
            assert found[one, other] == expected


def near(one, other):
    """Return whether two cells of the 5 x 7 grid touch, or are opposite each other at its border."""
    (row, column), (down, right) = divmod(one, 7), divmod(other, 7)
    touch = abs(row - down) <= 1 and abs(column - right) <= 1
    across = (column == right and {row, down} == {0, 4}) or (row == down and {column, right} == {0, 6})
    return touch or across


def test_link_weights_fall_with_the_scaled_colour_distance():
    generator = np.random.default_rng(2)
    colour = pairwise_distance(generator.random((12, 3)) * 60)
    linked = generator.random((12, 12)) < 0.5
    linked = linked | linked.T | np.eye(12, dtype=bool)
    pairs = [(i, j) for i in range(12) for j in range(12) if linked[i, j] and i != j]
    low, high = min(colour[p] for p in pairs), max(colour[p] for p in pairs)
    expected = np.eye(12)
    for i, j in pairs:
        expected[i, j] = np.exp(-10 * (colour[i, j] - low) / (high - low)) + 1e-5
    np.testing.assert_allclose(mc.link_weights(colour, linked), expected)


def test_spread_is_one_at_the_ends_and_five_in_the_middle():
    assert mc.spread(np.array([0.0, 0.05, 1.0, 0.99])) == 1
    assert mc.spread(np.array([0.45, 0.55])) == 5
    assert mc.spread(np.array([0.0, 0.15, 0.75])) == pytest.approx((1 + 2 + 3) / 3)


def test_times_with_a_large_spread_are_weighted_by_the_equilibrium():
    generator = np.random.default_rng(3)
    weighted = 0
    for count in (8, 20, 30):
        weight, border = random_chain(generator, count)
        step = explicit_chain(weight, border)[:count, :count]
        visits = np.linalg.inv(np.eye(count) - step)
        time = visits.sum(axis=1)
        time = (time - time.min()) / (time.max() - time.min())
        score = sum(
            min(b, 11 - b) * ((time >= (b - 1) / 10) & ((time < b / 10) | (b == 10))).mean() for b in range(1, 11)
        )
        if score >= 2:
            weighted += 1
            # The equilibrium of the chain without absorbing copies: left eigenvector of its step.
            values, vectors = np.linalg.eig((weight / weight.sum(axis=1, keepdims=True)).T)
            equilibrium = np.abs(np.real(vectors[:, np.argmax(np.real(values))]))
            time = visits @ (1 / equilibrium)
            time = (time - time.min()) / (time.max() - time.min())
        np.testing.assert_allclose(mc.walk_saliency(weight, border), time, atol=1e-8)
    assert weighted


def grid_of_colours(lightness):
    """Return regions of one pixel each."""
    labels = np.arange(lightness.size).reshape(lightness.shape).astype(np.int32)
    lab = np.stack([lightness, 0 * lightness, 0 * lightness], axis=2).astype(np.float32)
    return describe_regions(lab, labels, 1)


def test_an_outlier_is_salient_if_a_neighbour_is():
    lightness = np.random.default_rng(4).random((9, 12)) * 2
    lightness[3:6, 4:8] += 40  # the object
    lightness[4, 6] = 100  # unlike all others, inside the object
    lightness[1, 10] = 100  # unlike all others, on the background
    regions = grid_of_colours(lightness)
    weight = mc.link_weights(pairwise_distance(regions.lab), mc.links(regions.adjacent, regions.labels))
    border = np.zeros((9, 12), bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    kept = mc.kept_nodes(weight, weight > 0, border.ravel())
    assert np.flatnonzero(~kept).tolist() == [1 * 12 + 10, 4 * 12 + 6]
    saliency = mc.region_saliency(regions).reshape(9, 12)
    assert saliency[4, 6] == 1
    assert saliency[1, 10] == 0
    assert saliency[3:6, 4:8].min() > 0.5
    assert saliency[:, :3].max() < 0.3


def test_a_frame_of_another_colour_is_removed_and_the_next_ring_absorbs():
    lightness = np.random.default_rng(5).random((9, 12)) * 2
    lightness[3:6, 4:8] += 30
    framed = np.pad(lightness, 1, constant_values=90)
    inner = mc.region_saliency(grid_of_colours(lightness)).reshape(9, 12)
    whole = mc.region_saliency(grid_of_colours(framed)).reshape(11, 14)
    assert whole[[0, -1]].max() == whole[:, [0, -1]].max() == 0
    assert whole[4:7, 5:9].min() > 0.7
    assert whole[1:-1, 1:4].max() < 0.3
    assert np.corrcoef(inner.ravel(), whole[1:-1, 1:-1].ravel())[0, 1] > 0.99
    # A border of the same colour as its inside is no frame. Neither is a border without an inside.
    regions = grid_of_colours(lightness)
    linked = mc.links(regions.adjacent, regions.labels)
    weight = mc.link_weights(pairwise_distance(regions.lab), linked)
    for border in (regions.border, np.ones(108, bool)):
        inside, absorbing = mc.without_frame(weight, linked, regions.adjacent, border)
        assert inside.all()
        np.testing.assert_array_equal(absorbing, border)


def test_no_node_is_excluded_if_all_would_be_or_walks_would_not_end():
    apart = np.eye(4)
    assert mc.kept_nodes(apart, np.ones((4, 4), bool), np.array([True, False, False, False])).all()
    # 0 - 1 - 2 - 3 with node 1 alone in its colour: without it 2 and 3 reach no border.
    weight = np.eye(4)
    weight[2, 3] = weight[3, 2] = 1
    linked = np.eye(4, dtype=bool) | np.eye(4, k=1, dtype=bool) | np.eye(4, k=-1, dtype=bool)
    weight[0, 0] = 2  # not an outlier
    assert mc.kept_nodes(weight, linked, np.array([True, False, False, False])).all()
    assert mc.region_saliency(grid_of_colours(np.zeros((1, 1)))).tolist() == [0]
