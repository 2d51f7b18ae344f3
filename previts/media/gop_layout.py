"""How a normalised video is laid out in its file: frames are runs of H.264 units, GOPs are runs of frames.

The store below PreViTS section 4.1. Bookkeeping of bytes only: nothing here decodes, reads or writes.
"""

from collections.abc import Iterator, Set
from dataclasses import dataclass

from previts.errors import VideoError

FrameBytes = tuple[int, int, bool]  # start, stop, and whether it is a key frame


@dataclass(frozen=True)
class VideoInfo:
    """What a reader must know of a normalised video to decode any frame from a range of its bytes.

    `header` is the codec's extradata. GOP g holds the frames [gop_frames[g], gop_frames[g + 1]) and the bytes
    [gop_offsets[g], gop_offsets[g + 1]) of the file; `gop_offsets` has one entry more than `gop_frames`.
    """

    width: int
    height: int
    num_frames: int
    fps: float
    header: bytes
    gop_frames: list[int]
    gop_offsets: list[int]


def split_frames(data: bytes) -> list[FrameBytes]:
    """Return the frames in a run of length-prefixed H.264 units, one slice to a frame.

    Raises:
        VideoError: If the bytes do not end where a frame does.
    """
    frames: list[FrameBytes] = []
    start = position = 0
    while position < len(data):
        stop = position + 4 + int.from_bytes(data[position : position + 4], "big")
        if stop > len(data) or stop < position + 5:
            raise VideoError("damaged: a unit reaches past the end of its bytes")
        kind = data[position + 4] & 0x1F
        position = stop
        if kind in (1, 5):
            frames.append((start, stop, kind == 5))
            start = stop
    if start != len(data):
        raise VideoError("damaged: bytes left over after the last frame")
    return frames


def frames_to_decode(frames: list[FrameBytes], wanted: Set[int]) -> Iterator[tuple[int, list[FrameBytes]]]:
    """Yield for each GOP with a wanted frame its first frame's number, and its frames up to the last wanted one.

    Raises:
        VideoError: If the first frame is no key frame, or there are too few frames.
    """
    if not frames or not frames[0][2]:
        raise VideoError("damaged: the bytes do not start with a key frame")
    if not wanted:
        return
    if min(wanted) < 0 or max(wanted) >= len(frames):
        raise VideoError(f"frames {min(wanted)} to {max(wanted)} were wanted, the bytes hold {len(frames)}")
    keys = [number for number, (_, _, key) in enumerate(frames) if key]
    for first, stop in zip(keys, [*keys[1:], len(frames)], strict=True):
        if here := [number for number in wanted if first <= number < stop]:
            yield first, frames[first : max(here) + 1]
