from dataclasses import dataclass, replace

import numpy as np
import pytest

from previts import sampling
from previts.errors import InputError
from previts.experiment import SamplingConfig

CONFIG = SamplingConfig()


@dataclass(frozen=True)
class Video:
    num_frames: int = 250
    fps: float = 25.0
    spans: tuple[tuple[int, int], ...] = ((10, 60), (100, 180))


def draws(video, config, number=300):
    return [sampling.sample_pair(video, config, np.random.default_rng([5, n])) for n in range(number)]


def visible(video):
    return {frame for start, stop in video.spans for frame in range(start, stop)}


def test_varying_pairs_lie_in_spans_and_reach_all_of_them():
    pairs = draws(Video(), CONFIG, 3000)
    assert all(pair.constrained for pair in pairs)
    assert {pair.query for pair in pairs} == visible(Video()) == {pair.key for pair in pairs}


def test_query_and_key_are_drawn_independently():
    pairs = draws(Video(), CONFIG, 4000)
    correlation = np.corrcoef([pair.query for pair in pairs], [pair.key for pair in pairs])[0, 1]
    assert abs(correlation) < 0.06  # four standard deviations of the estimate


def test_zero_gap_takes_one_frame_twice():
    assert all(pair.query == pair.key for pair in draws(Video(), replace(CONFIG, gap="zero")))


def test_constant_gap_is_held_inside_the_tube():
    config = replace(CONFIG, gap="constant", gap_seconds=1.7)
    pairs = draws(Video(), config, 2000)
    assert {abs(pair.key - pair.query) for pair in pairs} == {round(1.7 * 25)}
    assert all({pair.query, pair.key} <= visible(Video()) for pair in pairs)
    # every frame with a partner forwards or backwards is a query sometimes
    gap = round(1.7 * 25)
    able = {frame for frame in visible(Video()) if {frame - gap, frame + gap} & visible(Video())}
    assert {pair.query for pair in pairs} == able


def test_constant_gap_shrinks_to_what_a_short_tube_allows():
    video = Video(num_frames=30, spans=((5, 16),))
    pairs = draws(video, replace(CONFIG, gap="constant"))
    assert {(pair.query, pair.key) for pair in pairs} == {(5, 15), (15, 5)}


@pytest.mark.parametrize("spans", [(), ((0, 59),)])
def test_too_little_tracked_gives_an_unconstrained_pair(spans):
    pairs = draws(Video(spans=spans), CONFIG, 2000)
    assert not any(pair.constrained for pair in pairs)
    assert max(pair.query for pair in pairs) > 200


def test_sixty_of_250_frames_are_enough():
    assert draws(Video(spans=((0, 60),)), CONFIG, 1)[0].constrained


def test_baseline_ignores_the_tube():
    pairs = draws(Video(), replace(CONFIG, constraint="none"), 4000)
    assert not any(pair.constrained for pair in pairs)
    assert {pair.query for pair in pairs} == set(range(250))


def test_whole_clips_lie_in_spans():
    config = replace(CONFIG, clip_frames=16, clip_stride=2)
    for pair in draws(Video(), config):
        assert set(sampling.clip_indices(pair.query, 250, config)) <= visible(Video())


def test_a_video_shorter_than_the_clip_is_repeated():
    config = replace(CONFIG, constraint="none", clip_frames=6)
    pair = sampling.sample_pair(Video(num_frames=4), config, np.random.default_rng(0))
    assert sampling.clip_indices(pair.query, 4, config) == [0, 1, 2, 3, 0, 1]


def mask(height, width, top, bottom, left, right):
    made = np.zeros((height, width), bool)
    made[top:bottom, left:right] = True
    return made


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.8])
def test_crops_cover_the_mask_and_keep_their_size_and_shape(overlap):
    config = replace(CONFIG, min_overlap=overlap)
    object_ = mask(144, 256, 100, 140, 200, 250)
    for seed in range(300):
        left, top, right, bottom = sampling.sample_crop(object_, 144, 256, config, np.random.default_rng(seed))
        assert 0 <= left < right <= 256
        assert 0 <= top < bottom <= 144
        assert object_[top:bottom, left:right].sum() >= overlap * object_.sum()
        assert 0.74 < (right - left) / (bottom - top) < 1.35


def test_without_overlap_some_crops_miss_the_object():
    config, object_ = replace(CONFIG, min_overlap=0.0), mask(144, 256, 130, 144, 246, 256)
    crops = [sampling.sample_crop(object_, 144, 256, config, np.random.default_rng(seed)) for seed in range(300)]
    assert any(not object_[top:bottom, left:right].any() for left, top, right, bottom in crops)


def test_a_mask_larger_than_the_smallest_crop_lowers_the_threshold():
    config = replace(CONFIG, min_overlap=0.9, crop_scale=(0.4, 0.4), crop_ratio=(1.0, 1.0))
    everything = np.ones((100, 100), bool)
    left, top, right, bottom = sampling.sample_crop(everything, 100, 100, config, np.random.default_rng(0))
    assert (right - left, bottom - top) == (63, 63)  # an ordinary crop of 40 %, not the fallback


def test_an_object_that_no_crop_covers_falls_back_to_its_box():
    config = replace(CONFIG, min_overlap=0.99, crop_scale=(0.1, 0.1))
    corners = mask(120, 120, 20, 22, 20, 22) | mask(120, 120, 98, 100, 98, 100)
    for seed in range(50):
        left, top, right, bottom = sampling.sample_crop(corners, 120, 120, config, np.random.default_rng(seed))
        assert 0 <= left <= right <= 120
        assert (right - left) * (bottom - top) > 0.3 * 120 * 120  # the box spans 80 x 80 and is only widened
        assert 0.74 < (right - left) / (bottom - top) < 1.35


def test_crops_gather_around_the_object():
    def mean_middle(object_):
        crops = [sampling.sample_crop(object_, 100, 300, CONFIG, np.random.default_rng(seed)) for seed in range(400)]
        return np.mean([(left + right) / 2 for left, _, right, _ in crops])

    assert mean_middle(mask(100, 300, 40, 60, 0, 20)) < 110
    assert mean_middle(mask(100, 300, 40, 60, 280, 300)) > 190


def test_unmasked_crops_are_random_resized_crops():
    areas, lefts = [], []
    for seed in range(2000):
        crop = sampling.sample_crop(None, 200, 200, CONFIG, np.random.default_rng(seed))
        areas.append((crop[2] - crop[0]) * (crop[3] - crop[1]) / 200**2)
        lefts.append(crop[0] / max(1, 200 - (crop[2] - crop[0])))
    assert min(areas) > 0.39
    assert max(areas) <= 1
    # Uniform areas in [0.4, 1], fewer of the large ones, which often do not fit; places uniform among those that fit.
    assert 0.55 < np.mean(areas) < 0.7
    assert abs(np.mean(lefts) - 0.5) < 0.05


def test_empty_or_foreign_masks_are_refused():
    with pytest.raises(ValueError, match="not empty"):
        sampling.sample_crop(np.zeros((4, 4), bool), 4, 4, CONFIG, np.random.default_rng(0))
    with pytest.raises(ValueError, match="4 x 5"):
        sampling.sample_crop(np.ones((4, 4), bool), 4, 5, CONFIG, np.random.default_rng(0))


def test_smaller_shares_are_parts_of_larger_ones():
    ids = [f"video{n}" for n in range(100)]
    shares = [
        set(sampling.choose_videos(ids, ["train"] * 100, replace(CONFIG, data_fraction=fraction)))
        for fraction in (0.25, 0.5, 1.0)
    ]
    assert [len(share) for share in shares] == [25, 50, 100]
    assert shares[0] < shares[1] < shares[2]


def test_held_out_splits_are_never_learnt_from():
    assert sampling.choose_videos(["a", "b", "c", "d"], ["train", "test", "", "val"], CONFIG) == [0, 2]
    with pytest.raises(InputError, match="held out"):
        sampling.choose_videos(["a"], ["test"], CONFIG)
