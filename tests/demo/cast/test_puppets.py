"""Oracles: closed forms of matrices, areas and boxes."""

import numpy as np
import pytest

from previts.demo.cast.puppets import Part, affine, build_puppet, draw, joints


def test_a_joint_moves_with_its_rotated_parent():
    outline = np.array([(0, 0), (1, 0), (1, 1)])
    parts = [
        Part("hand", outline, ((0, 0, 0),), parent="arm", joint=(0, 2)),
        Part("arm", outline, ((0, 0, 0),), rest=np.pi / 2),
    ]
    hand, arm = joints(parts, 0.0)
    np.testing.assert_allclose(hand @ (0, 0, 1), (-2, 0, 1), atol=1e-12)  # a quarter turn maps +y to -x
    np.testing.assert_allclose(arm, affine(0, 0, np.pi / 2), atol=1e-12)
    with pytest.raises(ValueError, match="nobody"):
        joints([Part("arm", outline, ((0, 0, 0),), parent="nobody")], 0.0)


def test_an_affine_matrix_scales_then_rotates_then_moves():
    moved = affine(5, 7, np.pi / 2, 2, 3) @ (1, 1, 1)
    np.testing.assert_allclose(moved, (5 - 3, 7 + 2, 1))  # (2, 3) rotated by a quarter turn is (-3, 2)


def test_swing_spin_and_flap_follow_the_gait_phase():
    outline = np.array([(0, 0), (1, 0), (1, 1)])
    swinging = Part("a", outline, ((0, 0, 0),), swing=(0.4, 1, 0.0))
    spinning = Part("b", outline, ((0, 0, 0),), spin=0.5)
    folding = Part("c", outline, ((0, 0, 0),), flap=0.8)
    np.testing.assert_allclose(joints([swinging], 0.25)[0], affine(0, 0, 0.4), atol=1e-12)
    np.testing.assert_allclose(joints([spinning], 0.5)[0], affine(0, 0, np.pi / 2), atol=1e-12)
    np.testing.assert_allclose(joints([folding], 0.25)[0], affine(0, 0, 0, 1, 0.2), atol=1e-12)


def test_area_and_box_of_a_puppet_are_those_of_its_parts():
    square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], float)
    parts = [Part("body", square, ((9, 9, 9),)), Part("head", square, ((9, 9, 9),), parent="body", joint=(0.5, -1.0))]
    puppet = build_puppet(parts, 40, np.random.default_rng(0))
    assert puppet.box == (0, -1, 1.5, 1)
    assert puppet.area == pytest.approx(2, rel=0.05)


def test_a_drawn_puppet_covers_its_area_in_pixels_also_outside_the_layer():
    square = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    puppet = build_puppet([Part("body", square, ((9, 9, 9),))], 60, np.random.default_rng(0))
    for x, expected in ((50, 900), (100, 450), (200, 0)):  # inside, half outside, outside
        layer = np.zeros((80, 100, 4), np.float32)
        draw(layer, puppet, affine(x, 40, 0.3, 30, 30), 0.0)
        assert layer[..., 3].sum() == pytest.approx(expected, rel=0.05)
