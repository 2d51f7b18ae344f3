"""Copies in a corpus, and videos of a corpus that show something of a labelled set.

Not in the paper. Pretraining on a video twice counts it twice, and a corpus that shows the test videos of a benchmark
leaks them. This module computes with hashes; it reads no files.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from previts.corpus import hash_index
from previts.corpus.hash_alignment import Alignments, align, same_content
from previts.corpus.hash_index import HashTable, Numbers, make_table

Reason = Literal["same id", "same bytes", "near duplicate"]
REASONS: tuple[Reason, ...] = ("same id", "same bytes", "near duplicate")  # the first that applies is given

MAX_IMAGE_DISTANCE = 16  # bits of 128 by which a frame may differ from a labelled image


@dataclass(frozen=True, slots=True)
class Video:
    """What is known of a stored video.

    Attributes:
        video_id: Its id in its crawl.
        source_sha256: Digest of the file that was fetched; "" if it is not known.
        start_seconds: Start of the window of that file; None for its start.
        end_seconds: End of the window; None for the end of the file.
        hashes: Of its frames (`media.frame_hashes`); b"" if it has none.
    """

    video_id: str
    source_sha256: str
    start_seconds: float | None
    end_seconds: float | None
    hashes: bytes

    @property
    def window(self) -> tuple[float, float]:
        """Start and end in seconds; the end may be infinite."""
        end = math.inf if self.end_seconds is None else self.end_seconds
        return self.start_seconds or 0.0, end


@dataclass(frozen=True, slots=True)
class Copy:
    """A video that an older one of the corpus shows too; both are numbers of videos."""

    video: int
    original: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Match:
    """A video of a corpus that shows something of a reference; `distance` is in bits of 128, for the common frames."""

    video: int
    reference: int
    distance: float


def find_copies(videos: Iterable[Video]) -> list[Copy]:
    """Return the videos that are copies, in their order, each with the oldest video that it leads to.

    Two videos are the same if they have one id, or one source file with windows that overlap, or if their frames show
    the same at the same time, also mirrored, cut or marked. Windows of one source file that do not overlap never are.
    A copy of a copy leads to the original.

    Args:
        videos: The videos, the oldest first.

    Raises:
        ValueError: If the hashes of a video cannot be hashes.
    """
    table, ids, same_bytes, sources = _read(videos)
    one, other = (np.concatenate(ends) for ends in zip(ids, same_bytes, strict=True))
    rank = np.repeat([0, 1], [len(ids[0]), len(same_bytes[0])])
    one, other = _with_near(table, sources, one, other)
    rank = np.concatenate([rank, np.full(len(one) - len(rank), 2)])
    best = np.full(len(sources), len(REASONS))
    np.minimum.at(best, np.maximum(one, other), rank)
    only_newer = best == len(REASONS)  # it leads to its original only by a newer video that shows both
    of_older = np.full(len(sources), len(REASONS))
    np.minimum.at(of_older, np.minimum(one, other), rank)
    best = np.where(only_newer, of_older, best)
    roots = _roots(len(sources), one, other)
    copies = np.flatnonzero(roots != np.arange(len(sources)))
    return [Copy(int(number), int(roots[number]), REASONS[best[number]]) for number in copies]


def find_copies_of(videos: Iterable[Video], chosen: Sequence[int]) -> dict[int, int]:
    """Return the videos that show the same as a chosen one, each with the oldest chosen one that it leads to.

    As `find_copies`, but ids do not count, and only the copies of the chosen videos are searched, and copies of these.

    Args:
        videos: The videos, the oldest first.
        chosen: Numbers of some of them, ascending.

    Raises:
        ValueError: If the hashes of a video cannot be hashes.
    """
    table, _, (one, other), sources = _read(videos)
    searched = np.zeros(len(sources), np.bool_)
    while True:
        roots = _roots(len(sources), one, other)
        shown = np.isin(roots, roots[chosen])
        if not (shown & ~searched).any():
            break
        one, other = _with_near(table, sources, one, other, shown & ~searched)
        searched |= shown
    oldest: dict[int, int] = {}
    for number in chosen:
        oldest.setdefault(int(roots[number]), number)
    found = np.setdiff1d(np.flatnonzero(shown), chosen)
    return {int(number): oldest[int(roots[number])] for number in found}


def find_matches(corpus: Iterable[bytes], references: Iterable[bytes]) -> list[Match]:
    """Return which videos of a corpus show something of labelled videos or images, sorted by video and reference.

    An image is a reference with one hash: one frame of the video must be almost equal to it. For each frame of a
    reference and each band of the index, the nearest frames of the corpus are compared, so of many copies of one video
    some may be missing; remove copies before.

    Args:
        corpus: Hashes of the videos (`frame_hashes`).
        references: Hashes of labelled videos and images (`frame_hashes.video_hashes`, `image_hashes`).

    Raises:
        ValueError: If bytes cannot be hashes.
    """
    table, others = make_table(references), make_table(corpus)
    found: dict[tuple[int, int], float] = {}
    for codes in hash_index.find_pairs_between(table, others):
        reference, video, mirrored = hash_index.decode_pairs(codes)
        aligned = align(table, others, reference, video, mirrored)
        same = same_content(aligned) | _shows_image(aligned)
        for key in zip(video[same].tolist(), reference[same].tolist(), aligned.distance[same].tolist(), strict=True):
            found[key[:2]] = min(key[2], found.get(key[:2], math.inf))
    return [Match(*pair, distance) for pair, distance in sorted(found.items())]


_Links = tuple[Numbers, Numbers]  # both ends of each


def _read(videos: Iterable[Video]) -> tuple[HashTable, _Links, _Links, Numbers]:
    """Return the hashes, the links of equal ids, those of equal bytes, and numbers of the sources (-1 if not known)."""
    known: list[Video] = []

    def hashes() -> Iterator[bytes]:
        for video in videos:
            known.append(replace(video, hashes=b""))
            yield video.hashes

    table = make_table(hashes())
    ids, same_bytes = (
        np.array(list(links), np.int64).reshape(-1, 2).T for links in (_same_ids(known), _same_bytes(known))
    )
    sources = _numbered([video.source_sha256 for video in known])
    return table, (ids[0], ids[1]), (same_bytes[0], same_bytes[1]), sources


def _with_near(
    table: HashTable, sources: Numbers, one: Numbers, other: Numbers, of: NDArray[np.bool_] | None = None
) -> _Links:
    """Return links, and further ones that connect videos whose frames show the same; with `of`, only of these."""
    roots = _roots(len(sources), one, other)
    for codes in hash_index.find_pairs(table, of):
        first, second, mirrored = hash_index.decode_pairs(codes)
        # Two windows of one file either overlap, so they are known already, or show different times.
        new = (roots[first] != roots[second]) & ((sources[first] != sources[second]) | (sources[first] < 0))
        if of is not None:
            new &= of[first] | of[second]
        first, second, mirrored = first[new], second[new], mirrored[new]
        same = same_content(align(table, table, first, second, mirrored))
        one, other = np.concatenate([one, first[same]]), np.concatenate([other, second[same]])
        roots = _roots(len(sources), one, other)
    return one, other


def _shows_image(found: Alignments) -> NDArray[np.bool_]:
    return np.asarray((found.shorter == 1) & (found.frames == 1) & (found.distance <= MAX_IMAGE_DISTANCE))


def _same_ids(videos: Sequence[Video]) -> Iterator[tuple[int, int]]:
    """Yield each video whose id an older one has, after the number of that one."""
    oldest: dict[str, int] = {}
    for number, video in enumerate(videos):
        first = oldest.setdefault(video.video_id, number)
        if first != number:
            yield first, number


def _same_bytes(videos: Sequence[Video]) -> Iterator[tuple[int, int]]:
    """Yield links between videos of one source file, which connect all windows that overlap."""
    of_source: dict[str, list[int]] = {}
    for number, video in enumerate(videos):
        if video.source_sha256:
            of_source.setdefault(video.source_sha256, []).append(number)
    for numbers in of_source.values():
        last = -1  # the window that ends last, of those that start before
        for number in sorted(numbers, key=lambda number: videos[number].window):
            start, end = videos[number].window
            if last >= 0 and start < videos[last].window[1]:
                yield last, number
            if last < 0 or end > videos[last].window[1]:
                last = number


def _numbered(texts: Sequence[str]) -> Numbers:
    """Return a number for each text, equal ones for equal texts, and -1 for ""."""
    numbers: dict[str, int] = {"": -1}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)


def _roots(count: int, one: Numbers, other: Numbers) -> Numbers:
    """Return for each of `count` items the lowest item that it is linked with, directly or by others."""
    roots = np.arange(count)
    while (roots[one] != roots[other]).any():
        low, high = np.minimum(roots[one], roots[other]), np.maximum(roots[one], roots[other])
        np.minimum.at(roots, high, low)
        while (roots[roots] != roots).any():
            roots = roots[roots]
    return roots
