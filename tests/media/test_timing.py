"""Oracles: frames that show their own number, and the output times computed by brute force."""

import itertools
import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from source_videos import numbered, shown, write_source

from previts.errors import VideoError
from previts.media.source import probe
from previts.media.timing import Clock, missing_at_end


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


# --- slide shows ---


@pytest.mark.parametrize("rate", ["1/500", "1/100", "7/250", "1/2"])
@pytest.mark.parametrize("name", ["slides.mp4", "slides.avi"])
def test_a_slide_show_is_refused_though_its_container_states_its_rate(tmp_path, rate, name):
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    source = write_source(tmp_path / name, [numbered(n) for n in range(8)], fps=Fraction(rate), codec=codec)
    with pytest.raises(VideoError, match="a slide show, not a video; at least 1 frame per second"):
        shown(source, tmp_path)


def test_one_frame_a_second_is_a_video(tmp_path):
    info, numbers = shown(write_source(tmp_path / "a.mp4", [numbered(n) for n in range(6)], fps=1), tmp_path)
    assert (info.fps, numbers) == (1.0, list(range(6)))


# --- joined files, and timestamps that start again ---


def joined(tmp_path, name, codec, parts=3):
    whole = b""
    for part in range(parts):
        path = write_source(tmp_path / f"{part}-{name}", [numbered(50 * part + n) for n in range(50)], codec=codec)
        whole += Path(path).read_bytes()
    (tmp_path / name).write_bytes(whole)
    return str(tmp_path / name)


@pytest.mark.parametrize(("name", "codec"), [("a.mpg", "mpeg2video"), ("a.ts", "libx264"), ("a.ts", "mpeg2video")])
def test_joined_files_keep_all_frames_and_their_rate(tmp_path, name, codec):
    source = joined(tmp_path, name, codec)
    info, numbers = shown(source, tmp_path)
    assert [number for number, _ in itertools.groupby(numbers)] == list(range(150))
    assert (info.fps, info.skipped_frames, info.missing_seconds) == (25, 0, 0)
    assert len(numbers) <= 151  # FFmpeg's reader of MPEG program streams dates a few frames one step late
    _, late = shown(source, tmp_path, 2.4, 3.6)
    assert len(late) == 30
    assert abs(late[0] - 60) <= 1


@pytest.mark.parametrize(("name", "codec"), [("a.flv", "flv"), ("a.mp4", "libx264"), ("a.mkv", "libx264")])
def test_joined_files_of_which_not_all_can_be_read_are_refused(tmp_path, name, codec):
    source = joined(tmp_path, name, codec)
    with pytest.raises(VideoError, match="several videos one after the other"):
        shown(source, tmp_path)


def test_the_clock_continues_the_time_before():
    clock = Clock(100, may_jump=True)
    shown_at = []
    # I P B B, twice in a row from 0, then from a time base that is far ahead.
    for start in (0, 0, 50_000):
        for pts, dts in ((4, 0), (16, 4), (8, 8), (12, 12)):
            shown_at.append(start + pts + clock.move(start + pts, start + dts, 4, is_key=pts == 4))
    assert sorted(shown_at) == [4 * n for n in range(1, 13)]


# --- the end of a file ---


def test_a_stream_that_is_cut_is_stored_without_its_broken_end_and_marked(tmp_path):
    frames = [
        np.maximum(numbered(n), np.random.default_rng(n).integers(0, 90, (96, 160, 3), np.uint8)) for n in range(50)
    ]
    whole = Path(write_source(tmp_path / "a.ts", frames)).read_bytes()
    for share in (0.4, 0.55, 0.7, 0.85):
        cut = tmp_path / "cut.ts"
        # Inside a packet of the stream: a cut between two packets may be one between two frames, which nothing shows.
        cut.write_bytes(whole[: int(share * len(whole)) // 188 * 188 + 94])
        info, numbers = shown(str(cut), tmp_path)
        assert numbers == sorted(numbers)
        assert info.fps == 25
        assert 0.04 <= info.missing_seconds < 0.5, share
    assert shown(str(tmp_path / "a.ts"), tmp_path)[0].missing_seconds == 0


@pytest.mark.parametrize("depth", [0, 2])
def test_a_pause_or_another_step_near_the_end_of_a_stream_is_no_cut(tmp_path, depth):
    steady = [n * 0.04 for n in range(60)]
    for times in (
        steady,
        steady[:55] + [3 + n * 0.04 for n in range(5)],  # a pause
        steady + [2.4 + n * 0.2 for n in range(16)],  # the rate falls
        steady + [2.4 + n * 0.2 for n in range(9)],
    ):
        with av.open(str(tmp_path / "a.ts"), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"bf": str(depth), "b-adapt": "0"})
            stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
            stream.codec_context.time_base = stream.time_base = Fraction(1, 90_000)
            for number, time in enumerate(times):
                frame = av.VideoFrame.from_ndarray(numbered(number))
                frame.pts, frame.time_base = round(time * 90_000), Fraction(1, 90_000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        window, _ = probe(str(tmp_path / "a.ts"), None, None, 0.1)
        assert (window.frames, window.missing_seconds) == (len(times), 0)


def test_frames_that_are_missing_before_the_last_one_are_counted_at_every_cut():
    stored = [0, 8, 4, 2, 1, 3, 6, 5, 7, 16, 12, 10, 9, 11, 14, 13, 15]  # two groups of B-frames that refer to others
    for count in range(9, len(stored) + 1):
        kept = stored[:count]
        assert missing_at_end([0.04 * n for n in kept]) == max(kept) + 1 - count
    assert missing_at_end([0.04 * n for n in range(20)]) == 0


def test_a_matroska_file_that_lacks_its_last_frames_says_how_much(tmp_path):
    path = Path(write_source(tmp_path / "a.mkv", [numbered(n) for n in range(50)], gop=5))
    whole = path.read_bytes()
    for share in (0.9, 0.95, 0.98):
        (tmp_path / "cut.mkv").write_bytes(whole[: int(share * len(whole))])
        try:
            info, numbers = shown(str(tmp_path / "cut.mkv"), tmp_path)
        except VideoError:
            continue  # within a frame
        assert info.missing_seconds == pytest.approx((50 - len(numbers)) * 0.04, abs=0.01)


def pack_b_frames(plain, path):
    """Write an AVI of MPEG-4 as DivX did: a B-frame is in the packet before it, and an empty packet takes its place."""
    with av.open(str(plain)) as container:
        packets = [(bytes(packet), packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
    start, mark = b"\0\0\1\xb6", b"\0\0\1\xb2DivX503b1393p\0"
    packed = []
    for number, (data, is_key) in enumerate(packets):
        if data[data.index(start) + 4] >> 6 == 2:  # a B-frame
            packed[-1] = (packed[-1][0] + data, packed[-1][1])
            packed.append((start + b"\x50\x7f", False))
        else:
            packed.append((data if number else data.replace(start, mark + start, 1), is_key))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number, (data, is_key) in enumerate(packed):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
            packet.is_keyframe = is_key
            container.mux(packet)
    return str(path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("start", "end"), [(None, None), (0.0, 9.0), (0.4, 1.2)])
def test_avi_files_with_b_frames_keep_all_frames(tmp_path, start, end, packed):
    # AVI stores no time at which a frame is shown; the times that FFmpeg guesses go back where B-frames are packed.
    frames = [numbered(n) for n in range(50)]
    source = write_source(tmp_path / "a.avi", frames, codec="mpeg4", options={"bf": "1", "b_strategy": "0"})
    source = pack_b_frames(source, tmp_path / "packed.avi") if packed else source
    info, numbers = shown(source, tmp_path, start, end)
    assert numbers == list(range(50))[round((start or 0) * 25) : round((end or 9) * 25)]
    assert info.skipped_frames == 0
