"""Oracles: how each video was made of another one, and the comparison of all pairs."""

import itertools

import numpy as np
import pytest
from moving_scenes import FPS, landscape, scene
from video_copies import framed, marked, recoloured

from previts.corpus.copies import Copy, Match, Video, find_copies, find_copies_of, find_matches
from previts.demo.config import WorldConfig
from previts.demo.world import film, plan_videos
from previts.media.frame_hashes import image_hashes, video_hashes


def hashes(frames) -> bytes:
    return video_hashes(frames, FPS)


def shown(*hashed: bytes) -> list[Video]:
    """Return videos with hashes, and nothing else in common."""
    return [Video(str(number), "", None, None, value) for number, value in enumerate(hashed)]


def windows(*entries: tuple[str, str, float | None, float | None]) -> list[Video]:
    return [Video(*entry, b"") for entry in entries]


ORIGINALS = [hashes(scene(place)) for place in range(12)]
CHANGES = {
    "nothing": lambda frames: frames,
    "mirrored": lambda frames: [np.ascontiguousarray(frame[:, ::-1]) for frame in frames],
    "cut": lambda frames: frames[8:],
    "cut between two hashes": lambda frames: frames[9:],
    "logo": lambda frames: [marked(frame) for frame in frames],
    "letterboxed": lambda frames: [framed(frame, 0.16, 0) for frame in frames],
    "recoloured": lambda frames: [recoloured(frame) for frame in frames],
    "mirrored, cut and marked": lambda frames: [marked(np.ascontiguousarray(frame[:, ::-1])) for frame in frames[5:]],
    "in a longer video": lambda frames: [*scene(50, seconds=3), *frames, *scene(51, seconds=3)],
    "with a title in between": lambda frames: [*frames[:16], *[np.zeros_like(frames[0])] * 8, *frames[24:]],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_leads_to_its_original_and_to_no_other(change):
    for place in range(4):
        copy = hashes(CHANGES[change](scene(place)))
        assert find_copies(shown(*ORIGINALS, copy)) == [Copy(len(ORIGINALS), place, "near duplicate")]


def test_different_scenes_are_no_copies():
    assert find_copies(shown(*ORIGINALS)) == []


def test_one_kind_before_one_kind_of_background_is_no_copy():
    config = WorldConfig()
    plans = [plan_videos(config)[number] for number in (28, 37)]  # two birds before clouds
    clips = [[np.ascontiguousarray(frame.image) for frame in film(config, plan)] for plan in plans]
    originals = [video_hashes(clip, plan.fps) for clip, plan in zip(clips, plans, strict=True)]
    assert find_copies(shown(*originals)) == []
    marked_copy = video_hashes((marked(frame) for frame in clips[1]), plans[1].fps)
    assert find_copies(shown(*originals, marked_copy)) == [Copy(2, 1, "near duplicate")]


def test_other_times_of_one_scene_are_no_copies():
    for place in range(4):
        clips = [hashes(scene(place, start, 4.0)) for start in (0.0, 4.0, 8.0)]
        assert find_copies(shown(*clips)) == []


def test_windows_that_overlap_by_half_are_copies():
    assert find_copies(shown(hashes(scene(0, 0, 4)), hashes(scene(0, 2, 4)))) == [Copy(1, 0, "near duplicate")]


def test_one_common_frame_is_not_enough():
    title = hashes([landscape(20)] * 4)[1:]
    one, other = (b"\0" + title + ORIGINALS[place][1:] for place in (0, 1))
    assert find_copies(shown(one, other)) == []


def test_a_common_start_is_not_enough():
    start = scene(20, seconds=1.5)  # a moving title
    assert find_copies(shown(*(hashes([*start, *scene(place)]) for place in range(4)))) == []


def test_a_video_with_fewer_hashes_a_second_matches_one_with_more():
    long = scene(0, seconds=80)
    coarse = video_hashes(long, FPS)
    assert coarse[0] == 1  # a hash every 0.5 s
    assert find_copies(shown(coarse, hashes(long[160:240]))) == [Copy(1, 0, "near duplicate")]


def test_still_videos_are_copies_only_as_a_whole_and_if_almost_equal():
    still, other = hashes([landscape(0)] * 16), hashes([landscape(1)] * 16)
    coded = hashes([landscape(0) // 4 * 4] * 12)
    assert find_copies(shown(still, other, coded)) == [Copy(2, 0, "near duplicate")]
    partly = hashes([landscape(0)] * 16 + scene(3, seconds=6))
    assert find_copies(shown(partly, hashes([landscape(0)] * 16 + scene(4, seconds=6)))) == []


def test_copies_of_copies_lead_to_the_oldest():
    # The third shows the end of the second, which shows the end of the first; the first and the third share nothing.
    clips = [hashes(scene(5, start, 4)) for start in (0.0, 2.5, 5.0)]
    assert find_copies(shown(clips[0], clips[2])) == []
    expected = [Copy(1, 0, "near duplicate"), Copy(2, 0, "near duplicate")]
    assert find_copies(shown(*clips)) == expected
    # Also if the video in the middle is the newest one.
    assert find_copies(shown(clips[0], clips[2], clips[1])) == expected


def test_the_copies_of_chosen_videos_are_those_that_the_search_of_all_finds():
    chain = [hashes(scene(5, start, 4)) for start in (0.0, 2.5, 5.0, 7.5)]
    copies = [hashes(CHANGES[change](scene(place))) for place, change in enumerate(CHANGES)]
    generator = np.random.default_rng(0)
    shuffled = [(*ORIGINALS, *chain, *copies)[number] for number in generator.permutation(26)]
    videos = [Video(str(number), f"file {number % 13}", None, None, value) for number, value in enumerate(shuffled)]
    videos[1::2] = shown(*shuffled)[1::2]
    roots = list(range(len(videos)))
    for copy in find_copies(videos):
        roots[copy.video] = copy.original
    assert len(set(roots)) <= len(ORIGINALS)
    for chosen in ([], *([number] for number in range(26)), [3, 8, 21], list(range(26))):
        expected = {}
        for number, root in enumerate(roots):
            if number not in chosen and (same := [place for place in chosen if roots[place] == root]):
                expected[number] = same[0]
        assert find_copies_of(videos, chosen) == expected


def test_an_id_makes_no_copy_of_a_chosen_video():
    videos = windows(("a", "x", None, None), ("a", "y", None, None), ("b", "y", None, None))
    assert find_copies_of(videos, [0]) == {}
    assert find_copies_of(videos, [1]) == {2: 1}


def test_one_id_is_one_video_and_comes_first_of_the_reasons():
    videos = windows(("a", "x", None, None), ("b", "y", None, None), ("a", "x", None, None), ("a", "", 0.0, 1.0))
    assert find_copies(videos) == [Copy(2, 0, "same id"), Copy(3, 0, "same id")]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((None, None), (None, None), True),
        ((None, 5.0), (5.0, None), False),
        ((None, 5.0), (4.9, None), True),
        ((0.0, 10.0), (2.0, 3.0), True),
        ((3.0, 4.0), (10.0, 20.0), False),
        ((3.0, None), (10.0, 20.0), True),
    ],
)
def test_windows_of_one_file_are_copies_if_they_overlap(one, other, same):
    for first, second in ((one, other), (other, one)):
        videos = windows(("a", "digest", *first), ("b", "digest", *second), ("c", "another", *second))
        assert find_copies(videos) == ([Copy(1, 0, "same bytes")] if same else [])


def test_overlapping_windows_are_connected_as_all_pairs_say():
    generator = np.random.default_rng(0)
    for _ in range(200):
        starts = generator.integers(0, 30, 8)
        ends = starts + generator.integers(1, 12, 8)
        videos = windows(*((str(n), "d", float(starts[n]), float(ends[n])) for n in range(8)))
        roots = list(range(8))
        for _ in range(8):
            for one, other in itertools.combinations(range(8), 2):
                if starts[one] < ends[other] and starts[other] < ends[one]:
                    roots[one] = roots[other] = min(roots[one], roots[other])
        expected = [Copy(n, root, "same bytes") for n, root in enumerate(roots) if root != n]
        assert find_copies(videos) == expected


def test_separate_windows_of_one_file_are_never_near_duplicates():
    still = hashes([landscape(0)] * 16)
    videos = [Video("a", "digest", 0.0, 2.0, still), Video("b", "digest", 2.0, 4.0, still)]
    assert find_copies(videos) == []
    assert find_copies([videos[0], Video("b", "another", 2.0, 4.0, still)]) == [Copy(1, 0, "near duplicate")]


def test_empty_and_short_videos():
    frame, other = hashes(scene(0)[:1]), hashes(scene(1)[:1])
    assert find_copies([]) == []
    assert find_copies(shown(b"")) == []
    assert find_copies(shown(b"", b"", ORIGINALS[0])) == []
    assert find_copies(shown(frame, other, frame)) == [Copy(2, 0, "near duplicate")]
    assert find_copies(shown(frame, ORIGINALS[0])) == []  # one frame of a video is no copy of it
    assert find_copies(shown(bytes(49), bytes(49))) == []  # no frame has a hash


def test_a_thousand_copies_of_one_video_all_lead_to_the_oldest():
    generator = np.random.default_rng(0)
    rows = np.frombuffer(ORIGINALS[0][1:], "<u8").reshape(-1, 6)
    noise = np.bitwise_and.reduce(generator.integers(0, 1 << 63, (5, 1000, *rows.shape), dtype=np.uint64))
    noise[:, :, 2:] &= rows[:, 2:]  # what rises does not fall
    copies = [b"\0" + (rows ^ noise[number]).tobytes() for number in range(1000)]
    found = find_copies(shown(*ORIGINALS, *copies))
    assert found == [Copy(len(ORIGINALS) + number, 0, "near duplicate") for number in range(1000)]


def test_hashes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="video 1 are 10 bytes"):
        find_copies(shown(ORIGINALS[0], bytes(10)))
    with pytest.raises(ValueError, match="video 0 are 10 bytes"):
        find_matches([bytes(10)], [])


def test_matches_of_images_and_videos():
    frames = scene(2)
    references = [
        image_hashes(frames[8]),
        image_hashes(np.ascontiguousarray(frames[8][:, ::-1])),
        image_hashes(marked(landscape(7))),
        hashes(scene(3)[4:]),
        hashes(scene(9, 20.0)),
        b"",
    ]
    corpus = [ORIGINALS[1], ORIGINALS[2], hashes([marked(frame) for frame in scene(3)]), b""]
    found = find_matches(corpus, references)
    assert [(match.video, match.reference) for match in found] == [(1, 0), (1, 1), (2, 3)]
    assert found[0] == Match(1, 0, 0.0)
    assert find_matches([], references) == []
    assert find_matches(corpus, []) == []


def test_a_frame_must_be_almost_equal_to_an_image():
    video = np.random.default_rng(1).integers(1, 1 << 63, (16, 6), dtype=np.uint64)
    video[:, 4:] &= ~video[:, 2:4]  # what rises does not fall
    image = video[5:6] ^ np.array([[0xFFFF << 48, 0, 0, 0, 0, 0]], np.uint64)  # 16 bits of the highest frequencies
    corpus = [b"\0" + video.tobytes()]
    assert find_matches(corpus, [b"\0" + image.tobytes()]) == [Match(0, 0, 16.0)]
    image[0, 1] ^= np.uint64(1 << 62)
    assert find_matches(corpus, [b"\0" + image.tobytes()]) == []
