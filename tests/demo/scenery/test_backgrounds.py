"""Oracles: the same generator gives the same image; families differ in colour; clutter leaves gaps."""

import numpy as np
import pytest

from previts.demo.scenery.backgrounds import FAMILIES, clutter, paint


def test_every_family_can_be_painted_and_differs_from_the_others():
    means = [paint(family, 60, 80, np.random.default_rng(2)).mean((0, 1)) for family in FAMILIES]
    distances = [np.abs(a - b).sum() for i, a in enumerate(means) for b in means[:i]]
    assert min(distances) > 5


@pytest.mark.parametrize("family", FAMILIES)
def test_the_generator_alone_decides_a_background(family: str):
    first, second, other = (paint(family, 60, 80, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first.shape == (60, 80, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_clutter_is_premultiplied_and_leaves_gaps(family: str):
    layer = clutter(family, 100, 240, np.random.default_rng(0))
    colour, alpha = layer[..., :3], layer[..., 3:]
    assert alpha.min() == 0
    assert alpha.max() == 1
    assert (colour <= 255 * alpha + 1e-3).all()
    assert 0.05 < (alpha > 0.5).mean() < 0.6
