"""Oracles: the signs of a cosine transform, images changed in a known way, and counts from the definition."""

import cv2
import numpy as np
import pytest
from moving_scenes import FPS, landscape, scene
from video_copies import framed, marked, recoloured

from previts.config.perception import VideoConfig
from previts.media import frame_hashes, normalisation
from previts.media.frame_hashes import (
    HASH_BYTES,
    MAX_HASHES,
    MIRROR,
    image_hashes,
    is_valid,
    mirrored_steps,
    split,
    step_bytes,
    video_hashes,
)


def parts(hashes: bytes) -> np.ndarray:
    """Return the first parts of hashes."""
    return split(hashes[1:])[0]


def steps(hashes: bytes) -> np.ndarray:
    """Return the steps (number, 8, 16): 1 where the luma rises, -1 where it falls, 0 elsewhere."""
    bits = np.unpackbits(step_bytes(split(hashes[1:])[1]), axis=1, bitorder="little").reshape(-1, 2, 8, 16)
    return bits[:, 0].astype(int) - bits[:, 1]


def difference(one: bytes, other: bytes, mirror: int = 0) -> float:
    """Return the mean number of bits of 128 in which the hashes of two videos differ."""
    return float(np.bitwise_count(parts(one) ^ parts(other) ^ np.uint64(mirror)).sum(axis=1).mean())


def changed(change, places=range(8)) -> float:
    """Return the mean difference of images and changed images."""
    return float(np.mean([difference(image_hashes(landscape(n)), image_hashes(change(landscape(n)))) for n in places]))


def jpeg(image):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 15])[1], cv2.IMREAD_COLOR)


def test_bits_are_the_signs_of_the_low_frequencies_of_an_image_without_contrast_at_its_border():
    y, x = np.mgrid[0:128, 0:128] / 128
    inside = np.sin(np.pi * x) * np.sin(np.pi * y)
    waves = 80 * np.cos(np.pi * 2 * x) * np.cos(np.pi * 3 * y) + 50 * np.cos(np.pi * 5 * x) - 60 * np.cos(np.pi * y)
    image = np.repeat((128 + inside * waves)[:, :, None], 3, axis=2).round().astype(np.uint8)
    found = np.unpackbits(parts(image_hashes(image))[0, :1].view(np.uint8), bitorder="little").reshape(8, 8)
    small = cv2.resize(image[:, :, 0], (32, 32), interpolation=cv2.INTER_AREA).astype(np.float64)
    expected = cv2.dct(small - small.mean())[:8, :8]
    clear = np.abs(expected) > 0.15 * np.abs(expected).max()
    clear[0, 0] = False
    assert clear.sum() >= 6
    np.testing.assert_array_equal(found[clear], expected[clear] > 0)


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        (jpeg, 8),
        (lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), 3),
        (marked, 16),
        (lambda image: framed(image, 0.16, 0), 8),
        (lambda image: framed(image, 0, 0.16), 8),
        (lambda image: marked(framed(image, 0.16, 0)), 16),
        (recoloured, 6),
        (lambda image: (image * 0.7 + 30).astype(np.uint8), 3),
    ],
    ids=["coded", "half size", "logo", "letterbox", "pillarbox", "logo on a bar", "recoloured", "flat"],
)
def test_changed_images_keep_most_bits_and_other_images_do_not(change, limit):
    assert changed(change) <= limit
    others = [difference(image_hashes(landscape(n)), image_hashes(landscape(n + 1))) for n in range(8)]
    assert 50 < np.mean(others) < 78
    assert min(others) > 40


def test_a_mirrored_image_inverts_the_bits_of_the_odd_columns():
    for number in range(8):
        image = landscape(number)
        mirrored = image_hashes(np.ascontiguousarray(image[:, ::-1]))
        assert difference(image_hashes(image), mirrored, int(MIRROR)) <= 6
        assert difference(image_hashes(image), mirrored) > 40


def test_steps_are_the_clear_differences_of_neighbouring_cells():
    generator = np.random.default_rng(0)
    cells = generator.integers(0, 256, (8, 17))
    cells[2, 4], cells[5, 6] = cells[2, 3], cells[5, 5] + (1 if cells[5, 5] < 128 else -1)
    image = np.repeat(cells.repeat(24, axis=0).repeat(12, axis=1)[:, :, None], 3, axis=2).astype(np.uint8)
    found = steps(image_hashes(image))[0]
    differences = np.diff(cells, axis=1)
    clear = np.abs(differences) > np.sort(np.abs(differences), axis=None)[51]  # 0.4 of 128
    sure = np.abs(np.abs(differences) - np.sort(np.abs(differences), axis=None)[51]) > 12  # after scaling
    assert sure.sum() > 90
    np.testing.assert_array_equal(found[sure], (np.sign(differences) * clear)[sure])
    assert found[2, 3] == found[5, 5] == 0


def test_small_steps_are_not_clear():
    image = np.full((128, 272, 3), 100, np.uint8)
    image[:, 136:] = 140  # a hash needs some contrast
    expected = np.zeros((8, 16), int)
    expected[:, 7:9] = 1  # the cell in the middle has both levels
    np.testing.assert_array_equal(steps(image_hashes(image))[0], expected)


@pytest.mark.parametrize("change", [jpeg, recoloured, marked], ids=["coded", "recoloured", "logo"])
def test_changed_images_keep_most_steps_and_other_images_do_not(change):
    def likeness(one, other) -> float:
        return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))

    for number in range(8):
        image = landscape(number)
        found = steps(image_hashes(image))
        assert likeness(found, steps(image_hashes(change(image)))) > 0.85
        assert abs(likeness(found, steps(image_hashes(landscape(number + 1))))) < 0.5


def test_mirrored_steps_are_those_of_the_mirrored_image():
    for number in range(4):
        image = landscape(number)
        mirrored = image_hashes(np.ascontiguousarray(image[:, ::-1]))
        turned = b"\0" + b"".join((bytes(16), mirrored_steps(split(image_hashes(image)[1:])[1]).tobytes()))
        assert (steps(turned) == steps(mirrored)).mean() > 0.97
        assert (steps(turned) == steps(image_hashes(image))).mean() < 0.6
    assert mirrored_steps(np.zeros((0, 4), np.uint64)).shape == (0, 4)


def test_a_dark_ground_is_not_a_bar():
    image = landscape(3)
    image[72:] = 20
    assert frame_hashes._picture([frame_hashes._shrunk(image[:, :, 0])])[0] == slice(0, 64)
    image[:6] = 20  # a bar of 4 of 64 lines, and one at the other end below the dark ground
    assert frame_hashes._picture([frame_hashes._shrunk(image[:, :, 0])])[0] == slice(5, 59)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_uniform_images_and_titles_have_no_hash(level):
    image = np.full((96, 128, 3), level, np.uint8)
    assert image_hashes(image) == b""
    cv2.putText(image, "The End", (35, 50), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255 - level // 2,) * 3, 1)
    assert image_hashes(image) == b""
    noise = np.random.default_rng(0).normal(0, 10, image.shape)
    assert image_hashes(np.clip(image + noise, 0, 255).astype(np.uint8)) == b""


def test_a_uniform_frame_keeps_the_place_of_the_others():
    frames = scene(0, seconds=2.0)
    expected = parts(video_hashes(frames, FPS)).copy()
    frames[4:8] = [np.zeros_like(frames[0])] * 4
    expected[2:4] = 0  # of the frames at 0.5 and 0.75 s
    np.testing.assert_array_equal(parts(video_hashes(frames, FPS)), expected)


@pytest.mark.parametrize(
    ("fps", "frames", "doublings", "count"),
    [
        (8.0, 32, 0, 16),
        (8.0, 33, 0, 17),  # the last frame is on screen from 4.0 s
        (25.0, 1, 0, 1),
        (2.0, 8, 0, 16),  # each frame is on screen for two hashes
        (4.0, 256, 0, 256),
        (4.0, 257, 1, 129),
        (4.0, 1025, 3, 129),
    ],
)
def test_there_is_a_hash_for_each_time_step_and_never_more_than_the_limit(fps, frames, doublings, count):
    hashes = video_hashes((scene(0, seconds=0.125)[0] for _ in range(frames)), fps)
    assert hashes[0] == doublings
    assert len(hashes) == 1 + HASH_BYTES * count
    assert count <= MAX_HASHES
    assert is_valid(hashes)


def test_each_hash_is_of_the_frame_on_screen():
    frames = scene(1, seconds=2.0)  # 8 frames a second: every second frame has a hash
    expected = b"".join(video_hashes([frame], FPS)[1:] for frame in frames[::2])
    assert video_hashes(frames, FPS)[1:] == expected


def test_after_a_doubling_each_hash_is_of_the_frame_on_screen():
    frames = [*scene(1, seconds=2.0)] * 40  # 640 frames, 8 a second
    hashes = video_hashes(frames, FPS)
    assert hashes[0] == 1
    assert hashes[1:] == b"".join(video_hashes([frame], FPS)[1:] for frame in frames[::4])


def test_the_bit_of_the_mean_is_never_set():
    found = np.concatenate([parts(image_hashes(landscape(number))) for number in range(40)])
    assert not (found & np.uint64(1)).any()


def test_a_bar_with_a_logo_is_a_bar():
    image = framed(landscape(3), 0.16, 0)
    image[2:12, 100:122] = 200
    rows, columns = frame_hashes._picture([frame_hashes._shrunk(image[:, :, 0])])
    assert columns == slice(0, 64)
    edge = 16 / 128 * rows_of(image)
    assert edge <= rows.start <= edge + 2


def rows_of(image) -> int:
    return frame_hashes._shrunk(image[:, :, 0]).shape[0]


def test_without_frames_there_are_no_hashes():
    assert video_hashes([], 25.0) == b""


@pytest.mark.parametrize(
    ("hashes", "valid"),
    [
        (b"", True),
        (bytes(49), True),
        (bytes([32]) + bytes(48), True),
        (bytes([33]) + bytes(48), False),
        (bytes(1), False),
        (bytes(17), False),
        (bytes(48), False),
        (bytes(50), False),
        (bytes(1 + 48 * 256), True),
        (bytes(1 + 48 * 257), False),
    ],
)
def test_only_whole_hashes_are_valid(hashes, valid):
    assert is_valid(hashes) is valid


def test_normalise_returns_the_hashes_of_its_frames(tmp_path):
    source = str(tmp_path / "source.mp4")
    normalisation.encode_video(scene(2), FPS, source, crf=10)
    info = normalisation.normalise(source, str(tmp_path / "target.mp4"), VideoConfig(), 1.0, 3.0)
    expected = video_hashes(scene(2, 1.0, 2.0), FPS)
    assert len(info.hashes) == len(expected) == 1 + 8 * HASH_BYTES
    assert difference(info.hashes, expected) <= 6
