"""The alignment of two videos by the hashes of their frames: whether they show the same, at the same rate.

Not in the paper. The first parts of the hashes give the shift in time. The second parts decide, because many clips are
of one scene and one camera: the steps of luma must be the same, and they must change in the same way. In a video that
hardly moves no change counts, so almost all of its steps must be the same. This module computes with arrays only.

Shape suffixes: K pairs of frames, P pairs of videos, B steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from previts.corpus.hash_index import HashTable, Numbers, distances
from previts.media.frame_hashes import Steps, mirrored_steps, step_bytes

NEAR = 36  # bits of 128: common frames that differ in fewer are evidence for a shift
# Chosen on one half of the clips and copies of `tests/bench/test_copies_quality.py`.
_MIN_LIKENESS = 0.82  # of videos that do not move and whose first parts are equal
_LITTLE, _MUCH = 2, 10  # steps of 128 of motion: between them, changes count more and more
_WEIGHT, _MIN_CHANGES = 3.0, 0.3  # of the changes of videos that move much
_COST = 0.6 / 128  # of each bit of distance
_ALIKE, _MIN_ALIKE = 0.65, 0.75  # likeness of two frames, and the share of the common frames that must have it
_MIN_FRAMES = 3  # common frames; with fewer, both videos must have few
_MIN_SHARE = 0.75, 0.25  # of the shorter video that must be common: of videos that do not move, and that move much
_MAX_RATES = 12  # doublings
_NOTHING = 1e-6  # a squared length below it is a rounding error
_WORK = 1 << 19  # pairs of frames that are compared at a time


@dataclass(frozen=True)
class Alignments:
    """For each pair of videos, the best shift and what the common frames say.

    The steps of a frame are a vector with 1 where the luma rises, -1 where it falls, and 0 elsewhere. A video is the
    vector of all its common frames. Its changes are the vector without the mean over time.

    Attributes:
        shift: Time of the first video at time 0 of the second one, in units of HASH_SECONDS.
        frames: Number of common frames that have hashes.
        shorter: Number of frames with hashes of the video that has fewer of them.
        longer: The same of the other video.
        distance: Mean number of bits in which the first parts of common frames differ, of 128.
        alike: Number of common frames that have a likeness of at least `_ALIKE`.
        likeness: Cosine of the angle between both videos.
        changes: The same of their changes; 0 if one of them does not move.
        motion: Steps that change, of 128: the mean squared length of the changes, as geometric mean of both videos.
    """

    shift: Numbers
    frames: Numbers
    shorter: Numbers
    longer: Numbers
    distance: NDArray[np.float64]
    alike: Numbers
    likeness: NDArray[np.float64]
    changes: NDArray[np.float64]
    motion: NDArray[np.float64]


def align(table: HashTable, others: HashTable, one: Numbers, other: Numbers, mirrored: NDArray[np.bool_]) -> Alignments:
    """Return the alignments of pairs of videos, `one` of `table` and `other` of `others`."""
    counts, other_counts, *_, width = _sizes(table, others, one, other)
    work = counts * other_counts + width
    parts = [_align(table, others, one[part], other[part], mirrored[part]) for part in _portions(work)]
    names = [field.name for field in fields(Alignments)]
    return Alignments(*(np.concatenate([getattr(part, name) for part in parts] or [np.zeros(0)]) for name in names))


def same_content(found: Alignments) -> NDArray[np.bool_]:
    """Return for each pair of videos whether they show the same at the same time.

    Two clips of one scene in which almost nothing differs are taken for copies even if they show different times.
    """
    moving = np.clip((found.motion - _LITTLE) / (_MUCH - _LITTLE), 0, 1)
    score = found.likeness + moving * _WEIGHT * (found.changes - _MIN_CHANGES) - _COST * found.distance
    share = _MIN_SHARE[0] + (_MIN_SHARE[1] - _MIN_SHARE[0]) * moving
    needed = np.where(found.frames < _MIN_FRAMES, _MIN_SHARE[0] * found.longer, share * found.shorter)
    most = (found.frames >= needed) & (found.alike >= _MIN_ALIKE * found.frames)
    return np.asarray((found.frames > 0) & most & (score >= _MIN_LIKENESS))


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
    chosen = place == best[pair]
    pair, row, other_row, distance = pair[chosen], row[chosen], other_row[chosen], distance[chosen]
    frames = np.bincount(pair, minlength=len(one))
    lengths = table.usable[one], others.usable[other]
    return Alignments(
        (best - first_bin + lowest) << np.minimum(table.doublings[one], others.doublings[other]),
        frames,
        np.minimum(*lengths),
        np.maximum(*lengths),
        np.bincount(pair, distance, len(one)) / np.maximum(frames, 1),
        *_compare(table.steps[row], others.steps[other_row], mirrored[pair], pair, frames),
    )


def _compare(
    steps_K: Steps, other_steps_K: Steps, mirrored_K: NDArray[np.bool_], pair_K: Numbers, frames_P: Numbers
) -> tuple[Numbers, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return `alike`, `likeness`, `changes` and `motion` of pairs of videos; `pair_K` ascends."""
    other_steps_K = other_steps_K.copy()
    other_steps_K[mirrored_K] = mirrored_steps(other_steps_K[mirrored_K])
    vectors_KB, other_vectors_KB = _vectors(steps_K), _vectors(other_steps_K)
    product_K = (vectors_KB * other_vectors_KB).sum(axis=1, dtype=np.int64)
    length_K, other_length_K = (
        np.bitwise_count(steps).sum(axis=1, dtype=np.int64) for steps in (steps_K, other_steps_K)
    )
    alike_K = product_K >= _ALIKE * np.sqrt(length_K * other_length_K)
    sums_PB, other_sums_PB = (_sums(vectors, frames_P) for vectors in (vectors_KB, other_vectors_KB))
    some_P = np.maximum(frames_P, 1)

    def whole_and_changes(values_K: Numbers, one_PB: Numbers, other_PB: Numbers) -> NDArray[np.float64]:
        """Return the scalar products of two videos, and those of their changes."""
        whole_P = np.bincount(pair_K, values_K, len(frames_P))
        return np.stack([whole_P, whole_P - (one_PB * other_PB).sum(axis=1) / some_P])

    products = whole_and_changes(product_K, sums_PB, other_sums_PB)
    squares = whole_and_changes(length_K, sums_PB, sums_PB)
    squares *= whole_and_changes(other_length_K, other_sums_PB, other_sums_PB)
    lengths = np.sqrt(np.maximum(squares, 0))
    likeness_P, changes_P = np.divide(products, lengths, where=lengths > _NOTHING, out=np.zeros_like(products))
    alike_P = np.bincount(pair_K, alike_K, len(frames_P)).astype(np.int64)
    return alike_P, likeness_P, changes_P, lengths[1] / some_P


def _sums(vectors_KB: NDArray[np.int8], frames_P: Numbers) -> Numbers:
    """Return the sum of the vectors of each video."""
    sums_PB = np.zeros((len(frames_P), vectors_KB.shape[1]), np.int64)
    shown = np.flatnonzero(frames_P)
    if len(shown):
        starts = (np.cumsum(frames_P) - frames_P)[shown]
        sums_PB[shown] = np.add.reduceat(vectors_KB, starts, dtype=np.int64)
    return sums_PB


def _vectors(steps_K: Steps) -> NDArray[np.int8]:
    bits = np.unpackbits(step_bytes(steps_K), axis=1).view(np.int8)
    rises, falls = np.split(bits, 2, axis=1)
    return np.asarray(rises - falls)


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
    counts = np.where(comparable, table.first[one + 1] - table.first[one], 0)
    other_counts = np.where(comparable, others.first[other + 1] - others.first[other], 0)
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
