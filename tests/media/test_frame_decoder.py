"""Oracle: PyAV's decoding of the whole file, from the first frame to the last."""

import itertools
import random
from pathlib import Path

import av
import numpy as np
import pytest
from source_videos import decode_file, write_noisy

from previts.errors import VideoError
from previts.media import frame_decoder


@pytest.fixture(scope="module")
def noisy_video(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("noisy") / "noisy.mp4")
    return path, write_noisy(path)


def test_any_run_of_gops_decodes_to_the_frames_of_the_whole_file(noisy_video):
    path, info = noisy_video
    data, whole = Path(path).read_bytes(), decode_file(path)
    assert info.gop_frames == [0, 12, 24, 36]
    bounds = [*info.gop_frames, info.num_frames]
    for first, stop in itertools.combinations(range(len(bounds)), 2):
        piece = data[info.gop_offsets[first] : info.gop_offsets[stop]]
        wanted = range(bounds[stop] - bounds[first])
        decoded = frame_decoder.decode_gops(piece, info.header, wanted)
        np.testing.assert_array_equal(np.stack(decoded), whole[bounds[first] : bounds[stop]])


def test_frames_may_be_wanted_in_any_order_and_repeat(noisy_video):
    path, info = noisy_video
    data, whole = Path(path).read_bytes(), decode_file(path)
    wanted = random.Random(0).choices(range(info.num_frames), k=25)
    decoded = frame_decoder.decode_gops(data[info.gop_offsets[0] : info.gop_offsets[-1]], info.header, wanted)
    np.testing.assert_array_equal(np.stack(decoded), whole[wanted])
    assert frame_decoder.decode_gops(data[info.gop_offsets[0] : info.gop_offsets[-1]], info.header, []) == []


def test_planes_are_those_of_the_decoded_frame(noisy_video):
    path, info = noisy_video
    data = Path(path).read_bytes()[info.gop_offsets[0] : info.gop_offsets[-1]]
    with av.open(path) as container:
        frames = [frame.to_ndarray() for frame in container.decode(video=0)]
    for number, planes in zip([7, 30], frame_decoder.decode_planes(data, info.header, [7, 30]), strict=True):
        packed = np.concatenate([planes.y.ravel(), planes.u.ravel(), planes.v.ravel()])
        np.testing.assert_array_equal(packed, frames[number].ravel())
        assert planes.matrix == 6


def test_damaged_bytes_are_refused(noisy_video):
    path, info = noisy_video
    gop = Path(path).read_bytes()[info.gop_offsets[1] : info.gop_offsets[2]]
    shifted = Path(path).read_bytes()[info.gop_offsets[1] + 1 : info.gop_offsets[2] + 1]
    for damaged in (b"", gop[:-10], gop[: len(gop) // 2], bytes(len(gop)), shifted, gop[4:]):
        with pytest.raises(VideoError):
            frame_decoder.decode_gops(damaged, info.header, [0, 11])
    with pytest.raises(VideoError, match="contain 12 frames"):
        frame_decoder.decode_gops(gop, info.header, [12])
    with pytest.raises(VideoError):
        frame_decoder.decode_gops(gop, b"\x01nonsense", [0])


def test_damage_does_not_change_the_next_decoded_video(noisy_video):
    path, info = noisy_video
    data, whole = Path(path).read_bytes(), decode_file(path)
    gop = data[info.gop_offsets[1] : info.gop_offsets[2]]
    for cut in (30, len(gop) // 4, len(gop) // 2):
        damaged = bytearray(gop)
        damaged[cut:] = b"\xff" * len(damaged[cut:])
        with pytest.raises(VideoError):
            frame_decoder.decode_gops(bytes(damaged), info.header, [11])
        np.testing.assert_array_equal(frame_decoder.decode_gops(gop, info.header, [4, 0]), whole[[16, 12]])
