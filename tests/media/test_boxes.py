"""Oracles: boxes recorded when pretraining and evaluations had separate functions, and the limits of the box."""

import numpy as np
import pytest

from previts.config.experiment import SamplingConfig
from previts.evals import labelled_images
from previts.media import boxes
from previts.pretraining import crop_sampling


# (height, width), seed, the box, and the next number of the generator
@pytest.mark.parametrize(
    ("shape", "seed", "box", "following"),
    [
        ((144, 256), 0, (25, 0, 134, 144), 873242270),
        ((144, 256), 1, (2, 0, 186, 142), 883629044),
        ((256, 144), 2, (4, 85, 139, 237), 484547583),
        ((240, 426), 3, (41, 7, 240, 239), 933331401),
        ((64, 64), 4, (1, 1, 64, 64), 1041836813),
        ((100, 1000), 5, (434, 0, 567, 100), 1029825122),  # no attempt fits
        ((1000, 100), 6, (0, 434, 100, 567), 583469656),
        ((95, 1000), 7, (436, 0, 563, 95), 500611194),
    ],
)
def test_pretraining_draws_the_recorded_boxes(shape, seed, box, following):
    generator = np.random.default_rng(seed)
    assert crop_sampling.sample_crop(None, *shape, config=SamplingConfig(), generator=generator) == box
    assert generator.integers(1 << 30) == following


@pytest.mark.parametrize(
    ("shape", "seed", "least_area", "box", "following"),
    [
        ((144, 256), 0, 0.08, (35, 56, 92, 132), 697304851),
        ((144, 256), 1, 0.08, (3, 2, 165, 127), 883629044),
        ((375, 500), 2, 0.08, (111, 94, 342, 354), 484547583),
        ((240, 320), 3, 0.25, (32, 58, 176, 226), 933331401),
        ((4, 400), 4, 0.08, (197, 0, 202, 4), 326343117),  # no attempt fits
        ((400, 5), 5, 0.08, (0, 196, 5, 203), 1029825122),
        ((64, 64), 6, 0.25, (15, 4, 64, 58), 706235609),
        ((1, 1), 7, 0.08, (0, 0, 1, 1), None),
    ],
)
def test_evaluations_draw_the_recorded_boxes(shape, seed, least_area, box, following):
    height, width = shape
    generator = np.random.default_rng(seed)
    assert labelled_images.random_box(width, height, least_area, generator) == box
    assert following in (None, generator.integers(1 << 30))


def test_boxes_keep_to_the_image_the_share_of_its_area_and_the_aspect_ratio():
    generator = np.random.default_rng(0)
    scale, ratio = (0.2, 0.5), (0.5, 2.0)
    aspects = []
    for _ in range(2000):
        left, top, right, bottom = boxes.draw_box(300, 400, scale, ratio, 100, generator)
        assert 0 <= left < right <= 400
        assert 0 <= top < bottom <= 300
        width, height = right - left, bottom - top
        # Sides are rounded to whole pixels, so the limits hold up to half a pixel a side.
        assert (width - 0.5) * (height - 0.5) <= 0.5 * 300 * 400
        assert (width + 0.5) * (height + 0.5) >= 0.2 * 300 * 400
        assert (width + 0.5) / (height - 0.5) >= 0.5
        assert (width - 0.5) / (height + 0.5) <= 2
        aspects.append(width / height)
    sizes = [boxes.draw_size(1000, 1000, (0.1, 0.1), ratio, generator) for _ in range(4000)]
    # Uniform on a logarithmic scale: the mean logarithm is 0, its variance (2 log 2)^2 / 12.
    logarithms = np.log([width / height for height, width in sizes])
    assert logarithms.mean() == pytest.approx(0, abs=0.03)
    assert logarithms.var() == pytest.approx((2 * np.log(2)) ** 2 / 12, rel=0.05)


def test_no_box_is_drawn_if_none_fits():
    assert boxes.draw_box(10, 100, (1.0, 1.0), (1.0, 1.0), 10, np.random.default_rng(0)) is None
