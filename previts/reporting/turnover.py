"""The reader of the generations of a corpus, and of what came and went between them.

Not in the paper, whose corpora were made once. A video is the same in two generations if it has the same id in a crawl
of the same identity. The identity of a crawl contains those of its sources. A corpus may have millions of videos, so
they are compared by digests in arrays.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from previts.corpus import index_table, members, quality
from previts.errors import InputError
from previts.reporting.generations import SHOWN, Generation, Turnover, read_numbers
from previts.reporting.inputs import short
from previts.storage import files, folders, tables

EXAMPLES = 2  # videos that are named for each reason
GONE = "gone"  # the reason of a video that the newer generation has not stored
_REASONS = ["", *quality.REASONS]
_MEASURES = ["videos_in", "videos", "videos_with_tube", "hours", *(f"filtered_{name}" for name in quality.REASONS)]


@dataclass(frozen=True)
class Stored:
    """The stored videos of a generation as arrays, one entry a video.

    Attributes:
        keys: Digests of the identity of the crawl and of the id, ascending.
        rows: The row of the quality table of each.
        reasons: Why it is left out, as a place in `_REASONS`.
        tracked: Whether it has a tube.
        seconds: Its length.
        table: The columns `video_id` and `detail` of the quality table.
    """

    keys: NDArray[np.uint64]
    rows: NDArray[np.int64]
    reasons: NDArray[np.uint8]
    tracked: NDArray[np.bool_]
    seconds: NDArray[np.float64]
    table: pa.Table

    def measure(self, name: str) -> NDArray[np.float64]:
        """Return how much each video adds to a count of its index."""
        kept = self.reasons == 0
        if name.startswith("filtered_"):
            found = self.reasons == _REASONS.index(name.removeprefix("filtered_"))
        else:
            found = {"videos_in": kept | True, "videos_with_tube": kept & self.tracked}.get(name, kept)
        return np.where(found, self.seconds / 3600 if name == "hours" else 1.0, 0.0)


def read_stored(index: str) -> Stored:
    """Return the stored videos of an index.

    Raises:
        InputError: If the index, its table of quality or the list of its crawls is missing or damaged.
    """
    crawls = [
        folders.fingerprint_of(uri, "videos") for uri in members.uris(folders.read_manifest(index).inputs["videos"])
    ]
    table = tables.read_table(files.join(index, index_table.QUALITY), quality.Quality)
    keys = np.empty(len(table), np.uint64)
    start = 0
    for batch in table.select(["crawl", "video_id"]).to_batches(max_chunksize=1 << 16):
        pairs = zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)
        digests = b"".join(
            hashlib.blake2b(f"{crawls[crawl]}/{video_id}".encode(), digest_size=8).digest() for crawl, video_id in pairs
        )
        keys[start : start + len(batch)] = np.frombuffer(digests, np.uint64)
        start += len(batch)
    place = {name: number for number, name in enumerate(_REASONS)}
    reasons = np.fromiter((place[name] for name in table.column("reason").to_pylist()), np.uint8, len(table))
    rows = np.argsort(keys)
    return Stored(
        keys[rows],
        rows,
        reasons[rows],
        (table.column("tube_seconds").to_numpy() > 0)[rows],
        table.column("seconds").to_numpy()[rows],
        table.select(["video_id", "detail"]),
    )


def compare(before: Stored, after: Stored) -> Turnover:
    """Return what came and what went between two generations."""
    _, in_before, in_after = np.intersect1d(before.keys, after.keys, assume_unique=True, return_indices=True)
    came, went = dict[str, int | float](), dict[str, int | float]()
    for name in _MEASURES:
        older, newer = before.measure(name), after.measure(name)
        had, has = np.zeros(len(newer)), np.zeros(len(older))
        had[in_after], has[in_before] = older[in_before], newer[in_after]
        for found, more in ((came, newer - had), (went, older - has)):
            total = float(more[more > 0].sum())
            found[name] = round(total, 4) if name == "hours" else int(total)
    now = np.full(len(before.keys), len(_REASONS), np.uint8)
    now[in_before] = after.reasons[in_after]
    row_now = np.full(len(before.keys), -1)
    row_now[in_before] = after.rows[in_after]
    lost = np.flatnonzero((before.reasons == 0) & (now != 0))
    names = [*_REASONS, GONE]
    reasons = Counter({names[number]: int(count) for number, count in enumerate(np.bincount(now[lost])) if count})
    examples = []
    for name in (ordered := dict(reasons.most_common())):
        same = lost[now[lost] == names.index(name)]
        for number in same[np.argsort(before.rows[same])][:EXAMPLES]:  # rows are sorted by id
            video_id = before.table.column("video_id")[int(before.rows[number])].as_py()
            row = int(row_now[number])
            examples.append((video_id, name, after.table.column("detail")[row].as_py() if row >= 0 else ""))
    return Turnover(came, went, ordered, tuple(examples))


def read_generations(earlier: Sequence[str], index: str) -> list[Generation]:
    """Return the generations of a corpus, the oldest first; the last one is the corpus itself, without numbers.

    Args:
        earlier: Finished reports of earlier generations, the oldest first.
        index: The corpus.

    Raises:
        InputError: If a report or an index is damaged, or the index of a report was deleted.
    """
    found = []
    for number, report in enumerate([*earlier, ""], start=1):
        uri = folders.read_manifest(report).inputs["index"] if report else index
        manifest = folders.read_manifest(uri)
        crawls = len(members.uris(manifest.inputs["videos"]))
        numbers = read_numbers(report) if report else {}
        found.append(Generation(number, manifest.fingerprint, uri, {"crawls": crawls, **manifest.counts}, numbers))
    first = max(0, len(found) - SHOWN - 1)
    if len(found) > 1:
        found[first:] = _turnovers(found[first:])
    return found


def _turnovers(generations: Sequence[Generation]) -> list[Generation]:
    """Return the generations, all but the first with what came and went; two are in memory at once."""
    found, before = [generations[0]], _stored(generations[0].index)
    for item in generations[1:]:
        after = _stored(item.index)
        if isinstance(before, str) or isinstance(after, str):
            cause = before if isinstance(before, str) else str(after)
            found.append(replace(item, turnover=Turnover({}, {}, {}, cause=cause)))
        else:
            found.append(replace(item, turnover=compare(before, after)))
        before = after
    return found


def _stored(index: str) -> Stored | str:
    """Return the stored videos of an index, or why they cannot be read."""
    try:
        return read_stored(index)
    except InputError as error:
        return short(error)
