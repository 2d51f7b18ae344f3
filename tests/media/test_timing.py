"""Oracles: frames that show their own number, and the output times computed by brute force."""

import itertools
import random
from fractions import Fraction

import numpy as np
import pytest
from source_videos import numbered, shown, write_source

from previts.errors import VideoError


def test_a_source_below_the_rate_limit_keeps_every_frame(tmp_path):
    for rate, name in (
        (25, "a.mp4"),
        (Fraction(24000, 1001), "b.mkv"),
        (10, "c.webm"),
        (Fraction(24000, 1001), "d.ts"),
    ):
        codec = "libvpx" if name.endswith("webm") else "libx264"
        source = write_source(tmp_path / name, [numbered(n) for n in range(60)], fps=rate, codec=codec)
        info, numbers = shown(source, tmp_path)
        assert numbers == list(range(60)), name
        assert info.fps == pytest.approx(float(rate), rel=1e-6), name


@pytest.mark.parametrize("rate", [30, 50, Fraction(60000, 1001), Fraction(30000, 1001)])
def test_faster_sources_are_reduced_to_25_fps_by_time(tmp_path, rate):
    source = write_source(tmp_path / "source.mp4", [numbered(n) for n in range(120)], fps=rate)
    info, numbers = shown(source, tmp_path)
    assert info.fps == 25
    seconds = np.arange(120) / float(rate)
    assert len(numbers) == int(np.floor(seconds[-1] * 25 + 0.5)) + 1
    for slot, number in enumerate(numbers):
        assert abs(seconds[number] - slot / 25) <= 0.02 + 1e-9
    assert numbers == sorted(set(numbers))


def test_a_variable_rate_becomes_the_average_rate_by_time(tmp_path):
    generator = random.Random(1)
    times = [0.0]
    while len(times) < 80:
        times.append(round(times[-1] + generator.choice([0.02, 0.04, 0.05, 0.3]), 3))
    source = write_source(tmp_path / "source.mkv", [numbered(n) for n in range(80)], times=times, fps=1000)
    info, numbers = shown(source, tmp_path)
    average = 79 / times[-1]
    assert info.fps == pytest.approx(average, rel=0.015)
    # Brute force: at each output time, the last frame whose time rounds to it or to an earlier output time.
    slots = [int(np.floor(time * info.fps + 0.5)) for time in times]
    assert numbers == [max(n for n in range(80) if slots[n] <= slot) for slot in range(slots[-1] + 1)]
    assert len(numbers) / info.fps == pytest.approx(times[-1], abs=1.5 / info.fps)


def test_a_variable_rate_above_the_limit_becomes_25_fps(tmp_path):
    times = list(itertools.accumulate([0.0] + [0.01, 0.05] * 50))
    source = write_source(tmp_path / "source.mp4", [numbered(n) for n in range(101)], times=times, fps=1000)
    info, numbers = shown(source, tmp_path)
    assert info.fps == 25
    for slot, number in enumerate(numbers):
        assert times[number] <= slot / 25 + 0.02 + 1e-9
        assert number == 100 or times[number + 1] > slot / 25 - 0.04


@pytest.mark.parametrize("name", ["source.mp4", "source.mkv", "source.avi", "source.ts"])
@pytest.mark.parametrize(
    ("start", "end", "first", "stop"), [(2.0, 4.0, 50, 100), (8.0, 10.0, 200, 250), (None, 1.0, 0, 25)]
)
def test_windows_are_exact_to_the_frame_in_every_container(tmp_path, name, start, end, first, stop):
    # A key frame every four seconds, and B-frames except in AVI: a seek leads to a frame before the window.
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    source = write_source(tmp_path / name, [numbered(n) for n in range(275)], codec=codec, gop=100)
    info, numbers = shown(source, tmp_path, start, end)
    assert numbers == list(range(first, stop))
    assert info.fps == 25


def test_a_window_ends_with_the_video_and_one_outside_of_it_is_refused(tmp_path):
    source = write_source(tmp_path / "source.mp4", [numbered(n) for n in range(50)])
    assert shown(source, tmp_path, 1.0, 11.0)[1] == list(range(25, 50))
    assert shown(source, tmp_path, 1.0, None)[1] == list(range(25, 50))
    for start in (3.0, 300.0):
        with pytest.raises(VideoError, match=r"no frames in the window from .* ends near [12]\.\d s"):
            shown(source, tmp_path, start, start + 10)
