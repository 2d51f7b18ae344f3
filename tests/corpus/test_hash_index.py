"""Oracles: the comparison of all pairs of frames, and videos of which all numbers are known."""

import numpy as np
import pytest

from previts.corpus import hash_alignment, hash_index
from previts.corpus.hash_index import decode_pairs, distances, find_pairs, find_pairs_between, make_table
from previts.media.frame_hashes import MIRROR

GENERATOR = np.random.default_rng(7)


def random_hashes(videos: int, frames: int) -> np.ndarray:
    return GENERATOR.integers(1, 1 << 63, (videos, frames, 2), dtype=np.uint64)


def random_steps(videos: int, frames: int) -> np.ndarray:
    """Return random steps (videos, frames, 8, 16): -1, 0 or 1."""
    return GENERATOR.choice([-1, 0, 1], (videos, frames, 8, 16), p=(0.3, 0.4, 0.3))


def table(hashes, doublings: int = 0, steps=None):
    """Return the table of videos with the first parts of hashes, and steps from 8 rows of 16, or none."""
    hashes = np.asarray(hashes)
    steps = np.zeros((*hashes.shape[:2], 8, 16)) if steps is None else steps
    bits = np.stack([steps == 1, steps == -1], axis=2).reshape(*hashes.shape[:2], 256)
    second = np.packbits(bits, axis=2, bitorder="little").view("<u8")
    return make_table([bytes([doublings]) + video.tobytes() for video in np.concatenate([hashes, second], axis=2)])


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


def test_the_search_of_some_videos_finds_all_of_their_pairs():
    hashes = random_hashes(300, 6)
    hashes[::3, 0] = flipped(np.repeat(hashes[:1, 0], 100, axis=0), 2)
    hashes[150:, 4] = flipped(hashes[:150, 2], 3)
    of = np.arange(300) % 50 == 0
    every = pairs(find_pairs(table(hashes)))
    needed = {pair for pair in every if of[pair[0]] or of[pair[1]]}
    found = pairs(find_pairs(table(hashes), of))
    assert needed <= found < every
    assert len(needed) > 50


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
    one, other = random_hashes(1, 10), random_hashes(1, 10)
    steps, other_steps = random_steps(1, 10), random_steps(1, 10)
    common, place = slice(max(0, shift), max(0, shift) + count), slice(max(0, -shift), max(0, -shift) + count)
    constant = np.uint64(0b111)  # in all frames the same three bits of the whole frame and of the central half
    other[0, place] = one[0, common] ^ constant ^ MIRROR * np.uint64(mirrored)
    shown, copied = steps[0, common], steps[0, common].copy()
    copied[:, :2] = GENERATOR.choice([-1, 0, 1], (2, 16))  # a logo: two rows that stay as they are
    other_steps[0, place] = -copied[:, :, ::-1] if mirrored else copied
    tables = table(one, steps=steps), table(other, steps=other_steps)
    found = hash_alignment.align(*tables, np.array([0]), np.array([0]), np.array([mirrored]))
    assert (found.shift[0], found.frames[0], found.shorter[0], found.longer[0]) == (shift, count, 10, 10)
    assert found.distance[0] == 6
    vectors = [part.reshape(count, 128).astype(float) for part in (shown, copied)]
    each = [float(x @ y / np.sqrt((x @ x) * (y @ y))) for x, y in zip(*vectors, strict=True)]
    assert found.alike[0] == sum(likeness >= 0.65 for likeness in each)
    assert found.likeness[0] == pytest.approx(cosine(*vectors))
    changes = [vector - vector.mean(axis=0) for vector in vectors]
    assert found.changes[0] == pytest.approx(cosine(*changes))
    lengths = [(change**2).sum() for change in changes]
    assert found.motion[0] == pytest.approx(np.sqrt(lengths[0] * lengths[1]) / count)
    assert hash_alignment.same_content(found).tolist() == [True]


def cosine(one, other) -> float:
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))


def test_videos_without_steps_or_without_common_frames_have_no_likeness():
    hashes = random_hashes(2, 3)
    found = hash_alignment.align(table(hashes), table(hashes), np.array([0]), np.array([0]), np.array([False]))
    assert (found.frames[0], found.likeness[0], found.changes[0], found.motion[0]) == (3, 0, 0, 0)
    hashes[1] = 0
    found = hash_alignment.align(table(hashes), table(hashes), np.array([0]), np.array([1]), np.array([True]))
    assert (found.frames[0], found.alike[0], found.likeness[0], found.motion[0]) == (0, 0, 0, 0)
    assert hash_alignment.same_content(found).tolist() == [False]


def test_many_pairs_are_aligned_as_each_alone(monkeypatch):
    monkeypatch.setattr(hash_alignment, "_WORK", 100)
    hashes = random_hashes(12, 9)
    hashes[6:] = flipped(hashes[:6], 8)
    steps = random_steps(12, 9)
    steps[6:, :, 1:] = steps[:6, :, 1:]
    whole = table(hashes, steps=steps)
    one, other = np.arange(6), np.arange(6, 12)
    together = hash_alignment.align(whole, whole, one, other, np.zeros(6, bool))
    for number in range(6):
        part = slice(number, number + 1)
        alone = hash_alignment.align(whole, whole, one[part], other[part], np.zeros(1, bool))
        for name in ("shift", "frames", "distance", "alike", "likeness", "changes", "motion"):
            assert getattr(together, name)[number] == getattr(alone, name)[0]
    assert (together.shift == 0).all()
    assert together.distance == pytest.approx(8)


MOVING = {"frames": 8, "shorter": 32, "longer": 40, "alike": 6, "distance": 32.0, "likeness": 0.52, "changes": 0.45,
          "motion": 10.0}  # fmt: skip
STILL = {"frames": 24, "shorter": 32, "longer": 40, "alike": 18, "distance": 0.0, "likeness": 0.82, "changes": 0.0,
         "motion": 2.0}  # fmt: skip
FEW = {"frames": 2, "shorter": 2, "longer": 2, "alike": 2, "distance": 0.0, "likeness": 0.82, "changes": 0.0,
       "motion": 0.0}  # fmt: skip


@pytest.mark.parametrize(
    ("base", "change"),
    [
        (MOVING, {"frames": 7}),  # a quarter of the shorter video
        (MOVING, {"alike": 5}),
        (MOVING, {"likeness": 0.51}),  # 0.52 + 3 * (0.45 - 0.3) - 0.6 * 32 / 128 = 0.82
        (MOVING, {"changes": 0.44}),
        (MOVING, {"distance": 34.0}),
        (MOVING, {"motion": 6.0, "frames": 16, "alike": 16}),  # the changes count half
        (STILL, {"frames": 23}),  # three quarters of the shorter video
        (STILL, {"alike": 17}),
        (STILL, {"likeness": 0.81}),
        (STILL, {"distance": 1.0}),
        (STILL, {"motion": 3.0}),  # its changes differ
        (FEW, {"longer": 3}),
        (FEW, {"frames": 0, "alike": 0}),
    ],
)
def test_each_condition_decides(base, change):
    def decided(numbers) -> bool:
        arrays = {name: np.array([value]) for name, value in numbers.items()}
        return bool(hash_alignment.same_content(hash_alignment.Alignments(np.array([0]), **arrays))[0])

    assert decided(base | {"likeness": base["likeness"] + 1e-9})
    assert not decided(base | change)


def test_hashes_at_half_the_rate_are_aligned_in_time():
    fine = random_hashes(1, 20)
    coarse = fine[:, 4::2]
    found = hash_alignment.align(table(fine), table(coarse, 1), np.array([0]), np.array([0]), np.array([False]))
    assert (found.shift[0], found.frames[0], found.distance[0]) == (4, 8, 0)
