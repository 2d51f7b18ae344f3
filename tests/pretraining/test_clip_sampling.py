from dataclasses import dataclass, replace

import numpy as np
import pytest

from previts.config.experiment import SamplingConfig
from previts.errors import InputError
from previts.pretraining import clip_sampling

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


def test_varying_pairs_are_inside_spans_and_reach_every_frame():
    pairs = draws(Video(), CONFIG, 3000)
    assert all(pair.constrained for pair in pairs)
    assert {pair.query for pair in pairs} == visible(Video()) == {pair.key for pair in pairs}


def test_query_and_key_are_drawn_independently():
    pairs = draws(Video(), CONFIG, 4000)
    correlation = np.corrcoef([pair.query for pair in pairs], [pair.key for pair in pairs])[0, 1]
    assert abs(correlation) < 0.06  # four standard deviations of the estimate


def test_zero_gap_takes_one_frame_twice():
    assert all(pair.query == pair.key for pair in draws(Video(), replace(CONFIG, gap="zero")))


def test_a_constant_gap_is_kept_inside_the_tube():
    config = replace(CONFIG, gap="constant", gap_seconds=1.7)
    pairs = draws(Video(), config, 2000)
    assert {abs(pair.key - pair.query) for pair in pairs} == {round(1.7 * 25)}
    assert all({pair.query, pair.key} <= visible(Video()) for pair in pairs)
    # every frame with a partner forwards or backwards is a query sometimes
    gap = round(1.7 * 25)
    able = {frame for frame in visible(Video()) if {frame - gap, frame + gap} & visible(Video())}
    assert {pair.query for pair in pairs} == able


def test_a_constant_gap_shrinks_to_fit_a_short_tube():
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


def test_whole_clips_are_inside_spans():
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


def test_the_pair_has_each_of_the_two_speeds_in_half_of_the_draws():
    config = replace(CONFIG, speeds=(1, 3))
    drawn = [clip_sampling.draw_speeds(config, np.random.default_rng(n)) for n in range(2000)]
    assert set(drawn) == {(1, 3), (3, 1)}
    assert abs(sum(speeds.pair == 1 for speeds in drawn) - 1000) < 100  # 4.5 standard deviations


def test_every_clip_of_the_speed_task_has_room_for_the_fastest_speed():
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


def test_smaller_shares_are_parts_of_larger_ones():
    ids = [f"video{n}" for n in range(100)]
    shares = [
        set(clip_sampling.choose_videos(ids, ["train"] * 100, replace(CONFIG, data_fraction=fraction)))
        for fraction in (0.25, 0.5, 1.0)
    ]
    assert [len(share) for share in shares] == [25, 50, 100]
    assert shares[0] < shares[1] < shares[2]


def test_held_out_splits_are_never_learned_from():
    assert clip_sampling.choose_videos(["a", "b", "c", "d"], ["train", "test", "", "val"], CONFIG) == [0, 2]
    with pytest.raises(InputError, match="are kept for evaluation; add the videos of the training split"):
        clip_sampling.choose_videos(["a"], ["test"], CONFIG)
