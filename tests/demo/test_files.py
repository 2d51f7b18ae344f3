"""Oracles: readers of OpenCV, and lossless or bounded differences from what was written."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from rgb_files import read_rgb
from source_videos import decode_file

from previts.demo import files


def moving_gradient(frames: int) -> list[np.ndarray]:
    rows, columns = np.mgrid[:48, :64]
    return [np.stack([rows * 4, columns * 3, 0 * rows + 20 * t], 2).astype(np.uint8) for t in range(frames)]


def test_png_is_lossless_for_colour_and_grey(tmp_path: Path):
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    files.write_png(str(tmp_path / "colour.png"), image)
    np.testing.assert_array_equal(read_rgb(tmp_path / "colour.png"), image)
    files.write_png(str(tmp_path / "grey.png"), image[..., 0])
    grey = cv2.imread(str(tmp_path / "grey.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(grey, image[..., 0])


def test_a_mask_is_a_grey_png_of_0_and_255(tmp_path: Path):
    mask = np.random.default_rng(0).random((9, 7)) > 0.5
    files.write_mask(str(tmp_path / "mask.png"), mask)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "mask.png"), cv2.IMREAD_UNCHANGED), mask * 255)


def test_jpeg_keeps_the_order_of_the_channels(tmp_path: Path):
    image = moving_gradient(3)[2]
    files.write_jpeg(str(tmp_path / "image.jpg"), image)
    assert np.abs(read_rgb(tmp_path / "image.jpg").astype(float) - image).mean() < 3


@pytest.mark.parametrize(("write", "name"), [(files.write_mp4, "v.mp4"), (files.write_avi, "v.avi")])
def test_videos_have_all_frames_in_order(tmp_path: Path, write, name: str):
    frames = moving_gradient(8)
    write(str(tmp_path / name), frames, 12.0)
    decoded = decode_file(str(tmp_path / name))
    assert decoded.shape == (8, 48, 64, 3)
    assert np.abs(decoded.astype(float) - np.stack(frames)).mean() < 6
    assert (np.diff(decoded[..., 2].astype(float).mean((1, 2))) > 10).all()


def test_text_ends_each_line_with_a_line_feed(tmp_path: Path):
    files.write_text(str(tmp_path / "list.txt"), ["a", "b c"])
    assert (tmp_path / "list.txt").read_bytes() == b"a\nb c\n"
