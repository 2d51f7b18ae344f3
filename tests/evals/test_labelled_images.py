"""Oracles: torchvision's transforms, sets counted by hand."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from colour_images import write_image
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from previts.errors import InputError
from previts.evals import labelled_images


@pytest.mark.parametrize("size", [(80, 70), (70, 81), (333, 250), (64, 64), (65, 640)])
def test_centre_crop_equals_torchvision(size: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    oracle = Compose([Resize(72, InterpolationMode.BILINEAR), CenterCrop(64)])(image)
    assert (labelled_images.centre_crop(image, 72, 64) == np.asarray(oracle).transpose(2, 0, 1)).all()


def test_random_crop_depends_only_on_its_generator():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    crops = [labelled_images.random_crop(image, 32, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert (crops[0] == crops[1]).all()
    assert (crops[0] != crops[2]).any()
    assert labelled_images.random_crop(Image.new("L", (400, 4)), 32, np.random.default_rng(0)).shape == (3, 32, 32)


def test_whole_images_of_the_right_size_are_unchanged(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    assert (labelled_images.load_whole(str(tmp_path / "image.png"), size=64) == pixels.transpose(2, 0, 1)).all()
    assert labelled_images.load_whole(str(tmp_path / "image.png"), size=32).shape == (3, 32, 32)


GREY = np.tile(np.linspace(0, 255, 96, dtype=np.uint8), (96, 1))


def stored(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "image", "kind", "error"),
    [
        ("grey", Image.fromarray(GREY), "PNG", 0),
        ("palette", Image.fromarray(GREY).convert("P"), "PNG", 0),
        ("16 bits", Image.fromarray(GREY.astype(np.uint16) * 257), "PNG", 0),
        ("16 bits, big end first", Image.fromarray((GREY.astype(np.uint16) * 257).astype(">u2")), "TIFF", 0),
        ("32 bits", Image.fromarray(GREY.astype(np.int32) * 257), "TIFF", 0),
        ("grey with alpha", Image.fromarray(GREY).convert("LA"), "PNG", 0),
        ("colours with alpha", Image.fromarray(GREY).convert("RGBA"), "PNG", 0),
        ("CMYK", Image.fromarray(GREY).convert("RGB").convert("CMYK"), "TIFF", 1),
        ("CMYK JPEG", Image.fromarray(GREY).convert("RGB").convert("CMYK"), "JPEG", 6),
        ("YCbCr JPEG", Image.fromarray(GREY).convert("RGB"), "JPEG", 6),
        ("one bit", Image.fromarray(GREY > 127), "PNG", None),
    ],
)
def test_every_kind_of_image_has_its_colours(tmp_path: Path, name: str, image: Image.Image, kind: str, error):
    (tmp_path / "image").write_bytes(stored(image, kind))
    found = labelled_images.load_whole(str(tmp_path / "image"), size=96)
    expected = GREY if error is not None else np.where(GREY > 127, 255, 0)
    assert found.shape == (3, 96, 96)
    assert np.abs(found.astype(int) - expected).max() <= (error or 0), name


def test_an_image_whose_white_is_not_known_is_refused(tmp_path: Path):
    (tmp_path / "image").write_bytes(stored(Image.fromarray(GREY.astype(np.float32)), "TIFF"))
    with pytest.raises(InputError, match="has floating-point pixels"):
        labelled_images.load_whole(str(tmp_path / "image"), size=96)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF"])
def test_damaged_files_of_every_kind_are_named(tmp_path: Path, kind: str):
    whole = stored(Image.fromarray(GREY), kind)
    generator, messages = np.random.default_rng(0), list[str]()
    for cut in [0, 3, 20, len(whole) // 2, *generator.integers(0, len(whole), 20)]:
        damaged = bytearray(whole[: max(cut, 40)])
        for place in generator.integers(0, len(damaged), 8):
            damaged[place] ^= 255
        (tmp_path / "image").write_bytes(bytes(damaged) if cut > 20 else whole[:cut])
        try:
            labelled_images.open_image(str(tmp_path / "image"))
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 5
    assert all(f"{tmp_path}/image cannot be read as an image" in text and " at 0x" not in text for text in messages)


def test_a_limit_takes_evenly_spaced_items_from_first_to_last():
    assert labelled_images.evenly(5, 0) == [0, 1, 2, 3, 4]
    assert labelled_images.evenly(9, 3) == [0, 4, 8]
    assert labelled_images.evenly(3, 9) == [0, 1, 2]
    assert labelled_images.evenly(9, 1) == [0]
    for count in range(1, 40):
        for limit in range(1, count + 1):
            assert len(set(labelled_images.evenly(count, limit))) == limit


def test_folders_are_classes_and_images_are_sorted(tmp_path: Path):
    for name in ("b/2.png", "b/10.JPG", "a/x/1.webp", "a/notes.txt", "top.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = labelled_images.read_image_folder(str(tmp_path))
    assert found.classes == ("a", "b")
    assert [uri.removeprefix(f"{tmp_path}/") for uri in found.uris] == ["a/x/1.webp", "b/10.JPG", "b/2.png"]
    assert found.labels == (0, 1, 1)
    assert labelled_images.read_image_folder(str(tmp_path), ("b", "c", "a")).labels == (2, 0, 0)
    assert labelled_images.limited(found, 2).labels == (0, 1)
    with pytest.raises(InputError, match=r"/b is not a class of the training split"):
        labelled_images.read_image_folder(str(tmp_path), ("a",))


def test_a_pipe_in_a_folder_is_left_aside(tmp_path):
    write_image(tmp_path / "cat" / "a.jpg", (9, 9, 9), 0)
    os.mkfifo(tmp_path / "cat" / "b.jpg")
    found = labelled_images.read_image_folder(str(tmp_path))
    assert (len(found.uris), str(found.left_aside)) == (1, "1 not a regular file")


def test_a_folder_or_a_pipe_that_is_named_like_an_image_is_refused(tmp_path: Path):
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, what in (("folder.jpg", "a folder"), ("pipe.jpg", "a pipe or a device")):
        with pytest.raises(InputError, match=f"{name} is {what}, expected a file; replace it by the original file"):
            labelled_images.open_image(str(tmp_path / name))
