"""The hashes of the held-out items of a labelled set, as a table that is made once and kept.

Not in the paper. An item that cannot be read, or is too uniform for a hash, is named in the manifest and stops nothing.

Shape suffixes: K wanted frames.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from previts.errors import InputError
from previts.evals.held_out.items import Item, Kind, list_items
from previts.media.frame_hashes import HASH_SECONDS, MAX_HASHES, image_hashes, video_hashes
from previts.media.geometry import Pixels
from previts.media.video_reader import Footage
from previts.processes import prefetch
from previts.processes.progress import progress
from previts.storage import files, tables

TABLE = "items.parquet"
CAUSES_SHOWN = 20  # at most this many items without hashes are named
_AT_ONCE = 16  # frames of a video that are decoded at once


@dataclass(frozen=True)
class HeldOut:
    """An item that can be compared with a corpus; `hashes` as in `media.frame_hashes`."""

    name: str
    kind: Kind
    hashes: bytes


@dataclass(frozen=True)
class Written:
    """What a table contains.

    Attributes:
        items: Number of items with hashes, the rows of the table.
        unreadable: Number of items without hashes.
        causes: Why, for the first of these, by the names of the items; the cause of a whole set has the name "".
    """

    items: int
    unreadable: int
    causes: dict[str, str]


def write_table(uri: str, name: str, set_uri: str, splits: Sequence[str]) -> Written:
    """Compute the hashes of a labelled set, and write them to the table in a folder.

    If the items of the set cannot be listed, the table is empty, and the cause says why.

    Args:
        uri: The folder.
        name: Name of the set, one of `benchmarks.SETS`.
        set_uri: Folder of the set.
        splits: The splits that are evaluated, of a set with several.
    """
    rows: list[HeldOut] = []
    causes: dict[str, str] = {}
    unreadable = 0
    try:
        items = list_items(name, set_uri, splits)
    except (InputError, FileNotFoundError, NotADirectoryError) as error:
        items, causes[""] = [], str(error)
    found = prefetch.loaded(([item] for item in items), _hashes_or_cause, ahead=2 * prefetch.THREADS)
    shown = progress(found, f"held-out items of {name}", unit="item", total=len(items))
    for item, [hashes_or_cause] in zip(items, shown, strict=True):
        if isinstance(hashes_or_cause, bytes):
            rows.append(HeldOut(item.name, item.kind, hashes_or_cause))
            continue
        unreadable += 1
        if len(causes) < CAUSES_SHOWN:
            causes[item.name] = hashes_or_cause
    tables.write_records(files.join(uri, TABLE), HeldOut, rows)
    return Written(len(rows), unreadable, causes)


def read_table(uri: str) -> list[HeldOut]:
    """Return the items of a finished table.

    Raises:
        InputError: If the table is missing or damaged.
    """
    return tables.read_records(files.join(uri, TABLE), HeldOut)


def _hashes_or_cause(item: Item) -> bytes | str:
    """Return the hashes of an item, or why there are none."""
    try:
        found = item.open()
        hashes = footage_hashes(found) if isinstance(found, Footage) else image_hashes(found)
    except (ValueError, PermissionError) as error:  # of the readers, InputError; of NumPy, frames of several sizes
        return str(error)
    return hashes or "it is too uniform for a hash"


def footage_hashes(footage: Footage) -> bytes:
    """Return the hashes of a video of any rate (`media.frame_hashes`); only the frames of these are decoded.

    Raises:
        InputError: If a frame cannot be decoded.
    """
    return video_hashes(_frames_at_hashes(footage), 1 / HASH_SECONDS)


def _frames_at_hashes(footage: Footage) -> Iterator[Pixels]:
    """Yield the frame on screen at each multiple of `HASH_SECONDS`, or one before it where no hash is kept."""
    seconds = float(footage.times[-1]) + 1 / footage.fps
    count, step = max(1, int(np.ceil(seconds / HASH_SECONDS - 1e-6))), 1
    while -(-count // step) > MAX_HASHES:
        step *= 2
    wanted_K = np.arange(0, count, step) * HASH_SECONDS
    numbers = (np.searchsorted(footage.times, wanted_K + 1e-6, side="right") - 1).clip(0).tolist()
    left = count
    for start in range(0, len(numbers), _AT_ONCE):
        for frame in footage.read(numbers[start : start + _AT_ONCE]):
            for _ in range(min(step, left)):
                yield frame
            left -= step
