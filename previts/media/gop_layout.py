"""The layout of a normalised video in its file: a frame is a run of H.264 units, a GOP is a run of frames.

It describes the stored corpora of PreViTS section 4.1. This module finds frames in bytes; it decodes nothing and reads
and writes no files.
"""

from collections.abc import Iterator, Set
from dataclasses import dataclass

from previts.errors import VideoError

FrameBytes = tuple[int, int, bool]  # start, stop, and whether it is a key frame


@dataclass(frozen=True)
class VideoInfo:
    """The layout of one normalised video: with it, any frame can be decoded from a range of bytes.

    `header` is the extradata of the codec. GOP g contains the frames [gop_frames[g], gop_frames[g + 1]) and the bytes
    [gop_offsets[g], gop_offsets[g + 1]) of the file. `gop_offsets` has one entry more than `gop_frames`.

    The next two are what the source lacks: the number of its frames in the window that could not be used, and how many
    seconds its container promises beyond its end (at least). `hashes` are those of `frame_hashes.py`, of the frames
    before they are encoded; `normalise` computes them.
    """

    width: int
    height: int
    num_frames: int
    fps: float
    header: bytes
    gop_frames: list[int]
    gop_offsets: list[int]
    skipped_frames: int = 0
    missing_seconds: float = 0.0
    hashes: bytes = b""


def split_frames(data: bytes) -> list[FrameBytes]:
    """Return the frames in a run of length-prefixed H.264 units; each frame has one slice.

    Raises:
        VideoError: If the bytes do not end at the end of a frame.
    """
    frames: list[FrameBytes] = []
    start = position = 0
    while position < len(data):
        stop = position + 4 + int.from_bytes(data[position : position + 4], "big")
        if stop > len(data) or stop < position + 5:
            raise VideoError("damaged: a unit reaches past the end of its bytes")
        unit_type = data[position + 4] & 0x1F
        position = stop
        if unit_type in (1, 5):  # a slice; 5 is one of a key frame (IDR)
            frames.append((start, stop, unit_type == 5))
            start = stop
    if start != len(data):
        raise VideoError("damaged: bytes left over after the last frame")
    return frames


def frames_to_decode(frames: list[FrameBytes], wanted: Set[int]) -> Iterator[tuple[int, list[FrameBytes]]]:
    """Yield (number of the first frame, frames up to the last wanted one) for each GOP that has a wanted frame.

    Raises:
        VideoError: If the first frame is not a key frame, or there are too few frames.
    """
    if not frames or not frames[0][2]:
        raise VideoError("damaged: the bytes do not start with a key frame")
    if not wanted:
        return
    if min(wanted) < 0 or max(wanted) >= len(frames):
        raise VideoError(
            f"frames {min(wanted)} to {max(wanted)} are wanted, but the bytes contain {len(frames)} frames"
        )
    keys = [number for number, (_, _, key) in enumerate(frames) if key]
    for first, stop in zip(keys, [*keys[1:], len(frames)], strict=True):
        if here := [number for number in wanted if first <= number < stop]:
            yield first, frames[first : max(here) + 1]
