"""Oracles: the table of odd videos, whose frames show their numbers; colours in closed form; cut files."""

from pathlib import Path

import av
import numpy as np
import pytest
from odd_videos import OddVideo, fits
from source_videos import CONFIG, decode_file, numbered, read_number, write_source

from previts.errors import VideoError
from previts.media import normalisation
from previts.media.video_reader import open_footage


def test_the_corpus_and_the_benchmarks_show_the_same_frames_of_every_odd_video(
    odd_videos: dict[str, OddVideo], tmp_path: Path
):
    for name, video in odd_videos.items():
        target = str(tmp_path / "normalised.mp4")
        normalisation.normalise(video.path, target, CONFIG, None, None)
        footage = open_footage(Path(video.path).read_bytes())
        whole = footage.read(range(len(footage.times)))
        for frames in (decode_file(target), whole):
            assert [read_number(frame) for frame in frames] == list(video.numbers), name
        assert fits(decode_file(target), video), name
        assert fits(whole, video), name
        assert whole.shape[1:3] == video.size[::-1], name
        np.testing.assert_allclose(footage.times, np.arange(len(video.numbers)) / 25, atol=1e-3, err_msg=name)


def test_any_frames_of_every_odd_video_can_be_read(odd_videos: dict[str, OddVideo]):
    for name, video in odd_videos.items():
        footage = open_footage(Path(video.path).read_bytes())
        last = len(video.numbers) - 1
        for asked in ([last], [last // 2], [last - 1, 0, last, last]):
            shown = [read_number(frame) for frame in footage.read(asked)]
            assert shown == [video.numbers[number] for number in asked], name


@pytest.mark.parametrize(
    ("matrix", "full", "size"),
    [
        (1, False, (128, 96)),
        (6, False, (128, 96)),
        (1, True, (128, 96)),
        (6, True, (128, 96)),
        (2, False, (128, 96)),  # no stated matrix: BT.601 below HD
        (2, False, (1280, 720)),  # and BT.709 in HD
    ],
)
def test_colours_of_labelled_videos_follow_their_matrix_and_range(tmp_path: Path, matrix, full, size):
    colour, (width, height) = np.array([200, 60, 40]), size
    kr, kb = (0.2126, 0.0722) if matrix == 1 or (matrix == 2 and height >= 720) else (0.299, 0.114)
    red, green, blue = colour / 255
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = np.array([(blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)])
    scale, base, chroma_scale = (255, 0, 255) if full else (219, 16, 224)
    planes = np.empty((height * 3 // 2, width), np.uint8)
    planes[:height] = round(luma * scale + base)
    planes[height : height * 5 // 4], planes[height * 5 // 4 :] = np.round(chroma * chroma_scale + 128)
    path = tmp_path / "source.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuvj420p" if full else "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(planes, "yuvj420p" if full else "yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert np.abs(open_footage(path.read_bytes()).read([0, 2]).astype(int) - colour).max() <= 3


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_a_labelled_video_that_is_cut_short_is_refused(tmp_path: Path, name: str):
    noise = np.random.default_rng(0).integers(0, 256, (50, 96, 160, 3), dtype=np.uint8)
    options = {"deadline": "realtime", "cpu-used": "8"} if name.endswith("webm") else {"preset": "ultrafast"}
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    faststart = {"movflags": "+faststart"} if name.endswith("mp4") else {}
    path = write_source(tmp_path / name, list(noise), codec=codec, options=options, container_options=faststart)
    data = Path(path).read_bytes()
    assert len(open_footage(data).times) == 50
    with pytest.raises(VideoError, match="cut short"):
        open_footage(data[: len(data) // 2])


def test_files_without_a_video_have_a_reason(tmp_path: Path):
    plain = Path(write_source(tmp_path / "plain.mp4", [numbered(n) for n in range(5)])).read_bytes()
    with pytest.raises(VideoError, match="no decoder"):
        open_footage(plain.replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))


def test_a_last_packet_without_a_frame_repeats_the_frame_on_screen(tmp_path: Path):
    # Old encoders with B-frames leave such a packet. MPEG-4 calls it "not coded".
    frames = [numbered(n) for n in range(12)]
    source = write_source(tmp_path / "a.avi", frames, codec="mpeg4", gop=30, options={"bf": "2"})
    with av.open(source) as given, av.open(str(tmp_path / "b.avi"), "w") as out:
        stream = given.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [packet for packet in given.demux(stream) if packet.size]
        empty = av.Packet(bytes.fromhex("000001b6") + b"\x50\x80")
        empty.pts = empty.dts = packets[-1].dts + 1
        empty.time_base = packets[-1].time_base
        for packet in [*packets, empty]:
            packet.stream = copy
            out.mux(packet)
    footage = open_footage((tmp_path / "b.avi").read_bytes())
    assert len(footage.times) == 13
    assert [read_number(frame) for frame in footage.read([3, 12, 2])] == [3, 11, 2]
