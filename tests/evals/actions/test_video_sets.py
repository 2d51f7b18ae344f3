"""Oracles: bands or brightness encode the number of a frame, so the frames of a clip are known."""

import io
from dataclasses import replace
from pathlib import Path

import av
import clip_sets
import cv2
import numpy as np
import pytest
from odd_videos import OddVideo

from previts.demo.files import write_avi
from previts.errors import InputError, VideoError
from previts.evals.actions import video_sets
from previts.media.video_reader import Footage, open_footage, steady


def frame_numbers(frames_THWC: np.ndarray) -> list[int]:
    """Return the numbers that the bands of frames encode."""
    rows = frames_THWC.astype(float).mean((2, 3))
    bands = rows.reshape(len(rows), 6, -1).mean(2) if rows.shape[1] % 6 == 0 else _sampled(rows)
    return [sum(int(bit) << place for place, bit in enumerate(row)) for row in bands > 127]


def _sampled(rows: np.ndarray) -> np.ndarray:
    return rows[:, (np.arange(6) * rows.shape[1] / 6 + rows.shape[1] / 12).astype(int)]


def clip_numbers(clip_TCHW: np.ndarray) -> list[int]:
    return frame_numbers(clip_TCHW.transpose(0, 2, 3, 1))


def brightness(clip_TCHW: np.ndarray) -> list[int]:
    """Return the numbers that the frames of `footage_of` encode."""
    return np.rint(clip_TCHW.astype(float).mean((1, 2, 3)) / 6).astype(int).tolist()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("video") / "forty.avi")
    write_avi(path, clip_sets.numbered(40), 25.0)
    return path


def footage_of(numbers: list[int], fps: float = 25.0) -> Footage:
    """Return footage without a file, of frames whose brightness encodes these numbers."""
    frames = np.stack([np.full((48, 64, 3), 6 * number, np.uint8) for number in numbers])
    return steady(len(numbers), fps, lambda asked: frames[list(asked)])


def test_any_frames_can_be_read_in_any_order(video: str):
    footage = video_sets.open_video(video)
    assert footage.fps == pytest.approx(25)
    np.testing.assert_allclose(footage.times, np.arange(40) / 25, atol=1e-9)
    assert frame_numbers(footage.read(range(40))) == list(range(40))
    for numbers in ([39], [0], [13, 12, 14], [30, 5, 5, 30], [38, 39]):
        frames = footage.read(numbers)
        assert frames.shape == (len(numbers), 48, 64, 3)
        assert frame_numbers(frames) == numbers


def test_clips_of_every_odd_video_have_its_displayed_frames(odd_videos: dict[str, OddVideo]):
    for name, video in odd_videos.items():
        spaced = video_sets.evenly_spaced_clips(video_sets.open_video(video.path), 4, 120, 2)
        starts = (0, len(video.numbers) - 4)
        width, height = video.size
        for start, places in zip(starts, spaced.places, strict=True):
            clip_TCSS = spaced.frames[places]
            assert clip_TCSS.shape == (4, 3, 120, 120)
            left, top, right, bottom = video_sets.central_square(height, width)
            for place, frame_CSS in enumerate(clip_TCSS, start=start):
                drawn = video.picture(place)[top:bottom, left:right]
                expected = cv2.resize(drawn, (120, 120), interpolation=cv2.INTER_LINEAR)
                assert np.abs(frame_CSS.transpose(1, 2, 0).astype(int) - expected).mean() < 5, name


@pytest.mark.parametrize(("codec", "container"), [("libx264", "mp4"), ("libx264", "matroska"), ("mpeg4", "avi")])
def test_frame_numbers_are_right_with_b_frames_and_after_seeking(codec: str, container: str):
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=25, options={"bf": "2", "g": "8", "qscale": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.max_b_frames, stream.codec_context.gop_size = 2, 8
        for frame in clip_sets.numbered(40):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        out.mux(stream.encode(None))
    footage = open_footage(file.getvalue())
    assert len(footage.times) == 40
    for first in range(40):
        assert frame_numbers(footage.read([first])) == [first]


def test_another_frame_rate_uses_the_nearest_frame_in_time():
    for count, fps in ((40, 25.0), (48, 30.0), (50, 29.97), (25, 12.5), (30, 10.0), (1, 25.0), (7, 60.0)):
        numbers = footage_of([0] * count, fps).nearest(25.0)
        assert len(numbers) == max(1, round(count / fps * 25))
        for place, number in enumerate(numbers):
            distances = np.abs(np.arange(count) / fps - place / 25)
            assert distances[number] == pytest.approx(distances.min(), abs=1e-9)


def test_uneven_frame_times_are_respected():
    footage = Footage(np.array([0.0, 0.04, 0.5, 0.54]), 4 / 0.58, footage_of([0] * 4).read)
    numbers = footage.nearest(25.0)
    assert numbers.tolist() == [0] + [1] * 6 + [2] * 6 + [3]


def test_test_clips_are_evenly_spaced_from_start_to_end(video: str):
    footage = video_sets.open_video(video)
    spaced = video_sets.evenly_spaced_clips(footage, 16, 32, 10)
    assert spaced.frames.shape[1:] == (3, 32, 32)
    for number in range(10):
        start = round(number * (40 - 16) / 9)
        assert clip_numbers(spaced.frames[spaced.places[number]]) == list(range(start, start + 16))
    assert len(spaced.frames) == 40  # each frame once
    middle = video_sets.evenly_spaced_clips(footage, 16, 32, 1)
    assert clip_numbers(middle.frames[middle.places[0]]) == list(range(12, 28))


def test_short_videos_start_again():
    short = footage_of([3, 5, 7])
    spaced = video_sets.evenly_spaced_clips(short, 8, 32, 2)
    assert [brightness(spaced.frames[places]) for places in spaced.places] == [[3, 5, 7, 3, 5, 7, 3, 5]] * 2
    clip = video_sets.training_clip(short, 8, 32, np.random.default_rng(0))
    assert brightness(clip) == [3, 5, 7, 3, 5, 7, 3, 5]


def test_training_clips_are_consecutive_frames_from_a_random_start(video: str):
    footage, starts = video_sets.open_video(video), set()
    for seed in range(200):
        numbers = brightness(video_sets.training_clip(footage_of(list(range(20))), 16, 32, np.random.default_rng(seed)))
        assert numbers == list(range(numbers[0], numbers[0] + 16))
        starts.add(numbers[0])
    assert starts == set(range(5))
    one, same, other = (video_sets.training_clip(footage, 16, 32, np.random.default_rng((0, 1, n))) for n in (2, 2, 3))
    assert one.shape == (16, 3, 32, 32)
    assert one.dtype == np.uint8
    assert (one == same).all()
    assert (one != other).any()


def test_all_frames_have_the_same_crop_within_the_limits():
    # Red encodes the column and green the row.
    across, down = np.meshgrid(np.arange(200), np.arange(160))
    frame = np.stack([across, down, np.full_like(across, 9)], axis=2).astype(np.uint8)
    footage = steady(8, 25.0, lambda asked: np.stack([frame] * len(asked)))
    shares, ratios, flips = [], [], []
    for seed in range(300):
        clip = video_sets.training_clip(footage, 8, 32, np.random.default_rng(seed)).astype(float)
        assert (clip == clip[0]).all()
        columns, rows = clip[0, 0].mean(0), clip[0, 1].mean(1)
        # 32 pixels are the middles of 32 equal parts, so from first to last is 31/32 of the side.
        width, height = abs(columns[-1] - columns[0]) * 32 / 31, (rows[-1] - rows[0]) * 32 / 31
        shares.append(width * height / frame[..., 0].size)
        ratios.append(width / height)
        flips.append(columns[-1] < columns[0])
    assert 0.23 < min(shares) < 0.3
    assert 0.8 < max(shares) < 1.05
    assert 0.72 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.38
    assert 0.4 < np.mean(flips) < 0.6


def test_the_central_square_is_as_large_as_it_can_be():
    assert video_sets.central_square(48, 64) == (8, 0, 56, 48)
    assert video_sets.central_square(65, 48) == (0, 8, 48, 56)
    assert video_sets.central_square(7, 7) == (0, 0, 7, 7)


def test_ucf101_lists_are_read_as_published(tmp_path: Path):
    root = clip_sets.write_ucf101(tmp_path, videos=3, frames=2)
    train, test = video_sets.read_ucf101(str(root), "2")
    assert train.classes == test.classes == ("Blue", "Green", "Red")
    assert train.labels == (0, 0, 1, 1, 2, 2)
    assert test.labels == (0, 1, 2)
    assert test.uris[1].endswith("UCF-101/Green/v_Green_g03_c01.avi")
    few = video_sets.limited(replace(train, labels=(2, 1, 0, 2, 1, 0)), 3)
    assert few.labels == (0, 1, 2)
    assert video_sets.limited(train, 0) == train


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("trainlist01.txt", None, "trainlist01.txt is missing"),
        ("classInd.txt", None, "classInd.txt is missing"),
        ("classInd.txt", "1 Blue\n3 Green\n", "classInd.txt, line 2: expected '2 <Class>'"),
        ("classInd.txt", "\n", "classInd.txt has no classes"),
        (
            "trainlist01.txt",
            "Blue/v_Blue_g01_c01.avi\n",
            "line 1: expected '<Class>/<video>.avi <number of the class>'",
        ),
        ("trainlist01.txt", "Blue/v_Blue_g01_c01.avi 2\n", "line 1: expected"),
        ("testlist01.txt", "\nPink/v_Pink_g01_c01.avi\n", "testlist01.txt, line 2: expected '<Class>/<video>.avi'"),
        ("testlist01.txt", "Blue/v_Blue_g09_c01.avi\n", "UCF-101/Blue/v_Blue_g09_c01.avi is missing"),
        ("testlist01.txt", "", "testlist01.txt has no videos"),
        (
            "testlist01.txt",
            "Blue/v_Blue_g02_c01.avi\n" * 2,
            "testlist01.txt, line 2: Blue/v_Blue_g02_c01.avi is listed",
        ),
        ("testlist01.txt", "Blue/v_Blue_g01_c01.avi\n", "Blue/v_Blue_g01_c01.avi is in both lists of split 1"),
    ],
)
def test_errors_of_ucf101_name_file_and_line(tmp_path: Path, file: str, text: str | None, message: str):
    root = clip_sets.write_ucf101(tmp_path, videos=2, frames=2)
    path = root / "ucfTrainTestlist" / file
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(InputError) as error:
        video_sets.read_ucf101(str(root), "1")
    assert message in str(error.value)


@pytest.mark.parametrize("folder", ["videos", "."])
def test_hmdb51_lists_are_read_as_published(tmp_path: Path, folder: str):
    root = clip_sets.write_hmdb51(tmp_path, folder, frames=2)
    for split in ("1", "2", "3"):
        train, test = video_sets.read_hmdb51(str(root), split)
        assert train.classes == ("blue", "green", "red")
        assert train.labels == (0, 0, 1, 1, 2, 2)
        assert test.labels == (0, 1, 2)
        assert not set(train.uris) & set(test.uris)
        # Each split tests on another video.
        assert f"#{(3 - int(split)) % 4}_(a)[b]_blue" in test.uris[0]
    assert frame_numbers(video_sets.open_video(test.uris[0]).read([0]))


def test_hidden_lists_are_no_classes(tmp_path: Path):
    root = clip_sets.write_hmdb51(tmp_path, frames=2)
    for name in ("._red_test_split1.txt", ".red_test_split1.txt"):
        (root / "testTrainMulti_7030_splits" / name).write_bytes(b"\x00\x05\x16\x07")
    assert video_sets.read_hmdb51(str(root), "1")[0].classes == ("blue", "green", "red")


def test_errors_of_hmdb51_name_file_and_line(tmp_path: Path):
    with pytest.raises(InputError, match=r"there is no .*<class>_test_split1.txt"):
        video_sets.read_hmdb51(str(tmp_path), "1")
    root = clip_sets.write_hmdb51(tmp_path, frames=2)
    path = root / "testTrainMulti_7030_splits" / "green_test_split1.txt"
    whole = path.read_text()
    path.write_text(whole + "a.avi 4\n")
    with pytest.raises(InputError, match=r"green_test_split1.txt, line 5: expected '<video>.avi <0, 1 or 2>'"):
        video_sets.read_hmdb51(str(root), "1")
    path.write_text(whole + whole.splitlines()[0])
    with pytest.raises(InputError, match=r"green_test_split1.txt, line 5: .*_0\.avi is listed twice"):
        video_sets.read_hmdb51(str(root), "1")
    path.write_text(whole + "a.avi 2\n")
    with pytest.raises(InputError, match=r"videos/green/a.avi is missing; split 1 lists it"):
        video_sets.read_hmdb51(str(root), "1")
    for path in (root / "testTrainMulti_7030_splits").iterdir():
        path.write_text("")
    with pytest.raises(InputError, match="have no video for training; expected lines with the mark 1"):
        video_sets.read_hmdb51(str(root), "1")


def test_a_damaged_video_is_named(video: str, tmp_path: Path):
    data = Path(video).read_bytes()
    path = tmp_path / "bad.avi"
    for content in (b"", b"nothing of the kind" * 100, data[: len(data) // 2], data[:3000]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.avi cannot be read as a video"):
            video_sets.open_video(str(path)).read(range(40))
    with pytest.raises(InputError, match=r"none\.avi is missing"):
        video_sets.open_video(str(tmp_path / "none.avi"))
    with pytest.raises(VideoError):
        open_footage(data[:3000])


def test_videos_are_read_from_any_file_system(video: str):
    import fsspec

    fsspec.filesystem("memory").pipe("/sets/forty.avi", Path(video).read_bytes())
    assert frame_numbers(video_sets.open_video("memory://sets/forty.avi").read([7])) == [7]


def test_real_videos_are_decoded_frame_by_frame(real_data: Path):
    train, test = video_sets.read_ucf101(str(real_data / "ucf101"), "1")
    assert len(train.classes) == 11
    # Some of these videos have packets with two frames (packed B-frames).
    for uri in (train.uris[0], train.uris[1], test.uris[0]):
        with av.open(uri, metadata_errors="ignore") as container:
            whole = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        footage = video_sets.open_video(uri)
        assert 0 <= len(footage.times) - len(whole) <= 1
        last = len(footage.times) - 1  # it may be empty; the frame before is then on screen
        np.testing.assert_array_equal(footage.read([0, last]), whole[[0, -1]])
        for numbers in ([0, 1, 2], [len(whole) - 1], [len(whole) // 2 + 1, len(whole) // 2]):
            assert (footage.read(numbers) == whole[numbers]).all()
