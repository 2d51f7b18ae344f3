"""Oracles: frames that show their own number, colours in closed form, and the layout that PyAV reads."""

import os
import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from source_videos import CONFIG, decode_file, numbered, shown, write_noisy, write_source, write_tone

from previts.errors import VideoError
from previts.media import frame_decoder, normalisation

# --- the layout of a normalised video ---


def test_a_normalised_video_has_closed_gops_of_twelve_and_frames_in_display_order(tmp_path):
    path = str(tmp_path / "noisy.mp4")
    info = write_noisy(path)
    assert info.gop_frames == [0, 12, 24, 36]
    with av.open(path) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        stream = container.streams.video[0]
        assert not stream.codec_context.has_b_frames
        packets = [packet for packet in container.demux(stream) if packet.size]
    assert [packet.is_keyframe for packet in packets] == [number % 12 == 0 for number in range(40)]
    assert all(packet.pts == packet.dts for packet in packets)
    starts = [packet.pos for packet in packets if packet.is_keyframe]
    assert info.gop_offsets == [*starts, packets[-1].pos + packets[-1].size]
    # Fast start: the table of contents is before the frames, so a player can start before it has the whole file.
    assert Path(path).read_bytes().index(b"moov") < info.gop_offsets[0]


def test_the_same_frames_give_the_same_bytes(tmp_path):
    frames = [numbered(number) for number in range(15)]
    for name in ("a.mp4", "b.mp4"):
        normalisation.encode_video(frames, 25, str(tmp_path / name))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_video_that_is_not_normalised_is_refused(tmp_path):
    frames = [numbered(number) for number in range(30)]
    sliced = write_source(tmp_path / "sliced.mp4", frames, options={"x264-params": "slices=4"})
    with pytest.raises(VideoError, match="single slice"):
        normalisation.inspect_video(sliced)
    other = write_source(tmp_path / "other.mp4", frames, codec="mpeg4")
    with pytest.raises(VideoError, match=r"H\.264"):
        normalisation.inspect_video(other)


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [np.zeros((31, 32, 3), np.uint8)],
        [np.zeros((32, 32), np.uint8)],
        [np.zeros((32, 32, 3), np.uint8), np.zeros((32, 48, 3), np.uint8)],
    ],
)
def test_encode_video_refuses_invalid_frames_and_leaves_no_file(tmp_path, frames):
    with pytest.raises(ValueError, match="fram"):
        normalisation.encode_video(frames, 25, str(tmp_path / "normalised.mp4"))
    assert not (tmp_path / "normalised.mp4").exists()


# --- colours ---


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 30, 40), (30, 180, 60), (20, 40, 210)])
def test_colours_are_kept(tmp_path, colour):
    path = str(tmp_path / "normalised.mp4")
    normalisation.encode_video([np.full((64, 96, 3), colour, np.uint8)] * 13, 25, path)
    assert np.abs(decode_file(path).astype(int) - colour).max() <= 5


@pytest.mark.parametrize(("matrix", "full"), [(1, False), (6, False), (1, True), (6, True), (2, False)])
def test_normalising_keeps_colours_of_any_matrix_and_range(tmp_path, matrix, full):
    colour = np.array([200, 60, 40])
    kr, kb = (0.2126, 0.0722) if matrix == 1 else (0.299, 0.114)
    red, green, blue = colour / 255
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = np.array([(blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)])
    scale, base, chroma_scale = (255, 0, 255) if full else (219, 16, 224)
    planes = np.empty((96 * 3 // 2, 128), np.uint8)
    planes[:96] = round(luma * scale + base)
    planes[96:120], planes[120:] = np.round(chroma * chroma_scale + 128)
    path = str(tmp_path / "source.mkv")
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuvj420p" if full else "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(planes, "yuvj420p" if full else "yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    normalisation.normalise(path, str(tmp_path / "normalised.mp4"), CONFIG, None, None)
    assert np.abs(decode_file(str(tmp_path / "normalised.mp4")).astype(int) - colour).max() <= 5


# --- invalid inputs, and unusual valid ones ---


def test_each_invalid_input_is_refused_with_its_reason(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "noise.mp4").write_bytes(random.Random(0).randbytes(100_000))
    (tmp_path / "text.mp4").write_text("hello\n" * 1000)
    (tmp_path / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    (tmp_path / "concat.mp4").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    with av.open(str(tmp_path / "sound.m4a"), "w", format="mp4") as container:
        write_tone(container)
    write_source(tmp_path / "single.mp4", [numbered(0)])
    write_source(tmp_path / "tiny.mp4", [numbered(n, 40, 8) for n in range(5)])
    write_source(tmp_path / "slides.mkv", [numbered(n) for n in range(3)], times=[0, 60, 120], fps=1000)
    with av.open(str(tmp_path / "cover.m4a"), "w", format="mp4") as container:
        cover = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.codec_context.time_base, cover.disposition = Fraction(1, 25), Disposition.attached_pic
        frame = av.VideoFrame(64, 64, "yuvj420p")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(cover.encode(frame))
    plain = Path(write_source(tmp_path / "plain.mp4", [numbered(n) for n in range(5)])).read_bytes()
    (tmp_path / "codec.mp4").write_bytes(plain.replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    reasons = {
        "cover.m4a": "no video stream .*a cover",
        "codec.mp4": "no decoder",
        "empty.mp4": "empty",
        "noise.mp4": "not a readable video",
        "text.mp4": "not a readable video",
        "playlist.mp4": "not a",
        "concat.mp4": "not a",
        "sound.m4a": "no video stream .*audio only",
        "single.mp4": "only one frame",
        "tiny.mp4": "too small",
        "slides.mkv": "slide show",
        "missing.mp4": "no such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(VideoError, match=reason):
            normalisation.normalise(str(tmp_path / name), str(tmp_path / "normalised.mp4"), CONFIG, None, None)
        assert not (tmp_path / "normalised.mp4").exists(), name


def test_a_rate_limit_that_leaves_one_frame_is_named(tmp_path):
    two = write_source(tmp_path / "two.mp4", [numbered(n) for n in range(2)])
    with pytest.raises(VideoError, match="the video or window has only one frame at 5 frames per second"):
        normalisation.normalise(two, str(tmp_path / "normalised.mp4"), replace(CONFIG, max_fps=5.0), None, None)


def test_a_video_with_sound_is_normalised(tmp_path):
    source = write_source(tmp_path / "source.mp4", [numbered(n) for n in range(30)], audio=True)
    assert shown(source, tmp_path)[1] == list(range(30))


def test_cut_and_damaged_videos_are_refused_unless_the_damage_is_outside_the_window(tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (96, 160, 3), dtype=np.uint8) for _ in range(75)]
    for name, options in (("a.mp4", {"movflags": "+faststart"}), ("a.mkv", {})):
        whole = Path(write_source(tmp_path / name, frames, container_options=options)).read_bytes()
        cut = tmp_path / f"cut-{name}"
        cut.write_bytes(whole[: len(whole) * 2 // 3])
        with pytest.raises(VideoError, match=r"damaged|cut short"):
            normalisation.normalise(str(cut), str(tmp_path / "normalised.mp4"), CONFIG, None, None)
        assert normalisation.normalise(str(cut), str(tmp_path / "normalised.mp4"), CONFIG, 0.0, 1.0).num_frames == 25
        damaged = bytearray(whole)
        damaged[len(whole) // 2 : len(whole) // 2 + 20_000] = bytes(20_000)
        cut.write_bytes(damaged)
        with pytest.raises(VideoError, match=r"damaged|cut short"):
            normalisation.normalise(str(cut), str(tmp_path / "normalised.mp4"), CONFIG, None, None)
        assert normalisation.normalise(str(cut), str(tmp_path / "normalised.mp4"), CONFIG, 0.0, 1.0).num_frames == 25


def test_damage_before_the_first_frame_is_returned_is_damage(tmp_path):
    # With B-frames, a decoder returns the first frame some packets after it. Errors until then must not be passed over.
    source = Path(write_source(tmp_path / "a.mxf", [numbered(n) for n in range(50)], codec="mpeg2video"))
    with av.open(str(source)) as container:
        second = [packet for packet in container.demux(video=0) if packet.size][1]
    data = bytearray(source.read_bytes())
    place = data.index(bytes(second)[:16])
    data[place + 30 : place + second.size] = b"\xff" * (second.size - 30)
    source.write_bytes(data)
    with pytest.raises(VideoError, match="damaged"):
        normalisation.normalise(str(source), str(tmp_path / "normalised.mp4"), CONFIG, None, None)


def test_a_4k_video_is_scaled_down(tmp_path):
    source = write_source(
        tmp_path / "source.mp4", [numbered(n, 3840, 2160) for n in range(2)], options={"preset": "ultrafast"}
    )
    info, numbers = shown(source, tmp_path)
    assert (info.width, info.height) == (456, 256)
    assert numbers == [0, 1]


@pytest.mark.parametrize(
    ("codec", "name"), [("mpeg4", "a.avi"), ("libvpx-vp9", "a.webm"), ("mpeg2video", "a.mpg"), ("flv", "a.flv")]
)
def test_other_codecs_and_containers_are_normalised(tmp_path, codec, name):
    source = write_source(tmp_path / name, [numbered(n) for n in range(30)], codec=codec)
    _, numbers = shown(source, tmp_path)
    assert numbers == list(range(30))


def test_real_videos_are_normalised(real_data, tmp_path):
    names = sorted(os.listdir(real_data / "crawl"))
    videos = [name for name in names if name.endswith(".mp4")][::29]
    assert videos
    for name in videos:
        target = str(tmp_path / "normalised.mp4")
        info = normalisation.normalise(str(real_data / "crawl" / name), target, CONFIG, None, None)
        whole, data = decode_file(target), Path(target).read_bytes()
        assert min(info.width, info.height) <= 256
        assert info.fps <= 25
        last = data[info.gop_offsets[-2] : info.gop_offsets[-1]]
        wanted = range(info.num_frames - info.gop_frames[-1])
        np.testing.assert_array_equal(
            frame_decoder.decode_gops(last, info.header, wanted), whole[info.gop_frames[-1] :]
        )
