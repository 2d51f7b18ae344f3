"""SORT as published (Bewley et al. 2016), with `motion="drift"`.

Oracle: the formulas of the paper in plain matrices, with the noise and the rules of its authors' release for what the
paper leaves open. It shares no code with the tracker.

The state is [u, v, s, r, u', v', s']: centre, area, width / height, and velocities. Detections and predicted boxes are
assigned with the largest sum of IoU, and a pair below the least IoU is no match. A track ends after more than `max_age`
steps without a match. It is reported while it is matched, from `min_hits` matches in a row on; in the first `min_hits`
steps of the video, every matched or new track is reported.
"""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from previts.config.perception import TrackConfig
from previts.tracking import target
from previts.tracking.sort import Sort, box_iou

F = np.array(
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
H = F[:4] * (np.arange(7) < 4)
R = np.diag([1.0, 1, 10, 10])
Q = np.diag([1, 1, 1, 1, 1e-2, 1e-2, 1e-4])


def observed(box):
    left, top, right, bottom = box
    return np.array(
        [(left + right) / 2, (top + bottom) / 2, (right - left) * (bottom - top), (right - left) / (bottom - top)]
    )


def box_of(x):
    width = np.sqrt(x[2] * x[3])
    height = np.sqrt(x[2] / x[3])
    return [x[0] - width / 2, x[1] - height / 2, x[0] + width / 2, x[1] + height / 2]


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def published(frames, least, max_age, min_hits):
    """Yield the reported tracks of each frame: boxes by number."""
    tracks, started = [], 0
    for frame, detections in enumerate(frames, start=1):
        for track in tracks:
            if track["x"][2] + track["x"][6] <= 0:
                track["x"][6] = 0
            track["x"], track["P"] = F @ track["x"], F @ track["P"] @ F.T + Q
            track["streak"] = 0 if track["missed"] else track["streak"]
            track["missed"] += 1
        ious = np.array([[overlap(box_of(track["x"]), box) for box in detections] for track in tracks])
        pairs = []
        if ious.size:
            good = [(int(i), int(j)) for i, j in np.argwhere(ious >= least)]
            one_to_one = good and len({i for i, _ in good}) == len({j for _, j in good}) == len(good)
            best = good if one_to_one else zip(*linear_sum_assignment(-ious), strict=True)
            pairs = [(i, j) for i, j in best if ious[i, j] >= least]
        for i, j in pairs:
            track = tracks[i]
            gain = track["P"] @ H.T @ np.linalg.inv(H @ track["P"] @ H.T + R)
            track["x"] = track["x"] + gain @ (observed(detections[j]) - H @ track["x"])
            track["P"] = (np.eye(7) - gain @ H) @ track["P"]
            track["missed"], track["streak"] = 0, track["streak"] + 1
        for j in sorted(set(range(len(detections))) - {j for _, j in pairs}):
            x = np.concatenate([observed(detections[j]), np.zeros(3)])
            uncertain = np.diag([10.0, 10, 10, 10, 1e4, 1e4, 1e4])
            tracks.append({"number": started, "x": x, "P": uncertain, "missed": 0, "streak": 0})
            started += 1
        tracks = [track for track in tracks if track["missed"] <= max_age]
        yield {
            track["number"]: box_of(track["x"])
            for track in tracks
            if not track["missed"] and (track["streak"] >= min_hits or frame <= min_hits)
        }


def street(seed, count, frames):
    """Detections of `count` objects that cross each other: 8 % are missed, a tenth of the frames has a false one."""
    generator = np.random.default_rng(seed)
    centre = generator.uniform(0, 400, size=(count, 2))
    velocity = generator.normal(0, 4, size=(count, 2))
    side = generator.uniform(20, 60, size=(count, 2))
    for _ in range(frames):
        centre = centre + velocity
        velocity = np.where((centre < 0) | (centre > 400), -velocity, velocity) + generator.normal(0, 0.3, (count, 2))
        noisy = centre + generator.normal(0, 1.5, (count, 2))
        sizes = side * np.exp(generator.normal(0, 0.03, (count, 2)))
        boxes = np.hstack([noisy - sizes / 2, noisy + sizes / 2])[generator.random(count) > 0.08]
        if generator.random() < 0.1:
            corner = generator.uniform(0, 400, 2)
            boxes = np.vstack([boxes, np.hstack([corner, corner + generator.uniform(10, 50, 2)])])
        yield generator.permutation(boxes)


@pytest.mark.parametrize(
    ("seed", "count", "frames", "max_age", "min_hits"),
    [(0, 20, 500, 1, 3), (1, 10, 120, 4, 2), (2, 30, 60, 0, 0)],
    ids=["as published", "patient", "impatient"],
)
def test_numbers_and_boxes_equal_the_published_tracker(seed, count, frames, max_age, min_hits):
    sort = Sort(0.3, max_age, min_hits=min_hits, motion="drift")
    detections = list(street(seed, count, frames))
    ended, drifted = set(), 0
    for number, (boxes, expected) in enumerate(
        zip(detections, published(detections, 0.3, max_age, min_hits), strict=True)
    ):
        sort.update(boxes, box_iou(sort.predict(), boxes))
        found = {track.number: track.box_4 for track in sort.established()}
        assert found.keys() == expected.keys(), number
        for identifier, box in found.items():
            np.testing.assert_allclose(box, expected[identifier], rtol=1e-6, atol=1e-6, err_msg=f"{number}")
        drifted += sum(track.missed > 1 for track in sort.tracks)
        ended |= expected.keys()
    assert len(ended) > 2 * count or max_age > 1  # tracks end and start again
    assert drifted > 0 or max_age < 2


def test_a_waiting_track_is_not_the_published_tracker():
    detections = list(street(1, 10, 120))
    numbers = {}
    for motion in ("wait", "drift"):
        sort = Sort(0.3, 4, motion=motion)
        numbers[motion] = [sort.update(boxes, box_iou(sort.predict(), boxes)) for boxes in detections]
    assert numbers["wait"] != numbers["drift"]


def drawn(boxes):
    masks = []
    for left, top, right, bottom in np.asarray(boxes, dtype=int).tolist():
        mask = np.zeros((200, 300), dtype=np.bool_)
        mask[top:bottom, left:right] = True
        masks.append(mask)
    return np.array(masks).reshape(-1, 200, 300)


def test_the_tube_of_the_object_has_the_steps_that_the_published_tracker_reports():
    # The largest object of the first key frame crosses two others, and is missed in a few key frames.
    frames = []
    for step in range(40):
        objects = [
            [10 + 5 * step, 60, 70 + 5 * step, 120],
            [200 - 3 * step, 70, 240 - 3 * step, 110],
            [90, 20, 120, 50],
        ]
        frames.append([box for number, box in enumerate(objects) if (step, number) not in {(9, 0), (15, 0), (16, 1)}])
    config = TrackConfig(iou_threshold=0.3, max_age=1, min_hits=3, min_area=0.0, motion="drift")
    reported = [set(boxes) for boxes in published([np.array(boxes, float) for boxes in frames], 0.3, 1, 3)]
    shown = [mask.any() for mask in target.follow([drawn(boxes) for boxes in frames], config)]
    assert shown == [0 in found for found in reported]
    assert shown[:9] == [True] * 9  # the exception for the first frames
    assert shown[9:12] == [False] * 3
    assert shown[12]  # with the third match in a row, it is reported again
