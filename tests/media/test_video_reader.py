"""Oracles: frames that show their own number, PyAV's decoding from the start, and the nearest time by brute force."""

from pathlib import Path

import numpy as np
import pytest
from source_videos import decode_file, numbered, read_number, write_source

from previts.errors import VideoError
from previts.media.video_reader import Footage, open_footage, steady


def footage_of(times, fps):
    return Footage(np.array(times), fps, lambda numbers: pytest.fail("no frame is needed"))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.avi", "mpeg4", {"bf": "2"}),
        ("a.mp4", "libx264", {"bf": "2"}),
        ("a.mkv", "libx264", {"bf": "0"}),
        ("a.webm", "libvpx-vp9", {}),
        # Open GOPs: frames that follow a key frame in the file are shown before it.
        ("a.mpg", "mpeg2video", {"bf": "2"}),
        ("b.mkv", "mpeg4", {"bf": "2"}),
        ("b.mp4", "libx264", {"bf": "2", "x264-params": "open-gop=1:keyint=9:min-keyint=9"}),
    ],
)
def test_any_frames_are_those_of_the_whole_file(tmp_path, name, codec, options):
    path = write_source(tmp_path / name, [numbered(n) for n in range(40)], codec=codec, gop=9, options=options)
    footage, whole = open_footage(Path(path).read_bytes()), decode_file(path)
    assert footage.fps == pytest.approx(25)
    np.testing.assert_allclose(footage.times, np.arange(40) / 25, atol=1e-3)
    for numbers in (*([n] for n in range(40)), [22, 8, 22, 9], list(range(40))):
        frames = footage.read(numbers)
        assert [read_number(frame) for frame in frames] == numbers
        np.testing.assert_array_equal(frames, whole[numbers])


def test_times_of_a_variable_rate_are_those_of_the_file(tmp_path):
    times = [0.0, 0.04, 0.1, 0.5, 0.54, 0.9]
    path = write_source(tmp_path / "a.mkv", [numbered(n) for n in range(6)], times=times, fps=1000)
    footage = open_footage(Path(path).read_bytes())
    np.testing.assert_allclose(footage.times, times, atol=1e-3)
    assert footage.fps == pytest.approx(5 / 0.9, rel=1e-2)


@pytest.mark.parametrize(("count", "fps"), [(40, 25.0), (48, 30.0), (50, 29.97), (25, 12.5), (1, 25.0), (7, 60.0)])
def test_another_rate_takes_the_nearest_frames_in_time(count, fps):
    footage = steady(count, fps, lambda numbers: pytest.fail("no frame is needed"))
    numbers = footage.nearest(25.0)
    assert len(numbers) == max(1, round(count / fps * 25))
    for place, number in enumerate(numbers):
        distances = np.abs(footage.times - place / 25)
        assert distances[number] == pytest.approx(distances.min(), abs=1e-9)


def test_another_rate_repeats_frames_across_gaps():
    footage = footage_of([0.0, 0.04, 0.5, 0.54], 4 / 0.58)
    assert footage.nearest(25.0).tolist() == [0] + [1] * 6 + [2] * 6 + [3]


@pytest.mark.parametrize(
    "data",
    [b"", b"not a video" * 100, b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n"],
)
def test_bytes_that_are_not_a_video_are_refused(data):
    with pytest.raises(VideoError, match="not a readable video"):
        open_footage(data)


def test_a_video_that_is_cut_short_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 96, 160, 3), dtype=np.uint8)
    data = Path(write_source(tmp_path / "a.avi", list(noise), codec="mpeg4")).read_bytes()
    with pytest.raises(VideoError, match=r"cut short: it has .* of 60 frames"):
        open_footage(data[: len(data) // 2])


def test_frames_before_damage_are_read_and_later_ones_are_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 96, 160, 3), dtype=np.uint8)
    path = write_source(tmp_path / "a.mp4", list(noise), gop=60)
    whole, data = decode_file(path), bytearray(Path(path).read_bytes())
    # The index of the container is intact; only bytes of frames after the middle are destroyed.
    start, stop = int(len(data) * 0.55), int(len(data) * 0.6)
    data[start:stop] = bytes(stop - start)
    footage = open_footage(bytes(data))
    np.testing.assert_array_equal(footage.read([3, 0]), whole[[3, 0]])
    with pytest.raises(VideoError, match="damaged"):
        footage.read([59])
