"""Oracles: bounds on the steps of each action, and closed forms at the start and the end of a video."""

import numpy as np
import pytest

from previts.demo.cast.motion import ACTIONS, Camera, Motion, Pose


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_moves_smoothly_within_the_frame(action):
    motion = Motion(action, (0.5, 0.5), (0.2, 0.15), 5.0)
    poses = [motion.pose(time) for time in np.arange(0, 5, 1 / 25)]
    places = np.array([(pose.x, pose.y) for pose in poses])
    assert (places > 0.2).all()
    assert (places < 0.8).all()
    assert np.abs(np.diff(places, axis=0)).max() < 0.05  # of the frame, in a 25th of a second
    state = np.array([(pose.x, pose.y, pose.scale, pose.angle, pose.squash) for pose in poses])
    assert np.ptp(state, axis=0).max() > 0.1


def test_a_visitor_leaves_to_the_side_of_its_direction_and_comes_in_from_the_other():
    still = Motion("pulse", (0.5, 0.5), (0.0, 0.0), 4.0)
    leaving = Motion("pulse", (0.5, 0.5), (0.0, 0.0), 4.0, direction=-1, visit="leaves")
    arriving = Motion("pulse", (0.5, 0.5), (0.0, 0.0), 4.0, direction=-1, visit="arrives")
    assert leaving.pose(0.0).x == arriving.pose(4.0).x == still.pose(0.0).x == 0.5
    assert leaving.pose(0.7 * 4).x == pytest.approx(0.5 - 1.1)
    assert arriving.pose(0.0).x == pytest.approx(0.5 + 1.2)


def test_growth_scales_the_object_most_in_the_middle():
    still, growing = (Motion("walk", (0.5, 0.5), (0.1, 0.1), 4.0, growth=growth) for growth in (0.0, 0.2))
    ratios = [growing.pose(time).scale / still.pose(time).scale for time in (0.0, 2.0, 4.0)]
    np.testing.assert_allclose(ratios, [1, 1.2, 1])


def test_a_camera_without_settings_does_not_move():
    for share in (0.0, 0.4, 1.0):
        assert Camera().view(share, Pose(0.9, 0.1), (0.5, 0.5)) == (0, 0, 1, 0)


def test_a_camera_drifts_by_its_drift_and_follows_its_share_of_the_object():
    camera = Camera(drift=(0.3, -0.1), follow=0.5)
    start, end = (camera.view(share, Pose(0.5, 0.5), (0.5, 0.5)) for share in (0.0, 1.0))
    np.testing.assert_allclose(np.subtract(end, start)[:2], (0.3, -0.1))
    assert camera.view(0.0, Pose(0.7, 0.5), (0.5, 0.5))[0] - start[0] == pytest.approx(0.1)
