"""Oracles: colours of single pixels, sizes in closed form, and sets of pixels."""

import numpy as np
import pytest

from previts.media import drawing
from previts.media.drawing import CELL_HEIGHT, CELL_WIDTH, GAP, NAMES_WIDTH, TUBE


def image(height=60, width=80, colour=(30, 60, 200)):
    return np.full((height, width, 3), colour, np.uint8)


def square(height=60, width=80):
    mask = np.zeros((height, width), bool)
    mask[20:40, 20:50] = True
    return mask


@pytest.mark.parametrize("size", [(126, 168), (252, 336), (60, 80), (1080, 1920), (1920, 1080), (100, 1000)])
def test_a_frame_fits_its_cell_and_keeps_its_aspect_ratio(size):
    height, width = drawing.fit(*size)
    assert height <= CELL_HEIGHT
    assert width <= CELL_WIDTH
    assert height == CELL_HEIGHT or width == CELL_WIDTH
    assert width / height == pytest.approx(size[1] / size[0], rel=0.05) or height == 16
    assert drawing.resize(np.zeros((*size, 3), np.uint8)).shape == (height, width, 3)


def test_a_mask_keeps_its_share_of_the_image_when_it_is_resized():
    small = drawing.resize_mask(square(), image(30, 40))
    expected = np.zeros((30, 40), bool)
    expected[10:20, 10:25] = True
    np.testing.assert_array_equal(small, expected)
    dot = np.zeros((60, 80), bool)
    dot[31, 41] = True
    assert np.argwhere(drawing.resize_mask(dot, image(6, 8))).tolist() == [[3, 4]]
    assert not drawing.resize_mask(np.zeros((60, 80), bool), image(6, 8)).any()


def test_a_tube_is_tinted_and_the_rest_of_the_image_is_unchanged():
    before, mask = image(), square()
    drawn = drawing.with_tube(before, mask).astype(int)
    tint = 0.6 * np.array([30, 60, 200]) + 0.4 * np.array(TUBE)
    np.testing.assert_allclose(drawn[30, 35], tint, atol=1)
    np.testing.assert_array_equal(drawn[5, 5], (30, 60, 200))
    np.testing.assert_array_equal(before, image())


def test_an_image_without_a_tube_is_grey():
    drawn = drawing.with_tube(image(), np.zeros((60, 80), bool))
    assert (drawn[..., 0] == drawn[..., 1]).all()
    assert (drawn[..., 1] == drawn[..., 2]).all()
    assert (drawing.with_tube(image(), np.zeros((60, 80), bool), "hidden") != drawn).any()


def test_only_the_masked_object_keeps_its_colours():
    drawn = drawing.only(image(), square())
    np.testing.assert_array_equal(drawn[30, 35], (30, 60, 200))
    np.testing.assert_array_equal(drawn[5, 5], (6, 12, 40))


def test_maps_are_scaled_to_0_and_1():
    ramp = np.linspace(-3, 5, 12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_allclose(drawing.unit(ramp), np.linspace(0, 1, 12).reshape(3, 4), atol=1e-6)
    assert not drawing.unit(np.full((3, 4), 7, np.float32)).any()


def test_colours_of_a_map_become_brighter_with_its_values():
    levels = drawing.heat(np.linspace(0, 1, 16, dtype=np.float32)[None]).astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(levels[0]) > 0).all()
    left = np.zeros((2, 2), np.float32)
    left[:, 0] = 1
    drawn = drawing.heat_over(image(), left).astype(float).mean(axis=(0, 2))
    assert drawn[5] > drawn[-5] + 30


def test_an_outline_is_drawn_at_the_edge_of_the_mask_only():
    changed = (drawing.outline(image(), square(), (255, 0, 0)) != image()).any(axis=2)
    near = np.zeros((60, 80), bool)
    near[16:44, 16:54] = True
    inside = np.zeros((60, 80), bool)
    inside[24:36, 24:46] = True
    assert changed[20, 20:50].all()
    assert not changed[~near].any()
    assert not changed[inside].any()


def test_cells_of_a_row_are_separated_by_gaps():
    row = drawing.row_of_cells([image(20, 30), image(20, 40)], (1, 2, 3))
    assert row.shape == (20, 30 + GAP + 40, 3)
    assert (row[:, 30 : 30 + GAP] == (1, 2, 3)).all()


def test_a_sheet_has_its_cells_below_the_titles_and_next_to_the_names():
    cells = [image(40, 60, (200, 10, 10)), image(40, 60, (10, 200, 10))]
    sheet = drawing.sheet(["a", "b"], [("0.0 s", cells), ("0.5 s", cells[::-1])])
    assert sheet.shape == (24 + 2 * 40 + 3 * GAP, NAMES_WIDTH + 2 * (GAP + 60), 3)
    for place, shown in enumerate((cells, cells[::-1])):
        top = 24 + GAP + place * (40 + GAP)
        for column, cell in enumerate(shown):
            left = NAMES_WIDTH + GAP + column * (60 + GAP)
            np.testing.assert_array_equal(sheet[top : top + 40, left : left + 60], cell)
