from dataclasses import dataclass, replace

import numpy as np
import pytest

from previts.config.experiment import SamplingConfig
from previts.errors import InputError
from previts.pretraining import clip_sampling, crop_sampling

CONFIG = SamplingConfig()


@dataclass(frozen=True)
class Video:
    num_frames: int = 250
    fps: float = 25.0
    spans: tuple[tuple[int, int], ...] = ((10, 60), (100, 180))


def draws(video, config, number=300):
    return [clip_sampling.sample_pair(video, config, np.random.default_rng([5, n])) for n in range(number)]


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
        assert set(clip_sampling.clip_indices(pair.query, 250, config)) <= visible(Video())


def test_a_video_shorter_than_the_clip_is_repeated():
    config = replace(CONFIG, constraint="none", clip_frames=6)
    pair = clip_sampling.sample_pair(Video(num_frames=4), config, np.random.default_rng(0))
    assert clip_sampling.clip_indices(pair.query, 4, config) == [0, 1, 2, 3, 0, 1]


def speed_draws(video, config, number=2000):
    generators = (np.random.default_rng([5, n]) for n in range(number))
    return [clip_sampling.sample_pair(video, config, generator, speed_task=True) for generator in generators]


def test_each_of_the_two_speeds_is_the_pairs_in_half_of_the_draws():
    config = replace(CONFIG, speeds=(1, 3))
    drawn = [clip_sampling.draw_speeds(config, np.random.default_rng(n)) for n in range(2000)]
    assert set(drawn) == {(1, 3), (3, 1)}
    assert abs(sum(speeds.pair == 1 for speeds in drawn) - 1000) < 100  # 4.5 standard deviations


def test_clips_of_the_speed_task_have_the_room_of_the_fastest_whatever_their_speed():
    config = replace(CONFIG, clip_frames=16)
    pairs = speed_draws(Video(), config)
    starts = {frame for start, stop in Video().spans for frame in range(start, stop - 30)}  # 31 frames at speed 2
    for name in ("query", "key", "other"):
        assert {getattr(pair, name) for pair in pairs} == starts
    assert clip_sampling.clip_indices(7, 250, config, 2) == list(range(7, 38, 2))
    keys, others = [pair.key for pair in pairs], [pair.other for pair in pairs]
    assert abs(np.corrcoef(keys, others)[0, 1]) < 0.1


def test_the_third_clip_does_not_change_the_draw_of_the_others():
    with_third, without = speed_draws(Video(), CONFIG, 100), draws(Video(), CONFIG, 100)
    assert [(pair.query, pair.key) for pair in with_third] == [(pair.query, pair.key) for pair in without]
    assert all(pair.other is None for pair in without)


@pytest.mark.parametrize(
    ("gap", "segment"), [("varying", "key"), ("constant", "own"), ("zero", "own"), ("constant", "key")]
)
def test_the_third_clip_begins_with_the_key(gap, segment):
    config = replace(CONFIG, clip_frames=8, gap=gap, other_segment=segment)
    assert all(pair.other == pair.key for pair in speed_draws(Video(), config, 200))


def test_a_tube_too_short_for_the_fastest_speed_gives_an_unconstrained_pair():
    config, video = replace(CONFIG, clip_frames=16), Video(spans=((0, 30), (40, 70), (80, 110)))
    assert all(pair.constrained for pair in draws(video, config, 50))
    pairs = speed_draws(video, config, 500)
    assert not any(pair.constrained for pair in pairs)
    assert max(pair.other for pair in pairs) > 200


def test_with_the_middle_visible_only_the_middle_frame_must_show_the_object():
    config = replace(CONFIG, clip_frames=16, visible="middle")
    assert clip_sampling.reference_offset(config, True) == 16
    assert clip_sampling.reference_offset(config, False) == 8
    video = Video(num_frames=200, spans=((3, 60), (190, 200)))
    pairs = speed_draws(video, config, 3000)
    # 31 frames from each start must be there, and the 17th of them must show the object
    expected = {start for start in range(170) if start + 16 in visible(video)}
    assert {pair.query for pair in pairs} == expected
    assert {pair.other for pair in pairs} == expected
    assert not any(pair.constrained for pair in speed_draws(Video(num_frames=30, spans=((0, 30),)), config, 20))


def mask(height, width, top, bottom, left, right):
    made = np.zeros((height, width), bool)
    made[top:bottom, left:right] = True
    return made


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.8])
def test_crops_cover_the_mask_and_keep_their_size_and_shape(overlap):
    config = replace(CONFIG, min_overlap=overlap)
    object_ = mask(144, 256, 100, 140, 200, 250)
    for seed in range(300):
        left, top, right, bottom = crop_sampling.sample_crop(object_, 144, 256, config, np.random.default_rng(seed))
        assert 0 <= left < right <= 256
        assert 0 <= top < bottom <= 144
        assert object_[top:bottom, left:right].sum() >= overlap * object_.sum()
        assert 0.74 < (right - left) / (bottom - top) < 1.35


def random_mask(generator):
    """Return an ellipse, a bar or scattered blobs, from tiny to nearly everything."""
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
        height, width = object_.shape
        left, top, right, bottom = crop_sampling.sample_crop(object_, height, width, config, generator)
        inside = object_[top:bottom, left:right].sum()
        held = min(config.min_overlap * object_.sum(), 0.4 * object_.size, (right - left) * (bottom - top))
        assert inside >= min(held, most_covered(object_)), (seed, inside, held)


def most_covered(object_):
    """Return how much of a mask the best placed crop of ratio 4:3 or 3:4 and the frame's height or width covers."""
    height, width = object_.shape
    long = object_ if width > height else object_.T
    size = round(min(height, width) * 4 / 3)
    return max(long[:, left : left + size].sum() for left in range(max(1, long.shape[1] - size + 1)))


def cut_box(object_, config):
    """Return the IoU of a mask with its box, cut to the ratios that are allowed."""
    rows, columns = np.flatnonzero(object_.any(1)), np.flatnonzero(object_.any(0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    return iou(object_, crop_sampling._shrink_to_ratio(box, middle, config))


def iou(object_, crop):
    inside = np.zeros_like(object_)
    inside[crop[1] : crop[3], crop[0] : crop[2]] = True
    return (inside & object_).sum() / (inside | object_).sum()


def test_ten_thousand_crops_share_their_masks_by_iou_where_that_is_possible():
    unreachable = 0
    for seed in range(10_000):
        generator = np.random.default_rng([seed, 2])
        config = replace(CONFIG, min_overlap=float(generator.choice([0.2, 0.3, 0.4])), overlap="iou")
        object_ = random_mask(generator)
        found = iou(object_, crop_sampling.sample_crop(object_, *object_.shape, config, generator))
        if found < config.min_overlap:
            unreachable += 1
            assert found >= cut_box(object_, config)
            assert cut_box(object_, config) < config.min_overlap
    assert 0 < unreachable < 2000


def test_without_overlap_some_crops_miss_the_object():
    config, object_ = replace(CONFIG, min_overlap=0.0), mask(144, 256, 130, 144, 246, 256)
    crops = [crop_sampling.sample_crop(object_, 144, 256, config, np.random.default_rng(seed)) for seed in range(300)]
    assert any(not object_[top:bottom, left:right].any() for left, top, right, bottom in crops)


def test_a_mask_larger_than_the_smallest_crop_lowers_the_threshold():
    config = replace(CONFIG, min_overlap=0.9, crop_scale=(0.4, 0.4), crop_ratio=(1.0, 1.0))
    everything = np.ones((100, 100), bool)
    left, top, right, bottom = crop_sampling.sample_crop(everything, 100, 100, config, np.random.default_rng(0))
    assert (right - left, bottom - top) == (63, 63)  # an ordinary crop of 40 %, not the fallback


def test_an_object_that_no_crop_covers_falls_back_to_its_box():
    config = replace(CONFIG, min_overlap=0.99, crop_scale=(0.1, 0.1))
    corners = mask(120, 120, 20, 22, 20, 22) | mask(120, 120, 98, 100, 98, 100)
    for seed in range(50):
        left, top, right, bottom = crop_sampling.sample_crop(corners, 120, 120, config, np.random.default_rng(seed))
        assert 0 <= left <= right <= 120
        assert (right - left) * (bottom - top) > 0.3 * 120 * 120  # the box spans 80 x 80 and is only widened
        assert 0.74 < (right - left) / (bottom - top) < 1.35


def test_crops_gather_around_the_object():
    def mean_middle(object_):
        crops = [
            crop_sampling.sample_crop(object_, 100, 300, CONFIG, np.random.default_rng(seed)) for seed in range(400)
        ]
        return np.mean([(left + right) / 2 for left, _, right, _ in crops])

    assert mean_middle(mask(100, 300, 40, 60, 0, 20)) < 110
    assert mean_middle(mask(100, 300, 40, 60, 280, 300)) > 190


def test_unmasked_crops_are_random_resized_crops():
    areas, lefts = [], []
    for seed in range(2000):
        crop = crop_sampling.sample_crop(None, 200, 200, CONFIG, np.random.default_rng(seed))
        areas.append((crop[2] - crop[0]) * (crop[3] - crop[1]) / 200**2)
        lefts.append(crop[0] / max(1, 200 - (crop[2] - crop[0])))
    assert min(areas) > 0.39
    assert max(areas) <= 1
    # Uniform areas in [0.4, 1], fewer of the large ones, which often do not fit; places uniform among those that fit.
    assert 0.55 < np.mean(areas) < 0.7
    assert abs(np.mean(lefts) - 0.5) < 0.05


def test_empty_or_foreign_masks_are_refused():
    with pytest.raises(ValueError, match="not empty"):
        crop_sampling.sample_crop(np.zeros((4, 4), bool), 4, 4, CONFIG, np.random.default_rng(0))
    with pytest.raises(ValueError, match="4 x 5"):
        crop_sampling.sample_crop(np.ones((4, 4), bool), 4, 5, CONFIG, np.random.default_rng(0))


def test_smaller_shares_are_parts_of_larger_ones():
    ids = [f"video{n}" for n in range(100)]
    shares = [
        set(clip_sampling.choose_videos(ids, ["train"] * 100, replace(CONFIG, data_fraction=fraction)))
        for fraction in (0.25, 0.5, 1.0)
    ]
    assert [len(share) for share in shares] == [25, 50, 100]
    assert shares[0] < shares[1] < shares[2]


def test_held_out_splits_are_never_learnt_from():
    assert clip_sampling.choose_videos(["a", "b", "c", "d"], ["train", "test", "", "val"], CONFIG) == [0, 2]
    with pytest.raises(InputError, match="held out"):
        clip_sampling.choose_videos(["a"], ["test"], CONFIG)
