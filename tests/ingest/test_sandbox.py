"""Oracles: the same call in this process, and limits that must hold."""

import signal
import threading
import time

import av
import numpy as np
import psutil
import pytest

from previts.config.perception import VideoConfig
from previts.errors import FetchError, VideoError
from previts.ingest.fetch import Limits
from previts.ingest.sandbox import Lost, Normaliser
from previts.media import normalisation


@pytest.fixture(scope="module")
def short_video(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("short") / "short.mp4")
    normalisation.encode_video([np.full((64, 96, 3), 8 * number, np.uint8) for number in range(30)], 25, path)
    return path


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """A video that takes a decoder many seconds: a noisy JPEG, repeated a thousand times."""
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
def target(tmp_path):
    return str(tmp_path / "target.mp4")


def children():
    return [child for child in psutil.Process().children() if "previts.ingest.sandbox" in " ".join(child.cmdline())]


def killer(times, sign):
    """Start a thread that kills `times` decoders, each as soon as it works; return the thread."""
    killed = set()

    def work():
        deadline = time.monotonic() + 120
        while len(killed) < times and time.monotonic() < deadline:
            for child in children():
                if child.pid not in killed and child.cpu_times().user > 0.5:
                    killed.add(child.pid)
                    child.send_signal(sign)
            time.sleep(0.02)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_the_child_normalises_as_this_process_does(short_video, target, tmp_path):
    here = normalisation.normalise(short_video, str(tmp_path / "here.mp4"), VideoConfig(), 0.2, 1.0)
    with Normaliser(VideoConfig()) as normaliser:
        assert normaliser.normalise(short_video, target, 0.2, 1.0) == here
        first = [child.pid for child in children()]
        with pytest.raises(VideoError, match="no frames in the window"):
            normaliser.normalise(short_video, target, 50.0, 60.0)
        assert normaliser.normalise(short_video, target, 0.2, 1.0) == here
        assert [child.pid for child in children()] == first  # one child for all videos
    assert children() == []
    with open(target, "rb") as one, open(tmp_path / "here.mp4", "rb") as other:
        assert one.read() == other.read()


@pytest.mark.parametrize(
    ("sign", "reason"), [(signal.SIGKILL, "killed twice"), (signal.SIGSEGV, "crashed twice .SIGSEGV")]
)
def test_a_decoder_that_dies_twice_fails_its_video_but_not_the_next(long_video, short_video, target, sign, reason):
    with Normaliser(VideoConfig()) as normaliser:
        thread = killer(2, sign)
        with pytest.raises(VideoError, match=reason):
            normaliser.normalise(long_video, target, None, None)
        thread.join()
        assert normaliser.normalise(short_video, target, None, None).num_frames == 30


def test_a_video_whose_decoder_dies_once_is_tried_again(long_video, target):
    with Normaliser(VideoConfig()) as normaliser:
        thread = killer(1, signal.SIGKILL)
        assert normaliser.normalise(long_video, target, 0.0, 6.0).num_frames == 150
        thread.join()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(stored_bytes=50_000), "the normalised video is larger"),
    ],
)
def test_a_video_that_exceeds_a_limit_fails_but_not_the_next(long_video, short_video, target, limits, reason):
    with Normaliser(VideoConfig(), limits) as normaliser:
        with pytest.raises(VideoError, match=reason):
            normaliser.normalise(long_video, target, None, None)
        assert normaliser.normalise(short_video, target, None, None).num_frames == 30


def test_a_video_that_needs_too_much_memory_fails_but_not_the_next(short_video, target, tmp_path):
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
    with Normaliser(VideoConfig(), Limits(memory_bytes=100 << 20)) as normaliser:
        with pytest.raises(FetchError, match="more than 100 MiB of memory; that is the share of one worker") as raised:
            normaliser.normalise(big, target, None, None)
        assert raised.value.retryable  # a worker with more memory may store it
        assert normaliser.normalise(short_video, target, None, None).num_frames == 30
    with Normaliser(VideoConfig()) as normaliser:
        assert normaliser.normalise(big, target, None, None).height == 256


def test_the_libraries_of_a_decoder_are_not_counted_as_its_memory(target, tmp_path):
    # The smallest share of a worker must be enough for a common video, whatever the libraries map.
    common = str(tmp_path / "common.mp4")
    frames = [np.full((1080, 1920, 3), 8 * number, np.uint8) for number in range(12)]
    normalisation.encode_video(frames, 25, common)
    with Normaliser(VideoConfig(), Limits(memory_bytes=200 << 20)) as normaliser:
        assert normaliser.normalise(common, target, None, None).num_frames == 12


def test_a_video_that_costs_more_than_predicted_fails_but_not_the_next(short_video, target, tmp_path):
    # Frames of noise, each of which takes a decoder half a second: the limit must end a call that has not returned yet.
    costly = str(tmp_path / "costly.mkv")
    with av.open(costly, "w") as container:
        stream = container.add_stream("ffv1", rate=25, options={"coder": "1", "context": "1", "slices": "4"})
        stream.width, stream.height, stream.pix_fmt = 1500, 1000, "yuv444p16le"
        frame = av.VideoFrame(1500, 1000, "yuv444p16le")
        for plane in frame.planes:
            plane.update(np.random.default_rng(0).bytes(plane.buffer_size))
        frame.pts = 0
        packet = stream.encode(frame)[0]
        for number in range(8):
            copy = av.Packet(bytes(packet))
            copy.stream, copy.pts, copy.dts, copy.time_base = stream, number, number, packet.time_base
            copy.is_keyframe = True
            container.mux(copy)
    lost = Lost()
    with Normaliser(VideoConfig(cpu_seconds_per_frame=0.1), Limits(cpu_margin=0.04), lost) as normaliser:
        with pytest.raises(
            VideoError, match=r"too costly to decode: it needs more than 1.0 CPU seconds, and 0.004 for"
        ):
            normaliser.normalise(costly, target, None, None)
        assert 1 < lost.seconds < 10
        assert normaliser.normalise(short_video, target, None, None).num_frames == 30


def test_a_decoder_that_hangs_is_ended_and_its_video_may_be_tried_again(long_video, short_video, target):
    with Normaliser(VideoConfig(), Limits(idle_seconds=3.0)) as normaliser:
        thread = killer(1, signal.SIGSTOP)
        with pytest.raises(FetchError, match="no frame in 3 s") as caught:
            normaliser.normalise(long_video, target, None, None)
        thread.join()
        assert caught.value.retryable
        assert normaliser.normalise(short_video, target, None, None).num_frames == 30


def test_a_working_decoder_may_take_longer_than_one_may_be_idle(long_video, target):
    started = time.monotonic()
    with Normaliser(VideoConfig(), Limits(idle_seconds=2.5)) as normaliser:
        assert normaliser.normalise(long_video, target, 0.0, 8.0).num_frames == 200
    assert time.monotonic() - started > 2.5
