"""Oracles: sizes computed by hand, and turns of numpy."""

from fractions import Fraction

import av
import numpy as np
import pytest
from source_videos import CONFIG, decode_file, numbered, shown, write_source

from previts.media import normalisation


@pytest.mark.parametrize(
    ("size", "aspect", "expected"),
    [
        ((640, 480), None, (342, 256)),
        ((480, 854), None, (256, 456)),
        ((1920, 1080), None, (456, 256)),
        ((160, 96), None, (160, 96)),  # never scaled up
        ((102, 74), None, (102, 74)),
        ((720, 576), Fraction(16, 15), (342, 256)),  # 4:3 on pixels of PAL
        ((720, 576), Fraction(64, 45), (456, 256)),  # 16:9
        ((160, 120), Fraction(1, 2), (80, 120)),
    ],
)
def test_sizes_keep_the_aspect_ratio_and_never_grow(tmp_path, size, aspect, expected):
    width, height = size
    source = write_source(tmp_path / "source.mp4", [numbered(n, width, height) for n in range(3)], aspect=aspect)
    info, numbers = shown(source, tmp_path)
    assert (info.width, info.height) == expected
    assert numbers == [0, 1, 2]


def test_odd_sides_become_the_next_smaller_even_ones(tmp_path):
    frames = [numbered(number, 161, 97) for number in range(4)]
    with av.open(str(tmp_path / "source.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 161, 97, "yuv444p"
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv444p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    info, numbers = shown(str(tmp_path / "source.mkv"), tmp_path)
    assert (info.width, info.height) == (160, 96)
    assert numbers == [0, 1, 2, 3]


ORIENTATIONS = {
    # FFmpeg's display matrix [a b u, c d v, x y w] sends (x, y) to (a x + c y, b x + d y), y pointing down.
    "upright": ((1, 0, 0, 1), lambda f: f),
    "clockwise": ((0, 1, -1, 0), lambda f: np.rot90(f, -1)),
    "half": ((-1, 0, 0, -1), lambda f: np.rot90(f, 2)),
    "counterclockwise": ((0, -1, 1, 0), lambda f: np.rot90(f, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda f: f[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda f: f[::-1]),
    "transposed": ((0, 1, 1, 0), lambda f: f.transpose(1, 0, 2)),
    "antitransposed": ((0, -1, -1, 0), lambda f: f[::-1, ::-1].transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_display_matrix_is_applied(tmp_path, name):
    (a, b, c, d), turn = ORIENTATIONS[name]
    image = np.zeros((96, 160, 3), np.uint8)
    image[:48, :80], image[:48, 80:], image[48:, :80] = (220, 40, 40), (40, 200, 40), (40, 40, 220)
    one = 1 << 16
    matrix = [a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30]
    source = write_source(tmp_path / "source.mp4", [image] * 5, matrix=matrix)
    target = str(tmp_path / "normalised.mp4")
    info = normalisation.normalise(source, target, CONFIG, None, None)
    expected = turn(image)
    assert (info.height, info.width) == expected.shape[:2]
    assert np.abs(decode_file(target)[2].astype(int) - expected).mean() < 6


def test_the_short_side_of_a_turned_phone_video_is_that_of_the_shown_frame(tmp_path):
    source = write_source(
        tmp_path / "source.mp4",
        [numbered(n, 854, 480) for n in range(3)],
        matrix=[0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30],
    )
    info = normalisation.normalise(source, str(tmp_path / "normalised.mp4"), CONFIG, None, None)
    assert (info.width, info.height) == (256, 456)
