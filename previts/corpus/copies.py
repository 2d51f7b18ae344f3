"""Copies in a corpus, and videos of a corpus that show something of a labelled set.

Not in the paper. Pretraining on a video twice counts it twice, and a corpus that shows the test videos of a benchmark
leaks them. This module computes with hashes; it reads no files.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from previts.corpus import hash_index
from previts.corpus.hash_alignment import Alignments, align, same_content
from previts.corpus.hash_index import Numbers, make_table

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


def find_copies(videos: Sequence[Video]) -> list[Copy]:
    """Return the videos that are copies, in their order, each with the oldest video that it leads to.

    Two videos are the same if they have one id, or one source file with windows that overlap, or if their frames show
    the same at the same time, also mirrored, cut or marked. Windows of one source file that do not overlap never are.
    A copy of a copy leads to the original.

    Args:
        videos: The videos, the oldest first.

    Raises:
        ValueError: If the hashes of a video cannot be hashes.
    """
    table = make_table([video.hashes for video in videos])
    links = [(*link, rank) for rank, found in enumerate((_same_ids(videos), _same_bytes(videos))) for link in found]
    one, other, rank = (np.array(column, np.int64) for column in zip(*links, strict=True)) if links else [_NONE] * 3
    roots = _roots(len(videos), one, other)
    sources = _numbered([video.source_sha256 for video in videos])
    for codes in hash_index.find_pairs(table):
        first, second, mirrored = hash_index.decode_pairs(codes)
        # Two windows of one file either overlap, so they are known already, or show different times.
        new = (roots[first] != roots[second]) & ((sources[first] != sources[second]) | (sources[first] < 0))
        first, second, mirrored = first[new], second[new], mirrored[new]
        same = same_content(align(table, table, first, second, mirrored))
        one, other = np.concatenate([one, first[same]]), np.concatenate([other, second[same]])
        rank = np.concatenate([rank, np.full(int(same.sum()), 2)])
        roots = _roots(len(videos), one, other)
    best = np.full(len(videos), len(REASONS))
    np.minimum.at(best, np.maximum(one, other), rank)
    only_newer = best == len(REASONS)  # it leads to its original only by a newer video that shows both
    of_older = np.full(len(videos), len(REASONS))
    np.minimum.at(of_older, np.minimum(one, other), rank)
    best = np.where(only_newer, of_older, best)
    copies = np.flatnonzero(roots != np.arange(len(videos)))
    return [Copy(int(number), int(roots[number]), REASONS[best[number]]) for number in copies]


def find_matches(corpus: Sequence[bytes], references: Sequence[bytes]) -> list[Match]:
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


_NONE = np.zeros(0, np.int64)


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
