"""Oracle: a stream of H.264 units whose frames are known, because the test writes them."""

import random

import pytest

from previts.errors import VideoError
from previts.media import gop_layout


def make_stream(rng, sizes):
    """Return frames as (bytes, is key frame): each is some units without a slice, then one slice."""
    frames = []
    for gop in sizes:
        for number in range(gop):
            kinds = [rng.choice([6, 7, 8, 9]) for _ in range(rng.randrange(3))] + [5 if number == 0 else 1]
            bodies = [bytes([kind | 0x60]) + rng.randbytes(rng.randrange(9)) for kind in kinds]
            frames.append((b"".join(len(body).to_bytes(4, "big") + body for body in bodies), number == 0))
    return frames


@pytest.mark.parametrize("seed", range(20))
def test_frames_are_separated_and_only_the_needed_ones_are_decoded(seed):
    rng = random.Random(seed)
    sizes = [rng.randrange(1, 6) for _ in range(4)]
    stream = make_stream(rng, sizes)
    data = b"".join(unit for unit, _ in stream)
    frames = gop_layout.split_frames(data)
    assert [(data[start:stop], key) for start, stop, key in frames] == stream
    wanted = set(rng.sample(range(len(frames)), rng.randrange(len(frames) + 1)))
    decoded = {
        first + number: unit
        for first, units in gop_layout.frames_to_decode(frames, wanted)
        for number, unit in enumerate(units)
    }
    starts = [sum(sizes[:gop]) for gop in range(len(sizes))]
    needed = {n for want in wanted for n in range(max(start for start in starts if start <= want), want + 1)}
    assert decoded == {number: frames[number] for number in needed}


def test_bytes_that_end_inside_a_frame_are_refused():
    stream = make_stream(random.Random(0), [3])
    data = b"".join(unit for unit, _ in stream)
    for cut in range(1, len(stream[-1][0])):
        with pytest.raises(VideoError, match="damaged"):
            gop_layout.split_frames(data[:-cut])
