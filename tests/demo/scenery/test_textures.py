"""Oracles: equations of the curves, values of the smoothstep, areas of polygons."""

import numpy as np
import pytest

from previts.demo.scenery import textures

SQUARE = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])


def test_noise_covers_the_range_from_0_to_1_and_stretches_along_x():
    noise = textures.fbm(64, 96, np.random.default_rng(0), cells=6)
    assert noise.shape == (64, 96)
    assert noise.min() == 0
    assert noise.max() == pytest.approx(1)
    wide = textures.fbm(64, 64, np.random.default_rng(0), cells=6, octaves=1, stretch=4)
    assert np.abs(np.diff(wide, axis=1)).mean() < 0.5 * np.abs(np.diff(wide, axis=0)).mean()


def test_a_smooth_curve_passes_through_its_points():
    points = np.random.default_rng(1).normal(size=(7, 2))
    curve = textures.smooth(points, 5)
    assert curve.shape == (35, 2)
    np.testing.assert_allclose(curve[::5], points, atol=1e-12)


def test_a_smooth_curve_has_the_symmetry_of_its_points():
    np.testing.assert_allclose(textures.smooth(-SQUARE), -textures.smooth(SQUARE), atol=1e-12)


def test_an_ellipse_satisfies_its_equation():
    angle = 0.7
    x, y = (textures.ellipse(3, -2, 5, 2, angle) - (3, -2)).T
    along, across = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    np.testing.assert_allclose((along / 5) ** 2 + (across / 2) ** 2, 1)


def test_a_step_is_3_t_squared_minus_2_t_cubed():
    values = np.array([-1, 2, 3, 4, 9], np.float32)
    np.testing.assert_allclose(textures.step(values, 2, 4), [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(textures.step(np.array([2.5], np.float32), 2, 4), [3 / 16 - 2 / 64])


def test_a_mix_is_linear_in_its_weight():
    first, second = np.full((1, 3, 3), 10, np.float32), np.full((1, 3, 3), 50, np.float32)
    mixed = textures.mix(first, second, np.array([[0, 0.25, 1]], np.float32))
    np.testing.assert_allclose(mixed[0, :, 0], [10, 20, 50])


def test_a_filled_polygon_has_its_area():
    image = np.zeros((60, 80), np.uint8)
    textures.fill(image, SQUARE * 30 + (40, 30), 255.0)
    assert image.sum() / 255 == pytest.approx(31**2, rel=0.03)  # OpenCV includes the pixels of the edge


def test_a_varied_colour_is_near_and_inside_the_range():
    rng = np.random.default_rng(0)
    colours = np.array([textures.vary((120, 200, 255), rng) for _ in range(500)])
    assert (colours >= 4).all()
    assert (colours <= 251).all()
    assert abs(colours[:, 0].mean() - 120 * 0.99) < 3  # brightness is uniform in [0.88, 1.1]


@pytest.mark.parametrize("texture", ["plain", "fur", "stripes", "spots", "scales", "metal"])
def test_a_sprite_covers_the_area_of_its_outline(texture: textures.Texture):
    colours = ((200, 90, 60), (240, 220, 200), (20, 20, 20))
    sprite = textures.make_sprite(SQUARE, colours, texture, (), 80, np.random.default_rng(0))
    alpha = sprite.rgba[..., 3]
    assert alpha.sum() / 80**2 == pytest.approx(1, rel=0.04)
    assert (sprite.rgba[..., :3] <= 255 * alpha[..., None] + 1e-3).all()
    # The centre of mass of the sprite is the centre of the square.
    rows, columns = np.indices(alpha.shape)
    centre = sprite.to_local @ ((columns * alpha).sum() / alpha.sum(), (rows * alpha).sum() / alpha.sum(), 1)
    np.testing.assert_allclose(centre[:2], 0, atol=0.01)
