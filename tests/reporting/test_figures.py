"""Oracles: counted cells, means before thinning, colours of single pixels, heights of bars."""

import re

import numpy as np
import pytest

from previts.media import drawing
from previts.reporting import figures


def test_grid_iou_equals_counting_cells() -> None:
    mask = np.zeros((70, 140), bool)
    mask[10:30, 20:61] = True  # rows 1-2, columns 1-2 whole; of column 3 a 20th
    cam = np.zeros((7, 7), np.float32)
    cam[1:3, 2:4] = 1
    tiny = np.zeros_like(mask)
    tiny[0, 0] = True
    ious = figures.grid_ious(np.stack([cam, cam]), np.stack([mask, tiny]))
    assert ious == [pytest.approx(2 / 6), None]


def test_a_thinned_curve_keeps_its_mean() -> None:
    steps = np.arange(160.0 * 7)
    thin_steps, thin = figures.curve_points(steps, np.sin(steps))
    assert len(thin) == 160
    assert np.mean(thin) == pytest.approx(np.sin(steps).mean())
    assert np.mean(thin_steps) == pytest.approx(steps.mean())


def test_a_tube_strip_tints_the_object_and_frames_without_a_tube_are_grey() -> None:
    frames = np.full((2, 60, 80, 3), (30, 60, 200), np.uint8)
    shown = np.zeros((2, 60, 80), bool)
    shown[0, 20:40, 20:50] = True
    strip = figures.tube_strip(frames, shown).astype(int)
    height, width = drawing.fit(60, 80)
    assert strip.shape == (height, 2 * width + drawing.GAP, 3)
    inside, outside = strip[height // 2, round(width * 35 / 80)], strip[5, 5]
    np.testing.assert_array_equal(outside, (30, 60, 200))
    assert inside[0] > 100 > outside[0]
    lost = strip[5, -5]
    assert lost.max() == lost.min()


def test_histogram_has_a_bar_for_each_bin_with_values() -> None:
    svg = figures.histogram([0.31, 0.32, 0.58, 0.9], "agreement", "videos", percent=False)
    bars = [
        [float(number) for number in re.findall(r"-?[\d.]+", path)]
        for path in re.findall(r'<path d="([^"]*)"[^>]*style="fill: #0072b2"', svg)
    ]
    heights = [max(bar[1::2]) - min(bar[1::2]) for bar in bars]
    tall = [height / max(heights) for height in heights if height > 0.01]
    assert tall == pytest.approx([1, 0.5, 0.5], abs=1e-3)


def test_a_class_strip_is_bright_where_the_attention_is() -> None:
    frames, cams = np.full((2, 64, 64, 3), 100, np.uint8), np.zeros((2, 2, 2), np.float32)
    cams[:, :, 0] = 1
    strip = figures.class_strip(frames, cams).astype(int)
    height, width = drawing.fit(64, 64)
    assert strip.shape == (height, 2 * width + drawing.GAP, 3)
    for left in (0, width + drawing.GAP):
        half = strip[:, left : left + width]
        assert half[:, : width // 4, 0].mean() > half[:, -width // 4 :, 0].mean() + 50
