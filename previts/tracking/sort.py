"""SORT: Simple Online and Realtime Tracking (Bewley et al. 2016), with Kalman filters of boxes and optimal assignment.

PreViTS section 3.2 follows the salient object with SORT. This file contains the filter, the assignment, and the start
and end of tracks. `target.py` decides which track is the object and keeps its pixels.

With `motion="drift"`, an IoU of 0.3, a `max_age` of 1 and 3 `min_hits`, this is the published tracker. Two things are
added for salient regions: tracks without a match can wait, and the caller can name tracks that are matched first.

Shape suffixes: N tracks, M detections, 4 box xyxy in pixels.
"""

import itertools
from collections.abc import Collection
from typing import Literal

import numpy as np
import numpy.typing as npt
from filterpy.kalman import KalmanFilter
from scipy.optimize import linear_sum_assignment

Array = npt.NDArray[np.float64]
Motion = Literal["wait", "drift"]  # of a track without a match: it stays at its last match, or moves on as in SORT

# State [cx, cy, s, r, vcx, vcy, vs]: centre, area, width / height (constant), and velocities of centre and area.
TRANSITION = np.eye(7) + np.eye(7, k=4)
MEASUREMENT = np.eye(4, 7)
MEASUREMENT_NOISE = np.diag([1.0, 1.0, 10.0, 10.0])
INITIAL_COVARIANCE = np.diag([10.0, 10.0, 10.0, 10.0, 1e4, 1e4, 1e4])
PROCESS_NOISE = np.diag([1.0, 1.0, 1.0, 1.0, 1e-2, 1e-2, 1e-4])


def box_to_measurement(box_4: Array) -> Array:
    """Return [cx, cy, area, width / height] of a box."""
    width, height = box_4[2] - box_4[0], box_4[3] - box_4[1]
    return np.array([box_4[0] + width / 2, box_4[1] + height / 2, width * height, width / height])


def state_to_box(state_7: Array) -> Array:
    """Return the box of a filter state: w = sqrt(s r), h = s / w. It may be outside of the frame."""
    width = np.sqrt(max(float(state_7[2] * state_7[3]), 1e-12))
    height = state_7[2] / width
    return np.array(
        [state_7[0] - width / 2, state_7[1] - height / 2, state_7[0] + width / 2, state_7[1] + height / 2],
        dtype=np.float64,
    )


def box_iou(one_N4: Array, other_M4: Array) -> Array:
    """Return the intersection over union of each pair of boxes, shape (N, M); 0 if both have no area."""
    top_left = np.maximum(one_N4[:, None, :2], other_M4[None, :, :2])
    bottom_right = np.minimum(one_N4[:, None, 2:], other_M4[None, :, 2:])
    shared = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
    areas_N, areas_M = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one_N4, other_M4))
    union = areas_N[:, None] + areas_M[None, :] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0))


def assign(overlap_NM: Array, threshold: float) -> list[tuple[int, int]]:
    """Return the pairs (track, detection) with the largest sum of overlaps, without pairs below `threshold`.

    As in SORT, the threshold is applied after the assignment, unless the pairs that reach it are one-to-one.
    """
    if 0 in overlap_NM.shape:
        return []
    enough = overlap_NM >= threshold
    if enough.any() and enough.sum(axis=0).max() == 1 and enough.sum(axis=1).max() == 1:
        rows, columns = np.nonzero(enough)
    else:
        rows, columns = linear_sum_assignment(overlap_NM, maximize=True)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if enough[row, column]]


class Track:
    """Track of one object: its filter, the number of steps since its last match, and of matches in a row until then.

    The detection that starts a track is not counted as a match.
    """

    def __init__(self, number: int, box_4: Array, motion: Motion = "wait") -> None:
        self.number = number
        self.motion = motion
        self.missed = self.streak = 0
        self.filter = KalmanFilter(dim_x=7, dim_z=4)
        self.filter.F, self.filter.H = TRANSITION, MEASUREMENT
        self.filter.R, self.filter.Q = MEASUREMENT_NOISE, PROCESS_NOISE
        self.filter.P = INITIAL_COVARIANCE.copy()
        self.filter.x[:4, 0] = box_to_measurement(box_4)
        self._matched = self.filter.x[:4].copy()  # the state at the last match, without velocities

    @property
    def box_4(self) -> Array:
        """The filtered box."""
        return state_to_box(self.filter.x[:, 0])

    def predict(self) -> Array:
        """Predict the next step and return its expected box.

        SORT moves an unmatched track at its last velocity ("drift"). Salient regions flicker, so their velocities are
        noisy. On 35 real videos more objects were matched again when the track waited at its last matched position.
        """
        if self.missed:
            self.streak = 0
        if self.missed and self.motion == "wait":
            self.filter.x[:4] = self._matched
            self.filter.x[4:] = 0.0
        if self.filter.x[2, 0] + self.filter.x[6, 0] <= 0:  # an area cannot become negative
            self.filter.x[6, 0] = 0.0
        self.filter.predict()
        self.missed += 1
        return self.box_4

    def update(self, box_4: Array) -> None:
        """Correct the filter by the detected box of this step."""
        self.filter.update(box_to_measurement(box_4))
        self._matched = self.filter.x[:4].copy()
        self.missed = 0
        self.streak += 1


class Sort:
    """Tracks of one video. In each step call `predict`, compute an overlap matrix, and call `update`.

    Args:
        iou_threshold: Least overlap of a match.
        max_age: Successive steps without a match after which a track still continues; one more ends it.
        min_hits: Matches in a row after which a track is established, see `established`.
        motion: How a track without a match moves.
    """

    def __init__(self, iou_threshold: float, max_age: int, *, min_hits: int = 0, motion: Motion = "wait") -> None:
        self.iou_threshold = iou_threshold
        self.max_age = max_age
        self.min_hits = min_hits
        self.motion = motion
        self.tracks: list[Track] = []
        self.steps = 0
        self._numbers = itertools.count()

    def predict(self) -> Array:
        """Predict the next step of each track and return the expected boxes (N, 4) in the order of `tracks`."""
        return np.array([track.predict() for track in self.tracks], dtype=np.float64).reshape(-1, 4)

    def update(self, boxes_M4: Array, overlap_NM: Array, preferred: Collection[int] = ()) -> list[int]:
        """Match detections to tracks, start a track for each unmatched detection, and end tracks without matches.

        Call it for steps without detections too.

        Args:
            boxes_M4: Boxes of the detections.
            overlap_NM: Overlap of each track, in the order of `tracks`, with each detection.
            preferred: Numbers of tracks that are matched first; the other tracks are matched to the remaining
                detections.

        Returns:
            Number of the track of each detection. A number is never used for a second track.

        Raises:
            ValueError: If the matrix has another shape.
        """
        if overlap_NM.shape != (len(self.tracks), len(boxes_M4)):
            raise ValueError(
                f"expected {len(self.tracks)} tracks x {len(boxes_M4)} detections, got {overlap_NM.shape = }"
            )
        self.steps += 1
        numbers = [-1] * len(boxes_M4)
        first = np.array([track.number in preferred for track in self.tracks], dtype=np.bool_)
        for group in (np.flatnonzero(first), np.flatnonzero(~first)):
            free = np.flatnonzero(np.array(numbers) < 0)
            for row, place in assign(overlap_NM[np.ix_(group, free)], self.iou_threshold):
                track = self.tracks[group[row]]
                track.update(boxes_M4[free[place]])
                numbers[free[place]] = track.number
        for column, number in enumerate(numbers):
            if number < 0:
                self.tracks.append(Track(next(self._numbers), boxes_M4[column], self.motion))
                numbers[column] = self.tracks[-1].number
        self.tracks = [track for track in self.tracks if track.missed <= self.max_age]
        return numbers

    def established(self) -> list[Track]:
        """Return the tracks that SORT reports in this step, in the order of their start.

        They have a detection in this step. It must be the last of `min_hits` matches in a row, except in the first
        `min_hits` steps of the video.
        """
        early = self.steps <= self.min_hits
        return [track for track in self.tracks if not track.missed and (early or track.streak >= self.min_hits)]
