"""How a tube is stored as bytes, so that the masks of a few frames can be read without the others.

It stores the tubes of PreViTS section 3.2. The loader needs the masks of 1 or 16 frames of 250. This module works on
bytes; it reads and writes no files.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from previts.media.masks import Mask, decode_rle

_HEADER = struct.Struct("<4sIIIII")  # magic, height, width, frames, masks, bytes of the packed directory
_CHECKSUM = struct.Struct("<I")  # CRC-32 of the header and of the directory's numbers
_MAGIC = b"PVT2"


class DamagedError(ValueError):
    """The bytes are not a tube, or are an incomplete or changed tube."""


def pack(height: int, width: int, key_counts: Sequence[Sequence[int]], frame_keys: Sequence[int]) -> bytes:
    """Return the blob of a tube: a header, a directory, and then each mask, packed separately.

    The directory contains the number of the mask for each frame, and then the packed size of each mask.
    """
    masks = [_pack(np.array(counts, np.int64)) for counts in key_counts]
    numbers = np.array([*frame_keys, *(len(mask) for mask in masks)], np.int64)
    directory = _pack(numbers)
    header = _HEADER.pack(_MAGIC, height, width, len(frame_keys), len(masks), len(directory))
    checksum = _CHECKSUM.pack(zlib.crc32(header + _planes(numbers)))
    return b"".join([header, checksum, directory, *masks])


@dataclass(frozen=True)
class PackedTube:
    """A blob whose directory is read; masks are unpacked when they are needed.

    `frame_keys` contains the number of the mask of each frame, or -1. Mask k is stored at [stops[k], stops[k + 1]) of
    `blob`.
    """

    height: int
    width: int
    frame_keys: NDArray[np.int32]
    stops: NDArray[np.int64]
    blob: bytes

    @property
    def num_masks(self) -> int:
        """Number of masks of the tube; frames may share a mask."""
        return len(self.stops) - 1

    def counts(self, key: int) -> NDArray[np.int32]:
        """Return the run lengths of a mask.

        Raises:
            DamagedError: If its bytes are damaged.
        """
        return _unpack(self.blob[self.stops[key] : self.stops[key + 1]])

    def masks(self, frames: Sequence[int]) -> list[Mask]:
        """Return the masks (H, W) of some frames, all False where the tube is empty; equal frames share an array.

        Raises:
            ValueError: If a frame is not one of the video.
            DamagedError: If a mask is damaged.
        """
        check_frames(frames, len(self.frame_keys))
        keys = [int(self.frame_keys[frame]) for frame in frames]
        unpacked = {key: self._mask(key) for key in set(keys)}
        return [unpacked[key] for key in keys]

    def _mask(self, key: int) -> Mask:
        if key < 0:
            return np.zeros((self.height, self.width), np.bool_)
        try:
            return decode_rle(self.counts(key), self.height, self.width)
        except DamagedError:
            raise
        except ValueError as error:
            raise DamagedError(f"a damaged tube: {error}") from error


def unpack(blob: bytes) -> PackedTube:
    """Return the tube of a blob, with its masks still packed.

    Raises:
        DamagedError: If `pack` did not write the blob, or its header, directory or size is damaged.
    """
    start = _HEADER.size + _CHECKSUM.size
    if len(blob) < start or not blob.startswith(_MAGIC):
        raise DamagedError(f"not a tube: {len(blob)} bytes that begin with {blob[:4]!r}, expected {_MAGIC!r}")
    _, height, width, num_frames, num_masks, size = _HEADER.unpack_from(blob)
    (checksum,) = _CHECKSUM.unpack_from(blob, _HEADER.size)
    numbers = _unpack(blob[start : start + size])
    if zlib.crc32(blob[: _HEADER.size] + _planes(numbers)) != checksum or len(numbers) != num_frames + num_masks:
        raise DamagedError(f"a damaged tube: the checksum of {len(numbers)} numbers is wrong")
    stops = start + size + np.concatenate([[0], np.cumsum(numbers[num_frames:], dtype=np.int64)])
    if stops[-1] != len(blob):
        raise DamagedError(f"a damaged tube: it has {len(blob)} bytes, expected {stops[-1]}")
    return PackedTube(height, width, numbers[:num_frames], stops, blob)


def check_frames(frames: Sequence[int], num_frames: int) -> None:
    """Raise a ValueError if a frame is not one of the video."""
    outside = [frame for frame in frames if not 0 <= frame < num_frames]
    if outside:
        raise ValueError(f"frames must be in [0, {num_frames}), got {outside[:3]}")


def _planes(numbers: NDArray[np.signedinteger]) -> bytes:
    # Nearly all high bytes of run lengths are zero. Grouped by position, they compress very well.
    return numbers.astype("<i4").view(np.uint8).reshape(-1, 4).T.tobytes()


def _pack(numbers: NDArray[np.int64]) -> bytes:
    return zlib.compress(_planes(numbers), level=9)  # zlib adds its own checksum


def _unpack(packed: bytes) -> NDArray[np.int32]:
    try:
        planes = zlib.decompress(packed)
    except zlib.error as error:
        raise DamagedError(f"a damaged tube: {error}") from error
    if len(planes) % 4:
        raise DamagedError(f"a damaged tube: {len(planes)} bytes are not a multiple of 4")
    return np.frombuffer(planes, np.uint8).reshape(4, -1).T.copy().view("<i4").ravel()
