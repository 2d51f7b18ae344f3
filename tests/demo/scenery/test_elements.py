"""Oracles: linear interpolation, and counted pixels."""

import numpy as np
import pytest

from previts.demo.scenery import elements


def test_a_gradient_interpolates_its_stops_along_the_rows():
    image = elements.gradient(5, 3, [(0, (0, 100, 200)), (0.5, (100, 100, 0)), (1, (100, 0, 0))])
    np.testing.assert_allclose(image[:, 0], [(0, 100, 200), (50, 100, 100), (100, 100, 0), (100, 50, 0), (100, 0, 0)])
    assert (image == image[:, :1]).all()


def test_a_scaled_colour_stops_at_255():
    assert elements.scaled((100, 200, 10), 1.5) == (150, 255, 15)


def test_bytes_are_clipped():
    image = np.array([[[-5, 12.7, 300]]], np.float32)
    assert elements.to_bytes(image).tolist() == [[[0, 12, 255]]]


def test_land_fills_all_pixels_below_its_skyline():
    image = np.zeros((40, 60, 3), np.uint8)
    line = elements.ridge(60, 20, 8, np.random.default_rng(0))
    assert line[:, 0].tolist() == list(range(60))
    elements.land(image, line, (9, 8, 7))
    rows = np.arange(40)[:, None]
    assert (image[rows > line[:, 1] + 1.5] == (9, 8, 7)).all()
    assert not image[rows < line[:, 1] - 1.5].any()


def test_clouds_end_at_their_stop():
    sky = elements.flat(80, 60, (40, 90, 200))
    clouded = elements.clouds(sky, np.random.default_rng(0), 0.9, 0.5)
    assert (clouded[:30] != sky[:30]).any()
    np.testing.assert_array_equal(clouded[41:], sky[41:])


def test_a_leaf_points_along_its_angle():
    image = np.zeros((100, 100, 3), np.uint8)
    elements.leaf(image, (20, 50), 60, 0.0, (200, 200, 200))
    rows, columns = np.nonzero(image.any(2))
    assert columns.min() == pytest.approx(20, abs=3)
    assert columns.max() == pytest.approx(80, abs=3)
    assert rows.mean() == pytest.approx(50, abs=1.5)
