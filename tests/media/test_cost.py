"""Oracles: the sum by hand, and the CPU time of the decoder itself."""

import time

import av
import pytest
from costly_videos import write_images

from previts.config.perception import VideoConfig
from previts.errors import VideoError
from previts.media import normalisation
from previts.media.cost import Cost, budget_seconds


def test_the_prediction_is_the_sum_over_pixels_and_bytes():
    cost = Cost("png", 10.0)
    cost.add(2, 1000, 500, 100_000)
    assert cost.seconds == pytest.approx(2 * 1000 * 500 * 20e-9 + 100_000 * 5e-9)
    with pytest.raises(VideoError, match=r"too costly to decode: png frames of 8192x4096 need 34 CPU seconds or more"):
        cost.add(50, 8192, 4096, 0)
    assert budget_seconds(250, 0.1) == pytest.approx(50)


def test_a_costly_video_is_refused_before_it_is_decoded(tmp_path):
    bomb = write_images(tmp_path / "bomb.mov", "png", (4096, 2048), "rgb24", 1000)
    begin = time.process_time()
    with pytest.raises(VideoError, match="too costly to decode: png frames of 4096x2048"):
        normalisation.normalise(bomb, str(tmp_path / "target.mp4"), VideoConfig(), None, None)
    assert time.process_time() - begin < 3  # all of its frames take half a minute
    window = normalisation.normalise(bomb, str(tmp_path / "target.mp4"), VideoConfig(), 0.0, 0.2)
    assert window.num_frames == 5
    patient = VideoConfig(cpu_seconds_per_frame=0.001)
    with pytest.raises(VideoError, match="too costly"):
        normalisation.normalise(bomb, str(tmp_path / "target.mp4"), patient, 0.0, 0.2)


@pytest.mark.parametrize(("codec", "pix"), [("png", "rgb24"), ("mjpeg", "yuvj420p")])
def test_the_prediction_is_near_the_cpu_time_of_the_decoder(tmp_path, codec, pix):
    path = write_images(tmp_path / "images.mov", codec, (2048, 1024), pix, 8)
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        packets = [packet for packet in container.demux(stream) if packet.size]
        begin = time.process_time()
        frames = sum(len(packet.decode()) for packet in packets)
        used = time.process_time() - begin
    cost = Cost(codec, 1e9)
    cost.add(frames, 2048, 1024, sum(packet.size for packet in packets))
    assert used / 6 < cost.seconds < 6 * used
