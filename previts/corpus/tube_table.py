"""Tubes (the mask of one object through a video), and the table of a shard's tubes.

PreViTS section 3.2: M in {0, 1}^(h x w x t). A tube follows one object. It is empty where the object is lost, and never
changes to another object. The stage `track` computes tubes and writes these tables (`tracking.tracker`); this module
stores and reads them.

Shape suffixes: T frames, H W pixels.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np

from previts.corpus import tube_layout, withdrawals
from previts.errors import InputError
from previts.media.masks import Mask, decode_rle
from previts.storage import files, folders, tables
from previts.storage.tables import Count, Crc, Place, Share

Unpacked = TypeVar("Unpacked")


@dataclass(frozen=True)
class Tube:
    """The masks of one object: one for each matched key frame, and for each frame of the video the mask that applies.

    Attributes:
        height: Height of the video in pixels.
        width: Width of the video in pixels.
        key_counts: Run lengths of each mask, as `masks.encode_rle` writes them.
        frame_keys: For each frame the position of its mask in `key_counts`, or -1 where the tube is empty.
    """

    height: int
    width: int
    key_counts: list[list[int]]
    frame_keys: list[int]

    def mask(self, frame: int) -> Mask:
        """Return the mask (height, width) of a frame, all False where the tube is empty."""
        return np.asarray(self.masks([frame])[0])

    def masks(self, frames: Sequence[int]) -> Mask:
        """Return the masks (T, height, width) of frames, which may be in any order and repeat.

        Raises:
            ValueError: If a frame is not one of the video.
        """
        tube_layout.check_frames(frames, len(self.frame_keys))
        mask_THW = np.zeros((len(frames), self.height, self.width), dtype=np.bool_)
        decoded: dict[int, Mask] = {}
        for place, frame in enumerate(frames):
            key = self.frame_keys[frame]
            if key < 0:
                continue
            if key not in decoded:
                decoded[key] = decode_rle(self.key_counts[key], self.height, self.width)
            mask_THW[place] = decoded[key]
        return mask_THW

    def spans(self) -> list[list[int]]:
        """Return the half-open spans [start, stop) of frames in which the tube is not empty."""
        visible = np.diff(np.array([-1, *self.frame_keys, -1]) >= 0).nonzero()[0]
        return [[int(start), int(stop)] for start, stop in visible.reshape(-1, 2)]

    def tracked_frames(self) -> int:
        """Return the number of frames in which the tube is not empty."""
        return sum(key >= 0 for key in self.frame_keys)

    def mean_area(self) -> float:
        """Return the mean share of the frame that the object covers where it is visible; 0 for an empty tube."""
        areas = [sum(counts[1::2]) for counts in self.key_counts]
        visible = [areas[key] for key in self.frame_keys if key >= 0]
        return float(np.mean(visible)) / (self.height * self.width) if visible else 0.0

    def lost_frame(self) -> int | None:
        """Return the first frame from which the tube is empty to the end; None if the last frame has a mask."""
        visible = [frame for frame, key in enumerate(self.frame_keys) if key >= 0]
        stop = visible[-1] + 1 if visible else 0
        return stop if stop < len(self.frame_keys) else None

    def border_share(self) -> float:
        """Return the share of the tube's masks that touch the edge of the frame; 0 for an empty tube."""
        masks = (decode_rle(counts, self.height, self.width) for counts in self.key_counts)
        touching = [mask[[0, -1]].any() or mask[:, [0, -1]].any() for mask in masks]
        return float(np.mean(touching)) if touching else 0.0

    def to_bytes(self) -> bytes:
        """Return the tube as a compact blob from which single masks can be read (`tube_layout`)."""
        return tube_layout.pack(self.height, self.width, self.key_counts, self.frame_keys)

    @classmethod
    def from_bytes(cls, blob: bytes) -> "Tube":
        """Return the tube of a blob.

        Raises:
            ValueError: If `to_bytes` did not write the blob, or it is damaged.
        """
        return cls.from_packed(tube_layout.unpack(blob))

    @classmethod
    def from_packed(cls, packed: tube_layout.PackedTube) -> "Tube":
        """Return the tube with all its masks.

        Raises:
            ValueError: If a mask is damaged.
        """
        counts = [packed.counts(key).tolist() for key in range(packed.num_masks)]
        return cls(packed.height, packed.width, counts, packed.frame_keys.tolist())


@dataclass(frozen=True)
class TubeRecord:
    """The tube of one video: its extent, and its bytes in the shard's blob file.

    Attributes:
        status: "tracked", or "empty" if no object could be followed.
        tracked_frames: Number of frames in which the tube is not empty.
        spans: Half-open spans [start, stop) of these frames.
        mean_area: Mean share of the frame that the object covers in these frames.
        offset: First byte of the tube in the blob file.
        size: Number of bytes of the tube.
        crc: CRC-32 of these bytes.
        lost_frame: First frame from which the tube is empty to the end; None if the last frame has a mask.
        border_share: Share of the matched key frames in which the mask touches the edge of the frame.
        agreement: Mean agreement of the handcrafted priors on the key frames where they were compared; None if on none.
    """

    video_id: str
    status: Literal["tracked", "empty"]
    tracked_frames: Count
    spans: list[list[Count]]
    mean_area: Share
    offset: Place
    size: Place
    crc: Crc
    lost_frame: Count | None
    border_share: Share
    agreement: Share | None


class StoredTube(Protocol):
    """The columns that are needed to read a tube; `index_table.IndexRecord` has them."""

    @property
    def shard(self) -> int: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def height(self) -> int: ...  # noqa: D102
    @property
    def num_frames(self) -> int: ...  # noqa: D102
    @property
    def tube_offset(self) -> int: ...  # noqa: D102
    @property
    def tube_size(self) -> int: ...  # noqa: D102
    @property
    def tube_crc(self) -> int: ...  # noqa: D102


def blob_name(shard: int) -> str:
    """Return the name of the blob file of a shard, which contains its tubes one after the other."""
    return f"shard-{shard:05d}.tubes"


def is_done(tubes_uri: str, shard: int) -> bool:
    """Return whether the tubes of a shard are written; its table is written last."""
    return files.exists(files.join(tubes_uri, tables.table_name(shard)))


def read_shard(tubes_uri: str, shard: int) -> list[TubeRecord]:
    """Return the rows of a shard, one for each usable video, in the order of the videos.

    Raises:
        InputError: If the table is missing or damaged.
    """
    return tables.read_records(files.join(tubes_uri, tables.table_name(shard)), TubeRecord)


class DamagedTubeError(InputError):
    """The bytes of one tube differ from the written bytes."""


def read_tube(tubes_uri: str, row: StoredTube) -> Tube:
    """Return one tube; it takes one range read.

    Raises:
        InputError: If the blob file is missing.
        DamagedTubeError: If the tube is damaged, or is one of another video than the row says.
    """
    return _read(tubes_uri, row, Tube.from_packed)


def byte_ranges(tubes_uri: str, row: StoredTube) -> files.Ranges:
    """Return the range of bytes of a tube."""
    return files.Ranges(
        files.join(tubes_uri, blob_name(row.shard)), [row.tube_offset], [row.tube_offset + row.tube_size]
    )


def read_masks(
    tubes_uri: str, row: StoredTube, frames: Sequence[int], read: files.Read = files.read_ranges
) -> list[Mask]:
    """Return the masks (H, W) of frames of a tube with one range read; frames that share a mask share the array.

    `read` reads the `byte_ranges` of the tube.

    Raises:
        ValueError: If a frame is not one of the video.
        InputError: As of `read_tube`.
    """
    return _read(tubes_uri, row, lambda packed: packed.masks(frames), read)


def _read(
    tubes_uri: str,
    row: StoredTube,
    take: Callable[[tube_layout.PackedTube], Unpacked],
    read: files.Read = files.read_ranges,
) -> Unpacked:
    ranges = byte_ranges(tubes_uri, row)
    uri, shard, (start,), (stop,) = ranges.uri, row.shard, ranges.starts, ranges.stops
    try:
        (blob,) = read(*ranges)
        if zlib.crc32(blob) != row.tube_crc:
            raise tube_layout.DamagedError("the bytes differ from those that were stored")
        packed = tube_layout.unpack(blob)
        found, wanted = (packed.height, packed.width, len(packed.frame_keys)), (row.height, row.width, row.num_frames)
        if found != wanted:
            raise tube_layout.DamagedError(f"it has (height, width, frames) {found}, its row says {wanted}")
        return take(packed)
    except (FileNotFoundError, IsADirectoryError) as error:
        what = "a folder, expected a file" if isinstance(error, IsADirectoryError) else "missing"
        raise InputError(
            f"{uri} is {what}; delete {tables.table_name(shard)} and {folders.MANIFEST} next to it "
            "and run `previts track` again"
        ) from None
    except tube_layout.DamagedError as error:
        _check_not_withdrawn(tubes_uri, shard, start)
        raise DamagedTubeError(
            f"{uri}, bytes {start} to {stop}: {error}; "
            f"delete {tables.table_name(shard)} and {folders.MANIFEST} next to it and run `previts track` again"
        ) from None


def _check_not_withdrawn(tubes_uri: str, shard: int, offset: int) -> None:
    """Raise a WithdrawnError if a tube, whose bytes are not those that were stored, is of a withdrawn video."""
    try:
        ledger, videos = withdrawals.read(withdrawals.root_of(tubes_uri)), folders.ancestor(tubes_uri, "videos")
        ids = {row.video_id for row in read_shard(tubes_uri, shard) if row.offset == offset}
        table = tables.parse(folders.read_file(videos, tables.table_name(shard)))
        rows = table.select(["video_id", "url", "identity"]).to_pylist()
    except (ValueError, KeyError, OSError):  # then the caller says that the bytes are damaged
        return
    for row in rows:
        if row["video_id"] in ids:
            ledger.check(videos, **row)
