"""The alignment of two videos by the hashes of their frames: whether they show the same, at the same rate.

Not in the paper. Single frames do not decide, because many clips are of one scene, and one camera. Two videos show the
same if, for some shift in time, most of their common frames are close, and if they change in the same way: the bits in
which they differ stay the same (a logo), while each of them changes. This module computes with arrays only.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from previts.corpus.hash_index import HashTable, Numbers, distances

NEAR = 36  # bits of 128: common frames that differ in fewer are evidence for a shift
# Chosen on 132 real clips and 395 copies of them (`tests/bench/test_copies_quality.py`).
_MIN_FRAMES = 3  # common frames
_MAX_DISTANCE = 46  # bits of 128, of videos that move
_MAX_FEW = 12  # the same, of videos with only `_MIN_FRAMES` common frames
_MAX_STILL = 5  # the same, of videos that hardly move
_MAX_STILL_ELSEWHERE = 18
_MIN_NEAR = 0.5  # share of the common frames, so that a title is not enough
_MAX_CONTRAST = 0.5, 0.8  # distance at the shift / distance elsewhere: of videos that move little, and of others
_MIN_MOTION = 4  # bits of 128
_MAX_INDEPENDENT = 0.35, 0.55  # difference / motion: of videos that move little, and of those that move much
_LITTLE, _MUCH = 30, 60  # bits of 128 of motion
# Videos of which almost all is common, and which are much nearer there than elsewhere.
_WHOLE_DISTANCE, _WHOLE_CONTRAST, _WHOLE_INDEPENDENT = 18, 0.36, 0.45
_MIN_SHARE = 0.75  # of the shorter video that must be common for these, and for videos that hardly move
_BESIDE = 4  # units of HASH_SECONDS
_MAX_RATES = 12  # doublings
_WORK = 1 << 19  # pairs of frames that are compared at a time


@dataclass(frozen=True)
class Alignments:
    """For each pair of videos, the best shift and what the common frames say.

    Attributes:
        shift: Time of the first video at time 0 of the second one, in units of HASH_SECONDS.
        frames: Number of common frames that have hashes.
        shorter: Number of frames with hashes of the video that has fewer of them.
        longer: The same of the other video.
        near: How many of them differ in at most `NEAR` bits.
        distance: Mean number of different bits, of 128.
        elsewhere: The same for the other frames, at shifts that differ by more than `_BESIDE`; 64 without such frames.
        motion: Mean number of bits, of 128, by which frames differ from the usual frame of their video, for both.
        difference: The same for the difference of the two videos. It is near `motion` if they move independently.
    """

    shift: Numbers
    frames: Numbers
    shorter: Numbers
    longer: Numbers
    near: Numbers
    distance: NDArray[np.float64]
    elsewhere: NDArray[np.float64]
    motion: NDArray[np.float64]
    difference: NDArray[np.float64]


def align(table: HashTable, others: HashTable, one: Numbers, other: Numbers, mirrored: NDArray[np.bool_]) -> Alignments:
    """Return the alignments of pairs of videos, `one` of `table` and `other` of `others`."""
    counts, other_counts, *_, width = _sizes(table, others, one, other)
    work = counts * other_counts + width
    parts = [_align(table, others, one[part], other[part], mirrored[part]) for part in _portions(work)]
    names = ("shift", "frames", "shorter", "longer", "near", "distance", "elsewhere", "motion", "difference")
    return Alignments(*(np.concatenate([getattr(part, name) for part in parts] or [np.zeros(0)]) for name in names))


def same_content(found: Alignments) -> NDArray[np.bool_]:
    """Return for each pair of videos whether they show the same at the same time.

    Videos that move must change in the same way, and must be nearer at the shift than elsewhere. In videos that hardly
    move, nothing shows the shift, so almost all frames of the shorter one must be almost equal. Two such clips of one
    scene are taken for copies even if they show different times.
    """
    moving = np.clip((found.motion - _LITTLE) / (_MUCH - _LITTLE), 0, 1)
    independent, contrast = (least + (most - least) * moving for least, most in (_MAX_INDEPENDENT, _MAX_CONTRAST))
    moves = (found.frames >= _MIN_FRAMES) & (found.motion >= _MIN_MOTION)
    together = (
        moves
        & (found.difference <= independent * found.motion)
        & (found.distance <= np.where(found.frames > _MIN_FRAMES, _MAX_DISTANCE, _MAX_FEW))
        & (found.distance <= contrast * found.elsewhere)
        & (found.near >= _MIN_NEAR * found.frames)
    )
    most = found.frames >= _MIN_SHARE * np.where(found.frames < _MIN_FRAMES, found.longer, found.shorter)
    clear = (
        moves
        & most
        & (found.difference <= _WHOLE_INDEPENDENT * found.motion)
        & (found.distance <= np.minimum(_WHOLE_DISTANCE, _WHOLE_CONTRAST * found.elsewhere))
    )
    still = (
        (found.frames > 0)
        & most
        & (found.distance <= _MAX_STILL)
        & ((found.elsewhere <= _MAX_STILL_ELSEWHERE) | (found.frames < _MIN_FRAMES))
    )
    return np.asarray(together | clear | still)


def _portions(work: Numbers) -> Iterator[slice]:
    """Yield slices of items, so that the work of each is at most `_WORK`, or it is one item."""
    total, start = np.cumsum(work), 0
    while start < len(work):
        done = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + _WORK, side="right")))
        yield slice(start, stop)
        start = stop


def _align(
    table: HashTable, others: HashTable, one: Numbers, other: Numbers, mirrored: NDArray[np.bool_]
) -> Alignments:
    counts, other_counts, times, other_times, width = _sizes(table, others, one, other)
    work = counts * other_counts
    pair = np.repeat(np.arange(len(one)), work)
    position, other_position = np.divmod(_within(work), np.repeat(other_counts, work))
    row = np.repeat(table.first[one], work) + position
    other_row = np.repeat(others.first[other], work) + other_position
    usable = (table.hashes[row, 0] != 0) & (others.hashes[other_row, 0] != 0)
    if not usable.all():
        pair, position, other_position = pair[usable], position[usable], other_position[usable]
        row, other_row = row[usable], other_row[usable]
    distance = distances(table.hashes[row], others.hashes[other_row], mirrored[pair])
    # One bin for each shift of each pair; the bins of a pair are neighbours.
    first_bin = np.cumsum(width) - width
    lowest = 1 - (other_counts << other_times)  # the shift of the first bin
    place = (first_bin - lowest)[pair] + (position << times[pair]) - (other_position << other_times[pair])
    evidence = np.bincount(place, np.maximum(0, NEAR - distance.astype(np.int16)), int(width.sum()))
    best = _first_largest(evidence, first_bin, width)
    away = np.abs(place - best[pair]) > (_BESIDE >> np.minimum(table.doublings[one], others.doublings[other]))[pair]
    others_count = np.bincount(pair[away], minlength=len(one))
    elsewhere = np.bincount(pair[away], distance[away], len(one))
    chosen = place == best[pair]
    pair, row, other_row, distance = pair[chosen], row[chosen], other_row[chosen], distance[chosen]
    frames = np.bincount(pair, minlength=len(one))
    lengths = table.usable[one], others.usable[other]
    some = np.maximum(frames, 1)
    hashes, other_hashes = table.hashes[row], others.hashes[other_row]
    flat = (hashes[:, 1] == 0) | (other_hashes[:, 1] == 0)  # no hash of a central half
    hashes[flat, 1] = other_hashes[flat, 1] = 0
    varying = [_variation(part, pair, len(one)) for part in (hashes, other_hashes, hashes ^ other_hashes)]
    return Alignments(
        (best - first_bin + lowest) << np.minimum(table.doublings[one], others.doublings[other]),
        frames,
        np.minimum(*lengths),
        np.maximum(*lengths),
        np.bincount(pair, distance <= NEAR, len(one)).astype(np.int64),
        np.bincount(pair, distance, len(one)) / some,
        np.where(others_count > 0, elsewhere / np.maximum(others_count, 1), 64.0),
        varying[0] + varying[1],
        varying[2],
    )


def _sizes(
    table: HashTable, others: HashTable, one: Numbers, other: Numbers
) -> tuple[Numbers, Numbers, Numbers, Numbers, Numbers]:
    """Return for each pair both numbers of hashes, both doublings beyond the common ones, and the number of shifts.

    Of a pair whose rates differ by more than `_MAX_RATES`, no hashes are compared.
    """
    times, other_times = table.doublings[one], others.doublings[other]
    common = np.minimum(times, other_times)
    times, other_times = times - common, other_times - common
    comparable = np.maximum(times, other_times) <= _MAX_RATES
    counts = np.where(comparable, np.diff(table.first)[one], 0)
    other_counts = np.where(comparable, np.diff(others.first)[other], 0)
    times, other_times = np.where(comparable, times, 0), np.where(comparable, other_times, 0)
    return counts, other_counts, times, other_times, (counts << times) + (other_counts << other_times) + 1


def _within(sizes: Numbers) -> Numbers:
    """Return 0, 1, ..., size - 1 for each size, in one array."""
    return np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _first_largest(values: NDArray[np.generic], first: Numbers, sizes: Numbers) -> Numbers:
    """Return the place of the first largest value of each run [first, first + size)."""
    if not len(first):
        return first
    largest = np.flatnonzero(values == np.repeat(np.maximum.reduceat(values, first), sizes))
    return np.asarray(largest[np.searchsorted(largest, first)], np.int64)


def _variation(hashes: NDArray[np.uint64], pair: Numbers, pairs: int) -> NDArray[np.float64]:
    """Return for each pair the mean number of bits by which its hashes differ from their usual value.

    Args:
        hashes: (number, 2).
        pair: The pair of each hash, ascending.
        pairs: Number of pairs.
    """
    total = np.zeros(pairs)
    if not len(hashes):
        return total
    starts = np.flatnonzero(np.concatenate([[True], pair[1:] != pair[:-1]]))
    counts = np.diff(np.append(starts, len(pair)))
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8), axis=1)
    ones = np.add.reduceat(bits, starts, axis=0, dtype=np.int64)
    total[pair[starts]] = np.minimum(ones, counts[:, None] - ones).sum(axis=1) / counts
    return total
