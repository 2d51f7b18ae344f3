"""Oracles: the comparison of all pairs of frames, and videos of which all numbers are known."""

import numpy as np
import pytest

from previts.corpus import hash_alignment, hash_index
from previts.corpus.hash_index import decode_pairs, distances, find_pairs, find_pairs_between, make_table
from previts.media.frame_hashes import MIRROR

GENERATOR = np.random.default_rng(7)


def random_hashes(videos: int, frames: int) -> np.ndarray:
    return GENERATOR.integers(1, 1 << 63, (videos, frames, 2), dtype=np.uint64)


def table(hashes, doublings: int = 0):
    return make_table([bytes([doublings]) + video.tobytes() for video in hashes])


def pairs(found) -> set[tuple[int, int, bool]]:
    return {pair for codes in found for pair in zip(*(part.tolist() for part in decode_pairs(codes)), strict=True)}


def flipped(hashes: np.ndarray, bits: int) -> np.ndarray:
    """Return hashes in which some bits of each are changed."""
    changed = hashes.copy()
    for place in np.ndindex(hashes.shape[:-1]):
        for bit in GENERATOR.choice(128, bits, replace=False):
            changed[(*place, bit // 64)] ^= np.uint64(1) << np.uint64(bit % 64)
    return changed


def test_pairs_are_the_videos_with_a_common_frame():
    hashes = random_hashes(60, 6)
    hashes[40, 2], hashes[41, 0] = hashes[7, 5], hashes[8, 1] ^ MIRROR
    hashes[42, 3] = flipped(hashes[9, 4:5], 5)[0]
    expected = {(7, 40, False), (8, 41, True), (9, 42, False)}
    assert pairs(find_pairs(table(hashes))) == expected
    between = pairs(find_pairs_between(table(hashes[:20]), table(hashes[20:])))
    assert between == {(one, other - 20, mirrored) for one, other, mirrored in expected}


def test_few_frames_with_five_changed_bits_are_missed():
    hashes = random_hashes(300, 1)
    copies = flipped(hashes, 5)
    found = pairs(find_pairs_between(table(hashes), table(copies)))
    assert {one for one, _, _ in found} >= {one for one, other, _ in found if one == other}
    # Of 6 bands with at most 25 of 128 bits, P(all are changed) = about (1 - (103/128)^5)^6 = 0.08.
    assert len({one for one, other, _ in found if one == other}) > 250


def test_frames_that_differ_in_many_bits_make_no_pair():
    hashes = random_hashes(1, 1)
    other = hashes.copy()
    # The frames agree in all bits of a band, which is in the first part, and differ in the second.
    other[0, 0, 1] ^= np.uint64(0x5555_5555_5555_5555) | np.uint64(1 << 62)
    assert np.bitwise_count(hashes ^ other).sum() == hash_index.MAX_HIT
    assert pairs(find_pairs(table([hashes[0], other[0]]))) == {(0, 1, False)}
    other[0, 0, 1] ^= np.uint64(2)
    assert pairs(find_pairs(table([hashes[0], other[0]]))) == set()


def test_a_frame_that_many_videos_share_costs_a_bounded_number_of_pairs():
    videos = 2000
    hashes = random_hashes(videos, 3)
    hashes[:, 0] = hashes[0, 0]
    found = pairs(find_pairs(table(hashes)))
    assert len(found) <= videos * hash_index.NEIGHBOURS * 6
    assert {video for pair in found for video in pair[:2]} == set(range(videos))


def test_frames_without_a_hash_make_no_pairs():
    hashes = random_hashes(3, 2)
    hashes[:, 0] = 0
    assert pairs(find_pairs(table(hashes))) == set()


def test_a_central_half_without_a_hash_counts_as_the_whole_frame():
    one = np.array([[0b111, 0b1], [0b111, 0], [0b111, 0b1]], np.uint64)
    other = np.array([[0b001, 0b0110], [0b001, 0b0110], [0b001, 0]], np.uint64)
    no = np.zeros(3, bool)
    assert distances(one, other, no).tolist() == [2 + 3, 4, 4]
    assert distances(one ^ MIRROR, other, ~no).tolist()[0] == 5


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("shift", "count"), [(0, 10), (3, 7), (-4, 6)])
def test_the_best_shift_and_its_numbers(shift, count, mirrored):
    one = random_hashes(1, 10)
    other = random_hashes(1, 10)
    common = slice(max(0, shift), max(0, shift) + count)
    constant = np.uint64(0b111)  # in all frames the same three bits of the whole frame and of the central half
    other[0, max(0, -shift) : max(0, -shift) + count] = one[0, common] ^ constant ^ MIRROR * np.uint64(mirrored)
    found = hash_alignment.align(table(one), table(other), np.array([0]), np.array([0]), np.array([mirrored]))
    assert (found.shift[0], found.frames[0], found.near[0]) == (shift, count, count)
    assert (found.shorter[0], found.longer[0]) == (10, 10)
    assert found.distance[0] == 6
    assert found.difference[0] == 0  # the difference is the same in all frames
    bits = np.unpackbits(one[0, common].copy().view(np.uint8), axis=1).sum(axis=0)
    assert found.motion[0] == pytest.approx(2 * np.minimum(bits, count - bits).sum() / count)
    assert 55 < found.elsewhere[0] < 73
    assert hash_alignment.same_content(found).tolist() == [True]


def test_many_pairs_are_aligned_as_each_alone(monkeypatch):
    monkeypatch.setattr(hash_alignment, "_WORK", 100)
    hashes = random_hashes(12, 9)
    hashes[6:] = flipped(hashes[:6], 8)
    whole = table(hashes)
    one, other = np.arange(6), np.arange(6, 12)
    together = hash_alignment.align(whole, whole, one, other, np.zeros(6, bool))
    for number in range(6):
        part = slice(number, number + 1)
        alone = hash_alignment.align(whole, whole, one[part], other[part], np.zeros(1, bool))
        for name in ("shift", "frames", "near", "distance", "elsewhere", "motion", "difference"):
            assert getattr(together, name)[number] == getattr(alone, name)[0]
    assert (together.shift == 0).all()
    assert together.distance == pytest.approx(8)


MOVING = {"frames": 10, "shorter": 16, "longer": 40, "near": 5, "distance": 40.0, "elsewhere": 50.0, "motion": 60.0,
          "difference": 33.0}  # fmt: skip
STILL = {"frames": 12, "shorter": 16, "longer": 40, "near": 12, "distance": 5.0, "elsewhere": 18.0, "motion": 0.0,
         "difference": 0.0}  # fmt: skip
CLEAR = {"frames": 12, "shorter": 16, "longer": 40, "near": 12, "distance": 18.0, "elsewhere": 50.0, "motion": 20.0,
         "difference": 9.0}  # fmt: skip
FEW = {"frames": 2, "shorter": 2, "longer": 2, "near": 2, "distance": 5.0, "elsewhere": 64.0, "motion": 0.0,
       "difference": 0.0}  # fmt: skip


@pytest.mark.parametrize(
    ("base", "change"),
    [
        (MOVING, {"near": 4}),
        (MOVING, {"distance": 40.1}),  # more than 0.8 of elsewhere
        (MOVING, {"distance": 46.1, "elsewhere": 64.0}),
        (MOVING, {"difference": 33.1}),
        (MOVING, {"motion": 30.0, "difference": 10.0}),  # more than 0.5 of elsewhere
        (MOVING, {"motion": 30.0, "difference": 10.6, "distance": 20.0}),
        (CLEAR, {"distance": 18.1, "elsewhere": 60.0, "frames": 11}),
        (CLEAR, {"elsewhere": 49.9}),
        (CLEAR, {"difference": 9.1}),
        (CLEAR, {"frames": 11}),
        (CLEAR, {"motion": 3.0, "difference": 0.0}),
        (MOVING, {"frames": 3}),  # needs at most 12 bits then
        (STILL, {"distance": 5.1}),
        (STILL, {"elsewhere": 18.1}),
        (STILL, {"frames": 11}),
        (FEW, {"longer": 3}),
        (FEW, {"distance": 5.1}),
        (FEW, {"frames": 0}),
    ],
)
def test_each_condition_decides(base, change):
    def decided(numbers) -> bool:
        return bool(
            hash_alignment.same_content(
                hash_alignment.Alignments(np.array([0]), **{name: np.array([value]) for name, value in numbers.items()})
            )[0]
        )

    assert decided(base)
    assert not decided(base | change)


def test_hashes_at_half_the_rate_are_aligned_in_time():
    fine = random_hashes(1, 20)
    coarse = fine[:, 4::2]
    found = hash_alignment.align(table(fine), table(coarse, 1), np.array([0]), np.array([0]), np.array([False]))
    assert (found.shift[0], found.frames[0], found.distance[0]) == (4, 8, 0)
