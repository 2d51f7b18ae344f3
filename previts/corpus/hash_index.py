"""An index of the hashes of frames: it finds pairs of videos that have at least one frame in common, without all pairs.

Not in the paper. A band is a choice of bits of a hash. Frames that agree in all bits of a band are neighbours in the
sorted keys of this band, and each is compared with a bounded number of neighbours. So the time grows like that of
sorting, also where thousands of videos share a frame. This module computes with arrays only; `hash_alignment.py`
decides whether two videos of a pair show the same.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from previts.media.frame_hashes import HASH_BYTES, MIRROR, Hashes, Steps, is_valid, split

Numbers = NDArray[np.int64]
Keys = NDArray[np.uint64]

NEIGHBOURS = 16  # in the order of the keys, with which a frame is compared in each band
MAX_HIT = 32  # bits of 128 by which two frames may differ to make their videos a pair
_OWN_STEPS = (range(1, 2), range(2, 5), range(5, NEIGHBOURS + 1))
_BLOCK = 1 << 20  # entries that are handled at a time

# The 23 to 27 bits of each band: of the hash of the frame, and of its central half. A byte is a row of frequencies, the
# lowest first; low frequencies are the most stable ones. On 779 copies of real clips, a band alone finds 87 to 96 %
# of the pairs, and all six find 99 %.
_BANDS = (
    (0x0000_0000_071F_1F1E, 0x0000_0000_0007_0F0E),
    (0x0000_0000_3F3F_3F3E, 0),
    (0, 0x0000_0000_3F3F_3F3E),
    (0x0707_0707_0700_0000, 0x0000_0000_0007_0F0E),
    (0x0707_0707_0707_0706, 0),
    (0, 0x0707_0707_0707_0706),
)
_FACTORS = np.uint64(0x9E37_79B9_7F4A_7C15), np.uint64(0xC2B2_AE3D_27D4_EB4F)  # odd, with mixed bits
_ROW_BITS, _REST_BITS = 28, 12  # of a sorted number: its row, and further bits of its hash below the key


@dataclass(frozen=True)
class HashTable:
    """The hashes of many videos in one array.

    Attributes:
        hashes: The first parts of all hashes (number, 2); 0 where a frame has none.
        steps: The second parts (number, 4); both are views of one array.
        first: Row of the first hash of each video, and the number of rows.
        doublings: Of each video, as in `media.frame_hashes`.
        usable: Number of frames of each video that have a hash.
        videos: Number of the video of each row.
    """

    hashes: Hashes
    steps: Steps
    first: Numbers
    doublings: Numbers
    usable: Numbers
    videos: NDArray[np.int32]


def make_table(videos: Iterable[bytes]) -> HashTable:
    """Return the table of the hashes of videos, which are copied one by one.

    Raises:
        ValueError: If bytes are not hashes, or there are more than 2 ** 28.
    """
    joined, ends, doublings = bytearray(), array("q", [0]), array("q")
    for number, hashes in enumerate(videos):
        if not is_valid(hashes):
            raise ValueError(f"the hashes of video {number} are {len(hashes)} bytes that cannot be hashes")
        joined += hashes[1:]
        if len(joined) >= HASH_BYTES << _ROW_BITS:
            raise ValueError(f"at most {1 << _ROW_BITS} hashes can be compared at once, got more by video {number}")
        ends.append(len(joined) // HASH_BYTES)
        doublings.append(hashes[0] if hashes else 0)
    first = np.array(ends, np.int64)
    rows, steps = split(joined)
    owners = np.repeat(np.arange(len(doublings), dtype=np.int32), np.diff(first))
    usable = np.bincount(owners[rows[:, 0] != 0], minlength=len(doublings))
    return HashTable(rows, steps, first, np.array(doublings, np.int64), usable, owners)


def distances(one: Hashes, other: Hashes, mirrored: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the number of different bits of each two hashes, of 128, where one of them may be mirrored.

    If a central half has no hash, the whole frame counts twice.
    """
    parts = np.bitwise_count(one ^ other ^ np.where(mirrored, MIRROR, np.uint64(0))[:, None])
    flat = (one[:, 1] == 0) | (other[:, 1] == 0)
    return np.asarray(np.where(flat, 2 * parts[:, 0], parts[:, 0] + parts[:, 1]), np.uint8)


def find_pairs(table: HashTable, of: NDArray[np.bool_] | None = None) -> Iterator[Keys]:
    """Yield the pairs of videos that share a frame, as codes (`decode_pairs`), each of them once.

    The nearest neighbours of a band come first, so a caller can leave out pairs that these have connected.

    Args:
        table: The videos.
        of: Of each video, whether all of its pairs are needed. Other pairs are then incomplete. By default, of all.
    """
    tested = np.zeros(0, np.uint64)
    for band in range(len(_BANDS)):
        keys, turned = _sorted_keys(table, band, of)
        for steps in _OWN_STEPS:
            found = _compared(table, table, keys, keys, turned, turned, steps, own=True)
            found = found[~_contains(tested, found)]
            tested = np.union1d(tested, found)
            yield found


def find_pairs_between(table: HashTable, others: HashTable) -> Iterator[Keys]:
    """Yield the pairs of a video of `table` with one of `others`, as `find_pairs` does."""
    tested = np.zeros(0, np.uint64)
    for band in range(len(_BANDS)):
        keys, turned = _sorted_keys(table, band)
        other_keys, other_turned = _sorted_keys(others, band)
        steps = range(-(NEIGHBOURS // 2), NEIGHBOURS // 2)
        found = _compared(table, others, keys, other_keys, turned, other_turned, steps, own=False)
        found = found[~_contains(tested, found)]
        tested = np.union1d(tested, found)
        yield found


def decode_pairs(codes: Keys) -> tuple[Numbers, Numbers, NDArray[np.bool_]]:
    """Return for each pair the number of the first video, of the second one, and whether one is mirrored."""
    one, other = codes >> np.uint64(32), (codes >> np.uint64(1)) & np.uint64(0x7FFF_FFFF)
    return one.astype(np.int64), other.astype(np.int64), (codes & np.uint64(1)).astype(bool)


def _contains(ordered: Keys, values: Keys) -> NDArray[np.bool_]:
    places = np.searchsorted(ordered, values)
    inside = places < len(ordered)
    inside[inside] = ordered[places[inside]] == values[inside]
    return np.asarray(inside)


def _sorted_keys(table: HashTable, band: int, of: NDArray[np.bool_] | None = None) -> tuple[Keys, NDArray[np.bool_]]:
    """Return the sorted entries of a band (key, further bits, row), and for each row whether its key is mirrored.

    An image and its mirror image have the same key. Of equal entries of one video, the first is used. With `of`, only
    the entries whose key a frame of one of these videos has too.
    """
    count, shift = len(table.hashes), np.uint64(_ROW_BITS + _REST_BITS)
    keys, turned, filled = np.empty(count, np.uint64), np.empty(count, np.bool_), 0
    wanted = None
    if of is not None:
        keys_of, _ = _entries(table, np.flatnonzero(of[table.videos]), band)
        wanted = np.zeros(1 << (64 - _ROW_BITS - _REST_BITS), np.bool_)
        wanted[keys_of >> shift] = True
    for start in range(0, count, _BLOCK):
        block, turned[start : start + _BLOCK] = _entries(table, np.arange(start, min(start + _BLOCK, count)), band)
        if wanted is not None:
            block = block[wanted[block >> shift]]
        keys[filled : filled + len(block)] = block
        filled += len(block)
    keys = keys[:filled]
    keys.sort()
    new = np.ones(filled, np.bool_)
    for start in range(1, filled, _BLOCK):
        block = keys[start - 1 : start + _BLOCK]
        videos = table.videos[block & np.uint64((1 << _ROW_BITS) - 1)]
        entries = block >> np.uint64(_ROW_BITS)
        new[start : start + _BLOCK] = (entries[1:] != entries[:-1]) | (videos[1:] != videos[:-1])
    return keys[new], turned


def _entries(table: HashTable, rows: Numbers, band: int) -> tuple[Keys, NDArray[np.bool_]]:
    """Return the entries of the rows that have a hash for the band, and for each row whether its key is mirrored."""
    block = table.hashes[rows]
    upright, mirrored = _mixed(block, band), _mixed(block ^ MIRROR, band)
    turn = mirrored < upright
    rest = (np.where(turn, block[:, 0] ^ MIRROR, block[:, 0]) >> np.uint64(1)) & np.uint64((1 << _REST_BITS) - 1)
    key = np.minimum(upright, mirrored) >> np.uint64(_ROW_BITS + _REST_BITS)
    usable = block[:, 0] != 0
    if _BANDS[band][1]:
        usable &= block[:, 1] != 0
    return ((((key << np.uint64(_REST_BITS)) | rest) << np.uint64(_ROW_BITS)) | rows.astype(np.uint64))[usable], turn


def _mixed(block: Hashes, band: int) -> Keys:
    whole, centre = (np.uint64(mask) for mask in _BANDS[band])
    mixed = (block[:, 0] & whole) * _FACTORS[0] ^ (block[:, 1] & centre) * _FACTORS[1]
    return np.asarray((mixed ^ (mixed >> np.uint64(29))) * _FACTORS[0], np.uint64)


def _compared(
    table: HashTable,
    others: HashTable,
    keys: Keys,
    other_keys: Keys,
    turned: NDArray[np.bool_],
    other_turned: NDArray[np.bool_],
    steps: Sequence[int],
    *,
    own: bool,
) -> Keys:
    """Return the pairs whose entries are neighbours in the sorted keys and differ in few bits."""
    videos, other_videos = table.videos, others.videos
    row_mask, shift = np.uint64((1 << _ROW_BITS) - 1), np.uint64(_ROW_BITS + _REST_BITS)
    found: list[Keys] = []
    for start in range(0, len(keys), _BLOCK):
        entries = keys[start : start + _BLOCK]
        at = np.arange(start, start + len(entries)) if own else np.searchsorted(other_keys, entries)
        for step in steps:
            place = at + step
            inside = np.flatnonzero((place >= 0) & (place < len(other_keys)))
            near = other_keys[place[inside]]
            equal = near >> shift == entries[inside] >> shift
            if own and not equal.any():
                break
            rows, other_rows = entries[inside[equal]] & row_mask, near[equal] & row_mask
            one, other = videos[rows].astype(np.uint64), other_videos[other_rows].astype(np.uint64)
            if own:
                different = one != other
                rows, other_rows, one, other = (array[different] for array in (rows, other_rows, one, other))
            mirrored = turned[rows] != other_turned[other_rows]
            close = distances(table.hashes[rows], others.hashes[other_rows], mirrored) <= MAX_HIT
            if own:
                one, other = np.minimum(one, other), np.maximum(one, other)
            found.append(np.unique(((one << np.uint64(32)) | (other << np.uint64(1)) | mirrored)[close]))
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)
