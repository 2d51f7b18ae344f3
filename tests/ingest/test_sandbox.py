import signal
import threading
import time

import av
import numpy as np
import psutil
import pytest

from previts.config.experiment import VideoConfig
from previts.errors import VideoError
from previts.ingest.fetch import Limits
from previts.ingest.sandbox import Normaliser
from previts.media import normalisation


@pytest.fixture(scope="module")
def short_video(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("short") / "short.mp4")
    normalisation.encode_video([np.full((64, 96, 3), 8 * number, np.uint8) for number in range(30)], 25, path)
    return path


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """A video that takes a decoder many seconds: one noisy JPEG, a thousand times over."""
    path = str(tmp_path_factory.mktemp("long") / "long.mkv")
    noise = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    with av.open(path, "w") as container:
        stream = container.add_stream("mjpeg", rate=25, options={"qscale": "2"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(noise, "rgb24").reformat(format="yuvj420p")
        packet = stream.encode(frame)[0]
        for number in range(1000):
            copy = av.Packet(bytes(packet))
            copy.stream, copy.pts, copy.dts, copy.time_base = stream, number, number, packet.time_base
            copy.is_keyframe = True
            container.mux(copy)
    return path


@pytest.fixture
def clip(tmp_path):
    return str(tmp_path / "clip.mp4")


def children():
    return [child for child in psutil.Process().children() if "previts.ingest.sandbox" in " ".join(child.cmdline())]


def killer(times, sign):
    """Kill the decoder whenever it is at work, so often; return when done."""
    killed = set()

    def work():
        deadline = time.monotonic() + 30
        while len(killed) < times and time.monotonic() < deadline:
            for child in children():
                if child.pid not in killed and child.cpu_times().user > 0.5:
                    killed.add(child.pid)
                    child.send_signal(sign)
            time.sleep(0.02)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_the_child_normalises_as_this_process_does(short_video, clip, tmp_path):
    here = normalisation.normalise(short_video, str(tmp_path / "here.mp4"), VideoConfig(), 0.2, 1.0)
    with Normaliser(VideoConfig()) as normaliser:
        assert normaliser.normalise(short_video, clip, 0.2, 1.0) == here
        first = [child.pid for child in children()]
        with pytest.raises(VideoError, match="no pictures in the window"):
            normaliser.normalise(short_video, clip, 50.0, 60.0)
        assert normaliser.normalise(short_video, clip, 0.2, 1.0) == here
        assert [child.pid for child in children()] == first  # one child for all
    assert children() == []
    with open(clip, "rb") as one, open(tmp_path / "here.mp4", "rb") as other:
        assert one.read() == other.read()


def test_the_child_sees_no_secrets(short_video, clip, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    with Normaliser(VideoConfig()) as normaliser:
        normaliser.normalise(short_video, clip, None, None)
        assert "AWS_SECRET_ACCESS_KEY" not in children()[0].environ()


@pytest.mark.parametrize(
    ("sign", "reason"), [(signal.SIGKILL, "killed twice"), (signal.SIGSEGV, "crashed twice .SIGSEGV")]
)
def test_a_decoder_that_dies_twice_is_a_reason_and_the_next_video_is_fine(long_video, short_video, clip, sign, reason):
    with Normaliser(VideoConfig()) as normaliser:
        thread = killer(2, sign)
        with pytest.raises(VideoError, match=reason):
            normaliser.normalise(long_video, clip, None, None)
        thread.join()
        assert normaliser.normalise(short_video, clip, None, None).num_frames == 30


def test_a_decoder_that_dies_once_gets_a_second_chance(long_video, clip):
    with Normaliser(VideoConfig()) as normaliser:
        thread = killer(1, signal.SIGKILL)
        assert normaliser.normalise(long_video, clip, 0.0, 6.0).num_frames == 150
        thread.join()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(decode_seconds=1.0), "took more than 1 s"),
        (Limits(decode_cpu_seconds=1), "took more than 1 CPU seconds"),
        (Limits(stored_bytes=50_000), "its normalised form grows larger"),
    ],
)
def test_costly_videos_meet_their_limits(long_video, short_video, clip, limits, reason):
    with Normaliser(VideoConfig(), limits) as normaliser:
        with pytest.raises(VideoError, match=reason):
            normaliser.normalise(long_video, clip, None, None)
        assert normaliser.normalise(short_video, clip, None, None).num_frames == 30


def test_memory_is_limited(short_video, clip, tmp_path):
    big = str(tmp_path / "big.mkv")
    with av.open(big, "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 4000, 3000, "yuv444p"
        for number in range(2):
            frame = av.VideoFrame(4000, 3000, "yuv444p")
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with Normaliser(VideoConfig(), Limits(memory_bytes=300 << 20)) as normaliser:
        with pytest.raises(VideoError, match="memory"):
            normaliser.normalise(big, clip, None, None)
        assert normaliser.normalise(short_video, clip, None, None).num_frames == 30
    with Normaliser(VideoConfig()) as normaliser:
        assert normaliser.normalise(big, clip, None, None).height == 256
