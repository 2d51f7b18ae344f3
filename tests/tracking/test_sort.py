"""SORT. Oracles: the Kalman recursion in explicit matrices, brute force over permutations, sets of pixels."""

import itertools

import numpy as np
import pytest

from previts.tracking.sort import Sort, Track, assign, box_iou, box_to_measurement, state_to_box


def random_boxes(generator, count, extent=40):
    corner = generator.integers(0, extent, size=(count, 2))
    return np.concatenate([corner, corner + generator.integers(1, 20, size=(count, 2))], axis=1).astype(float)


def test_filter_equals_the_kalman_recursion_with_the_constants_of_sort():
    transition = np.array(
        [
            [1, 0, 0, 0, 1, 0, 0],
            [0, 1, 0, 0, 0, 1, 0],
            [0, 0, 1, 0, 0, 0, 1],
            [0, 0, 0, 1, 0, 0, 0],
            [0, 0, 0, 0, 1, 0, 0],
            [0, 0, 0, 0, 0, 1, 0],
            [0, 0, 0, 0, 0, 0, 1],
        ],
        dtype=float,
    )
    observe = np.hstack([np.eye(4), np.zeros((4, 3))])
    noise, process = np.diag([1.0, 1, 10, 10]), np.diag([1.0, 1, 1, 1, 0.01, 0.01, 0.0001])
    generator = np.random.default_rng(0)
    boxes = np.array([10.0, 20, 30, 60]) + np.cumsum(generator.normal(1, 2, size=(12, 4)), axis=0)
    track = Track(0, boxes[0])
    state, covariance = np.zeros(7), np.diag([10.0, 10, 10, 10, 10000, 10000, 10000])
    state[:4] = box_to_measurement(boxes[0])
    for box in boxes[1:]:
        expected = track.predict()
        state, covariance = transition @ state, transition @ covariance @ transition.T + process
        np.testing.assert_allclose(expected, state_to_box(state), rtol=1e-9)
        track.update(box)
        gain = covariance @ observe.T @ np.linalg.inv(observe @ covariance @ observe.T + noise)
        state = state + gain @ (box_to_measurement(box) - observe @ state)
        covariance = (np.eye(7) - gain @ observe) @ covariance
        np.testing.assert_allclose(track.filter.x[:, 0], state, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(track.filter.P, covariance, rtol=1e-6, atol=1e-6)


def test_an_unmatched_track_moves_once_and_then_waits_at_its_last_match():
    track = Track(0, np.array([0.0, 0, 20, 20]))
    for left in (4.0, 8, 12, 16):
        track.predict()
        track.update(np.array([left, 0, left + 20, 20]))
    last = track.box_4
    assert track.predict()[0] > last[0] + 3  # one step at its velocity
    for step in range(2, 6):
        np.testing.assert_allclose(track.predict(), last)  # then it waits
        assert track.missed == step
    # The more steps without a match, the less weight the filter gives to the old position.
    far = np.array([60.0, 0, 80, 20])
    track.update(far)
    np.testing.assert_allclose(track.box_4, far, atol=3)


def test_preferred_tracks_are_matched_first_and_the_others_to_the_rest():
    boxes = np.array([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    overlap = np.array([[0.2, 0.3, 0.0], [0.0, 0.9, 0.0], [0.5, 0.8, 0.1]])
    for preferred, expected in (((), [2, 1]), ((0,), [2, 0]), ((0, 1), [0, 1]), ((0, 2), [0, 2]), ((5,), [2, 1])):
        sort = Sort(0.1, 3)
        assert sort.update(boxes, np.zeros((0, 3))) == [0, 1, 2]
        found = sort.update(boxes, overlap, preferred=preferred)
        assert found[:2] == expected, preferred
        # The third detection is matched to track 2 if no better one is left for it. Otherwise it starts a new track.
        assert found[2] == (2 if 2 not in expected else 3), preferred


def test_box_and_state_are_inverse_functions():
    for box in random_boxes(np.random.default_rng(1), 50):
        np.testing.assert_allclose(state_to_box(np.append(box_to_measurement(box), [0, 0, 0])), box)


def test_an_area_never_becomes_negative():
    track = Track(0, np.array([0.0, 0, 10, 10]))
    track.filter.x[6, 0] = -150.0
    assert track.predict()[2:].tolist() == [10, 10]
    assert track.filter.x[6, 0] == 0
    for _ in range(50):
        assert np.isfinite(track.predict()).all()


def test_box_iou_counts_pixels():
    generator = np.random.default_rng(2)
    one, other = random_boxes(generator, 12), random_boxes(generator, 9)

    def pixels(box):
        return set(itertools.product(range(int(box[0]), int(box[2])), range(int(box[1]), int(box[3]))))

    expected = [[len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b)) for b in other] for a in one]
    np.testing.assert_allclose(box_iou(one, other), expected)
    assert box_iou(np.zeros((0, 4)), other).shape == (0, 9)
    assert box_iou(np.zeros((1, 4)), np.zeros((1, 4))).tolist() == [[0.0]]


def brute_force(overlap):
    """Return the largest summed overlap of any assignment."""
    rows, columns = overlap.shape
    if rows > columns:
        return brute_force(overlap.T)
    return max(
        sum(overlap[row, chosen] for row, chosen in enumerate(order))
        for order in itertools.permutations(range(columns), rows)
    )


def test_assignment_is_the_best_of_all_permutations():
    generator = np.random.default_rng(3)
    for _ in range(200):
        overlap = generator.random(generator.integers(1, 6, size=2))
        pairs = assign(overlap, 0.0)
        assert sum(overlap[pair] for pair in pairs) == pytest.approx(brute_force(overlap))
        assert (
            len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs) == min(overlap.shape)
        )


def test_pairs_below_the_threshold_are_dropped():
    generator = np.random.default_rng(4)
    for _ in range(200):
        overlap = generator.random(generator.integers(0, 6, size=2))
        threshold = generator.random()
        pairs = assign(overlap, threshold)
        assert all(overlap[pair] >= threshold for pair in pairs)
    assert assign(np.array([[0.3]]), 0.3) == [(0, 0)]
    # One pair reaches the threshold, so it is taken, although the largest sum has the pairs 0-1 and 1-0 (1.13 > 1.0).
    assert assign(np.array([[0.6, 0.59], [0.54, 0.4]]), 0.6) == [(0, 0)]


def step(sort, boxes):
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    return sort.update(boxes, box_iou(sort.predict(), boxes))


def test_each_object_keeps_its_number_in_any_order_of_detections():
    sort = Sort(0.3, 1)
    generator = np.random.default_rng(5)
    starts = [np.array([x, 10.0, x + 20, 50]) for x in (0, 60, 120)]
    numbers = {}
    for frame in range(20):
        order = generator.permutation(3)
        found = step(sort, [starts[i] + frame * np.array([2, 1, 2, 1]) for i in order])
        for i, number in zip(order, found, strict=True):
            assert numbers.setdefault(i, number) == number
    assert len(set(numbers.values())) == 3


def test_velocity_keeps_a_match_that_a_box_at_rest_would_lose():
    # A box of 20 moves 14 pixels a frame. Successive boxes have an IoU of 6 / 34 < 0.3, so a match needs the velocity.
    boxes = [np.array([x, 0, x + 20, 20]) for x in (0, 8, 18, 30, 44, 58, 72, 86)]
    assert box_iou(boxes[-2][None], boxes[-1][None])[0, 0] < 0.3
    sort = Sort(0.3, 1)
    assert {step(sort, [box])[0] for box in boxes} == {0}


@pytest.mark.parametrize("max_age", [0, 1, 3])
def test_a_track_survives_max_age_misses_and_not_one_more(max_age):
    here = [[10, 10, 40, 40]]
    for misses, same in ((max_age, True), (max_age + 1, False)):
        sort = Sort(0.3, max_age)
        for _ in range(4):
            assert step(sort, here) == [0]
        for _ in range(misses):
            assert step(sort, []) == []
        assert (step(sort, here) == [0]) == same
        assert len(sort.tracks) == 1


def test_a_matrix_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="expected 0 tracks x 1 detections"):
        Sort(0.3, 1).update(np.array([[0.0, 0, 1, 1]]), np.zeros((1, 1)))
