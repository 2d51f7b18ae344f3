"""Oracles: variants of single images, and the files of an uninterrupted call."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from colour_images import image_model
from PIL import Image

from previts.config.evaluation import EvaluationConfig, LinearConfig
from previts.errors import InputError
from previts.evals.backgrounds import variant_folders
from previts.evals.run import evaluate
from previts.media import variants
from previts.media.variants import MIXED, VARIANTS
from previts.models.moco import MoCo

COLOURS = {"ant": (230, 30, 30), "bee": (30, 230, 30), "cow": (30, 30, 230)}


def write_images(root: Path, count: int = 4, side: int = 48, suffix: str = ".png", train: Path | None = None) -> None:
    """Grey discs on a background with the colour of their class: only the background shows the class."""
    rng = np.random.default_rng(0)
    for class_name, colour in COLOURS.items():
        for number in range(3 * count if train else count):
            ys, xs = np.mgrid[:side, : side + 8]
            centre = rng.uniform(0.35, 0.65, 2) * side
            disc = (ys - centre[0]) ** 2 + (xs - centre[1]) ** 2 < (side / 5) ** 2
            pixels = np.where(disc[..., None], 128, np.array(colour)) + rng.integers(-20, 21, (side, side + 8, 3))
            image = Image.fromarray(np.clip(pixels, 1, 255).astype(np.uint8))
            if train and number >= count:
                (train / class_name).mkdir(parents=True, exist_ok=True)
                image.save(train / class_name / f"{number}.png")
                continue
            for folder, name, saved in (
                ("images", f"{number}{suffix}", image),
                ("masks", f"{number}.png", Image.fromarray(disc.astype(np.uint8))),
            ):
                (root / folder / class_name).mkdir(parents=True, exist_ok=True)
                saved.save(root / folder / class_name / name)


def write(root: Path, out: str = "out", seed: int = 0) -> str:
    return variant_folders.write(str(root / "images"), str(root / "masks"), str(root / out), seed)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_manifest_has_no_text_that_a_spreadsheet_runs(tmp_path: Path):
    write_images(tmp_path, 2)
    for kind in ("images", "masks"):
        (tmp_path / kind / "ant").rename(tmp_path / kind / "=ant")
        (tmp_path / kind / "bee" / "0.png").rename(tmp_path / kind / "bee" / "@0.png")
    write(tmp_path)
    found = rows(tmp_path / "out" / "manifest.csv")
    assert {row["class"] for row in found} == {"'=ant", "bee", "cow"}
    assert {row["background_class"] for row in found} == {"", "'=ant", "bee", "cow"}
    assert {row["image"] for row in found} == {"0.png", "1.png", "'@0.png"}
    assert (tmp_path / "out" / "original" / "val" / "=ant" / "0.png").exists()  # only the table is changed
    before = (tmp_path / "out" / "manifest.csv").stat().st_mtime_ns
    write(tmp_path)
    assert (tmp_path / "out" / "manifest.csv").stat().st_mtime_ns == before


def test_files_are_the_variants_and_the_manifest_has_the_source_of_each_background(tmp_path: Path):
    write_images(tmp_path)
    summary = write(tmp_path, seed=3)
    assert summary.startswith("8 variants of 12 images of 3 classes")
    found = rows(tmp_path / "out" / "manifest.csv")
    assert len(found) == 8 * 12
    assert {row["seed"] for row in found} == {"3"}
    assert not (tmp_path / "out" / "begun.csv").exists()
    for row in found:
        class_name, name = row["class"], row["image"]
        image, mask = (pixels(tmp_path / kind / class_name / name) for kind in ("images", "masks"))
        back = None
        if row["variant"] in MIXED:
            there = row["background_class"], row["background_image"]
            back = variants.only_bg_t(
                pixels(tmp_path / "images" / Path(*there)), pixels(tmp_path / "masks" / Path(*there)) > 0
            )
        else:
            assert row["background_class"] == row["background_image"] == ""
        written = pixels(tmp_path / "out" / row["variant"] / "val" / class_name / name)
        np.testing.assert_array_equal(written, variants.vary(row["variant"], image, mask > 0, back))
        shown = pixels(tmp_path / "out" / "fg_mask" / "val" / class_name / name)
        np.testing.assert_array_equal(shown, (mask > 0) * np.uint8(255))


def test_variants_of_jpegs_are_jpegs_and_close_to_the_exact_variants(tmp_path: Path):
    write_images(tmp_path, suffix=".JPEG")
    write(tmp_path)
    path = tmp_path / "out" / "only_bg_t" / "val" / "bee" / "1.JPEG"
    assert Image.open(path).format == "JPEG"
    exact = variants.only_bg_t(pixels(tmp_path / "images/bee/1.JPEG"), pixels(tmp_path / "masks/bee/1.png") > 0)
    assert np.abs(pixels(path).astype(float) - exact).mean() < 6


@pytest.fixture(scope="module")
def model() -> MoCo:
    return image_model()


@pytest.mark.slow
def test_the_benchmark_reads_the_variants_and_loses_accuracy_without_backgrounds(model: MoCo, tmp_path: Path):
    write_images(tmp_path, count=6, train=tmp_path / "in9" / "train" / "original")
    write(tmp_path, "in9")
    config = EvaluationConfig(resize=64, crop=64, batch_size=18, linear=LinearConfig(views="cached"))
    found = evaluate("in9", model, str(tmp_path), config).metrics
    assert set(found) == {f"in9/{name}" for name in (*VARIANTS, "bg_gap")}
    # Only the background shows the class. Variants that keep it are solved; variants that exchange it are not.
    assert min(found[f"in9/{name}"] for name in ("original", "mixed_same", "only_bg_t")) > 90
    assert found["in9/mixed_next"] < 10
    assert max(found["in9/mixed_rand"], found["in9/only_fg"]) < 67


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_interrupted_call_resumes_and_a_complete_folder_is_unchanged(tmp_path: Path):
    write_images(tmp_path)
    write(tmp_path)
    out = tmp_path / "out"
    whole = files(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    write(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
    # The state after an interruption: no manifest, one image without variants, one with some of them.
    (out / "manifest.csv").rename(out / "begun.csv")
    for variant in (*VARIANTS, "fg_mask"):
        (out / variant / "val" / "ant" / "0.png").unlink()
    (out / "only_bg_t" / "val" / "bee" / "1.png").unlink()
    (out / "fg_mask" / "val" / "bee" / "1.png").unlink()
    write(tmp_path)
    assert files(out) == whole
    done = out / "mixed_rand" / "val" / "cow" / "2.png"
    assert done.stat().st_mtime_ns == times[done]


def test_a_folder_of_another_seed_or_of_other_images_is_refused(tmp_path: Path):
    write_images(tmp_path)
    write(tmp_path)
    with pytest.raises(InputError, match=r"out/manifest.csv was written for other images, other masks or another seed"):
        write(tmp_path, seed=1)
    shutil.copy(tmp_path / "images/ant/0.png", tmp_path / "images/ant/1.png")
    with pytest.raises(InputError, match=r"out/manifest.csv was written for other"):
        write(tmp_path)
    (tmp_path / "out" / "manifest.csv").unlink()
    with pytest.raises(InputError, match=r"out/original exists but has no manifest"):
        write(tmp_path)


def test_images_with_empty_masks_are_left_out_and_objects_that_fill_the_image_are_counted(tmp_path: Path):
    write_images(tmp_path)
    for name, value in (("0", 0), ("1", 7)):
        Image.fromarray(np.full((48, 56), value, np.uint8)).save(tmp_path / "masks" / "cow" / f"{name}.png")
    summary = write(tmp_path)
    assert "8 variants of 11 images" in summary
    assert "Images with an empty mask, left out: 1, such as" in summary
    assert "images/cow/0.png" in summary
    assert "which makes only_bg_t black: 1" in summary
    assert not pixels(tmp_path / "out" / "only_bg_t" / "val" / "cow" / "1.png").any()
    assert not any(path.stem == "0" for path in (tmp_path / "out").rglob("cow/*"))


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "RGB", "RGBA", "LA"])
def test_masks_of_any_image_mode_are_read(mode: str, tmp_path: Path):
    truth = np.zeros((6, 8), bool)
    truth[2:4, 3:7] = True
    if mode == "P":
        image = Image.fromarray(truth.astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 0, 0, 0])  # the colour of the object is black too; only its number counts
    elif mode == "I;16":
        image = Image.fromarray(truth.astype(np.uint16) * 300)
    elif mode in ("RGB", "RGBA"):
        image = Image.fromarray(truth[..., None] * np.array([0, 0, 1], np.uint8)).convert(mode)
    else:
        image = Image.fromarray(truth.astype(np.uint8) * 255).convert(mode)
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(variant_folders.read_mask(str(tmp_path / "mask.png")), truth)


def test_errors_of_the_layout_name_the_file(tmp_path: Path):
    write_images(tmp_path)
    images, masks = tmp_path / "images", tmp_path / "masks"
    mask = masks / "bee" / "2.png"
    kept = mask.read_bytes()
    mask.unlink()
    with pytest.raises(InputError, match=r"masks/bee/2\.png is missing"):
        write(tmp_path)
    Image.fromarray(np.ones((48, 48), np.uint8)).save(mask)
    with pytest.raises(InputError, match=r"masks/bee/2\.png has 48 x 48 pixels, its image .*bee/2\.png 56 x 48"):
        write(tmp_path)
    mask.write_bytes(kept[:60])
    with pytest.raises(InputError, match=r"masks/bee/2\.png cannot be read as an image"):
        write(tmp_path)
    mask.write_bytes(kept)
    shutil.copy(images / "bee" / "2.png", images / "bee" / "2.jpg")
    with pytest.raises(InputError, match="two images have the name bee/2"):
        write(tmp_path)
    (images / "bee" / "2.jpg").unlink()
    for number in (1, 2, 3):
        (images / "cow" / f"{number}.png").unlink()
    with pytest.raises(InputError, match=r"cow/0\.png is alone in its class, and mixed_same"):
        write(tmp_path)
    with pytest.raises(InputError, match="expected a folder for each class"):
        variant_folders.write(str(tmp_path / "nowhere"), str(masks), str(tmp_path / "out"), 0)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_variants_are_close_to_those_of_another_program(real_data: Path, tmp_path: Path):
    """Real images whose variants another program wrote. Its tiles cover the whole frame, so they are not compared."""
    published = real_data / "in9"
    variant_folders.write(str(published / "original" / "val"), str(published / "fg_mask" / "val"), str(tmp_path), 0)
    masks = sorted((published / "fg_mask" / "val").rglob("*.png"))
    assert masks
    for mask_path in masks:
        name = mask_path.relative_to(published / "fg_mask" / "val").with_suffix(".jpg")
        for variant in ("original", "only_fg", "no_fg", "only_bg_b"):
            one, other = (pixels(root / variant / "val" / name).astype(float) for root in (published, tmp_path))
            assert np.abs(one - other).mean() < 2.5, (variant, name)  # both are JPEG
