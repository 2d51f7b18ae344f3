from dataclasses import replace

import numpy as np
import pytest

from previts.config.experiment import SamplingConfig
from previts.pretraining import crop_sampling

CONFIG = SamplingConfig()


def crop_of(mask_HW, config, seed=0, shape=None):
    """Return the crop of a mask that a seed draws, or of a frame of a shape without a mask."""
    height, width = shape or mask_HW.shape
    generator = np.random.default_rng(seed) if isinstance(seed, int) else seed
    return crop_sampling.sample_crop(mask_HW, height, width, config=config, generator=generator)


def mask(height, width, top, bottom, left, right):
    made = np.zeros((height, width), bool)
    made[top:bottom, left:right] = True
    return made


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.8])
def test_crops_cover_the_mask_and_keep_their_size_and_shape(overlap):
    config = replace(CONFIG, min_overlap=overlap)
    object_ = mask(144, 256, 100, 140, 200, 250)
    for seed in range(300):
        left, top, right, bottom = crop_of(object_, config, seed)
        assert 0 <= left < right <= 256
        assert 0 <= top < bottom <= 144
        assert object_[top:bottom, left:right].sum() >= overlap * object_.sum()
        assert 0.74 < (right - left) / (bottom - top) < 1.35


def random_mask(generator):
    """Return an ellipse, a bar or scattered blobs, from tiny to nearly the whole frame."""
    height, width = (int(side) for side in generator.integers(40, 160, 2))
    rows, columns = np.mgrid[:height, :width]
    made = np.zeros((height, width), bool)
    for _ in range(generator.integers(1, 4)):
        middle = generator.uniform(0, 1, 2) * (height, width)
        radii = generator.uniform(0.02, 0.6, 2) * (height, width)
        far = np.abs([(rows - middle[0]) / radii[0], (columns - middle[1]) / radii[1]])
        made |= far.max(0) < 1 if generator.random() < 0.3 else (far**2).sum(0) < 1
    return made if made.any() else random_mask(generator)


def test_ten_thousand_crops_cover_their_masks():
    for seed in range(10_000):
        generator = np.random.default_rng([seed, 1])
        config = replace(CONFIG, min_overlap=float(generator.choice([0.2, 0.3, 0.4, 0.8])))
        object_ = random_mask(generator)
        left, top, right, bottom = crop_of(object_, config, generator)
        inside = object_[top:bottom, left:right].sum()
        held = min(config.min_overlap * object_.sum(), 0.4 * object_.size, (right - left) * (bottom - top))
        assert inside >= min(held, most_covered(object_)), (seed, inside, held)


def most_covered(object_):
    """Return how much of a mask the best crop of ratio 4:3 or 3:4 and of the frame's height or width covers."""
    height, width = object_.shape
    long = object_ if width > height else object_.T
    size = round(min(height, width) * 4 / 3)
    return max(long[:, left : left + size].sum() for left in range(max(1, long.shape[1] - size + 1)))


def cut_box(object_, config):
    """Return the IoU of a mask with its bounding box, cut to an allowed aspect ratio."""
    rows, columns = np.flatnonzero(object_.any(1)), np.flatnonzero(object_.any(0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    return iou(object_, crop_sampling._shrink_to_ratio(box, middle, config))


def iou(object_, crop):
    inside = np.zeros_like(object_)
    inside[crop[1] : crop[3], crop[0] : crop[2]] = True
    return (inside & object_).sum() / (inside | object_).sum()


def test_ten_thousand_crops_reach_the_iou_where_that_is_possible():
    unreachable = 0
    for seed in range(10_000):
        generator = np.random.default_rng([seed, 2])
        config = replace(CONFIG, min_overlap=float(generator.choice([0.2, 0.3, 0.4])), overlap="iou")
        object_ = random_mask(generator)
        found = iou(object_, crop_of(object_, config, generator))
        if found < config.min_overlap:
            unreachable += 1
            assert found >= cut_box(object_, config)
            assert cut_box(object_, config) < config.min_overlap
    assert 0 < unreachable < 2000


def test_without_overlap_some_crops_miss_the_object():
    config, object_ = replace(CONFIG, min_overlap=0.0), mask(144, 256, 130, 144, 246, 256)
    crops = [crop_of(object_, config, seed) for seed in range(300)]
    assert any(not object_[top:bottom, left:right].any() for left, top, right, bottom in crops)


def test_a_mask_larger_than_the_smallest_crop_lowers_the_threshold():
    config = replace(CONFIG, min_overlap=0.9, crop_scale=(0.4, 0.4), crop_ratio=(1.0, 1.0))
    everything = np.ones((100, 100), bool)
    left, top, right, bottom = crop_of(everything, config)
    assert (right - left, bottom - top) == (63, 63)  # an ordinary crop of 40 %, not the fallback


def test_an_object_that_no_crop_covers_falls_back_to_its_box():
    config = replace(CONFIG, min_overlap=0.99, crop_scale=(0.1, 0.1))
    corners = mask(120, 120, 20, 22, 20, 22) | mask(120, 120, 98, 100, 98, 100)
    for seed in range(50):
        left, top, right, bottom = crop_of(corners, config, seed)
        assert 0 <= left <= right <= 120
        assert (right - left) * (bottom - top) > 0.3 * 120 * 120  # the box spans 80 x 80 and is only widened
        assert 0.74 < (right - left) / (bottom - top) < 1.35


def test_crops_are_centred_around_the_object():
    def mean_middle(object_):
        crops = [crop_of(object_, CONFIG, seed) for seed in range(400)]
        return np.mean([(left + right) / 2 for left, _, right, _ in crops])

    assert mean_middle(mask(100, 300, 40, 60, 0, 20)) < 110
    assert mean_middle(mask(100, 300, 40, 60, 280, 300)) > 190


def test_unmasked_crops_are_random_resized_crops():
    areas, lefts = [], []
    for seed in range(2000):
        crop = crop_of(None, CONFIG, seed, shape=(200, 200))
        areas.append((crop[2] - crop[0]) * (crop[3] - crop[1]) / 200**2)
        lefts.append(crop[0] / max(1, 200 - (crop[2] - crop[0])))
    assert min(areas) > 0.39
    assert max(areas) <= 1
    # Uniform areas in [0.4, 1], fewer of the large ones, which often do not fit; places uniform among those that fit.
    assert 0.55 < np.mean(areas) < 0.7
    assert abs(np.mean(lefts) - 0.5) < 0.05


def test_empty_or_misshapen_masks_are_refused():
    with pytest.raises(ValueError, match="not empty"):
        crop_of(np.zeros((4, 4), bool), CONFIG)
    with pytest.raises(ValueError, match="4 x 5"):
        crop_of(np.ones((4, 4), bool), CONFIG, shape=(4, 5))
