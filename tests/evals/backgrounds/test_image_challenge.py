"""Oracle: discs on backgrounds of which only one shows the class."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from colour_images import image_model
from item_checks import check_items
from PIL import Image

from previts.config.evaluation import EvaluationConfig, LinearConfig
from previts.errors import InputError
from previts.evals import frozen
from previts.evals.outcome import Population
from previts.evals.run import evaluate
from previts.media.variants import VARIANTS
from previts.models.moco import MoCo

SIDE = 64
SMALL = EvaluationConfig(resize=SIDE, crop=SIDE, batch_size=16, linear=LinearConfig(views="cached"))
CLASSES = ("00_dog", "01_bird", "02_vehicle")
COLOURS = ((220, 20, 20), (20, 220, 20), (20, 20, 220))
GREY = (128, 128, 128)


@pytest.fixture(scope="module")
def model() -> MoCo:
    return image_model()


def paint(path: Path, inside: tuple[int, ...] | None, around: tuple[int, ...] | None, seed: int) -> None:
    """Write a disc on a background; None is black without noise, like the cut-outs of the challenge."""
    generator = np.random.default_rng(seed)
    ys, xs = np.mgrid[:SIDE, :SIDE]
    disc = (ys - SIDE / 2) ** 2 + (xs - SIDE / 2) ** 2 < (SIDE / 3) ** 2
    pixels = np.zeros((SIDE, SIDE, 3))
    for where, colour in ((disc, inside), (~disc, around)):
        if colour is not None:
            pixels[where] = np.array(colour) + generator.integers(-20, 21, (int(where.sum()), 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def write_in9(root: Path, shown_by: str, per_class: int = 6, train: str = "train/original") -> Path:
    """Write ImageNet-9 whose classes are the colours of the "foreground" or of the "background" only."""

    def fg(c: int) -> tuple[int, ...]:
        return COLOURS[c] if shown_by == "foreground" else GREY

    def bg(c: int) -> tuple[int, ...]:
        return COLOURS[c] if shown_by == "background" else GREY

    base = root / "in9"
    for c, name in enumerate(CLASSES):
        for n in range(3 * per_class):
            paint(base / train / name / f"{n}.jpg", fg(c), bg(c), 100 * c + n)
        for n in range(per_class):
            cases = {
                "original": (fg(c), bg(c)), "mixed_same": (fg(c), bg(c)), "mixed_rand": (fg(c), bg((c + n) % 3)),
                "mixed_next": (fg(c), bg((c + 1) % 3)), "only_fg": (fg(c), None), "no_fg": (None, bg(c)),
                "only_bg_b": (None, bg(c)), "only_bg_t": (bg(c), bg(c)),
            }  # fmt: skip
            for variant, (inside, around) in cases.items():
                paint(base / variant / "val" / name / f"{n}.jpg", inside, around, 9000 + 100 * c + n)
    return root


def test_accuracy_is_lost_without_backgrounds_if_only_they_show_the_class(model: MoCo, tmp_path: Path):
    outcome = evaluate("in9", model, str(write_in9(tmp_path, "background")), SMALL)
    found = {name.removeprefix("in9/"): value for name, value in outcome.metrics.items()}
    assert sorted(found) == sorted((*VARIANTS, "bg_gap"))
    assert min(found["original"], found["mixed_same"], found["only_bg_t"]) > 90
    assert found["mixed_rand"] < 45  # every third background is the right one
    assert found["mixed_next"] < 10
    assert found["only_fg"] < 45
    assert found["bg_gap"] == pytest.approx(found["mixed_same"] - found["mixed_rand"])
    assert found["bg_gap"] > 50
    assert outcome.protocol["head"] == "in9 head"
    check_items(outcome, set(outcome.metrics) - {"in9/bg_gap"})
    assert outcome.protocol["weights_before"] == outcome.protocol["weights_after"] == frozen.weights_digest(model)


def test_accuracy_is_kept_on_other_backgrounds_if_only_foregrounds_show_the_class(model: MoCo, tmp_path: Path):
    outcome = evaluate("in9", model, str(write_in9(tmp_path, "foreground", train="original/train")), SMALL)
    found = {name.removeprefix("in9/"): value for name, value in outcome.metrics.items()}
    assert min(found[name] for name in ("original", "mixed_same", "mixed_rand", "mixed_next")) > 90
    assert max(found[name] for name in ("no_fg", "only_bg_b", "only_bg_t")) < 45
    assert abs(found["bg_gap"]) < 10


def write_imagenet(root: Path) -> None:
    """Write five "ImageNet" classes: those of ImageNet-9 in another order, one of them twice, and one of no class."""
    grounds = ((2, "n0"), (0, "n1"), (None, "n2"), (1, "n3"), (2, "n4"))
    for number, (colour, name) in enumerate(grounds):
        ground = (230, 230, 30) if colour is None else COLOURS[colour]
        if name == "n4":
            ground = (20, 120, 220)
        for n in range(12):
            paint(root / "imagenet" / "train" / name / f"{n}.JPEG", GREY, ground, 100 * number + n)


def test_imagenet_head_maps_its_classes_and_minus_one_is_wrong(model: MoCo, tmp_path: Path):
    write_in9(tmp_path, "background")
    write_imagenet(tmp_path)
    mapping = tmp_path / "in9" / "in_to_in9.json"
    mapping.write_text(json.dumps({"0": 2, "1": 0, "2": -1, "3": 1, "4": 2}))
    outcome = evaluate("in9", model, str(tmp_path), SMALL)
    assert outcome.protocol["head"] == "in1k head"
    assert outcome.metrics["in9/original"] > 90
    # Of the five classes of the classifier two are class 2, one is class 0, one is class 1, and one is no class.
    images = outcome.protocol["images"]["original"]
    assert outcome.populations["in9/original"] == Population(images, "images", pytest.approx(100 * (1 + 1 + 2) / 15))
    # Now the class with the colour of 00_dog is no class of ImageNet-9: only its third of the images is wrong.
    mapping.write_text(json.dumps({"0": 2, "1": -1, "2": 0, "3": 1, "4": 2}))
    assert evaluate("in9", model, str(tmp_path), SMALL).metrics["in9/original"] == pytest.approx(66.7, abs=7)


def test_class_map_must_fit_the_folders(model: MoCo, tmp_path: Path):
    write_in9(tmp_path, "background", per_class=1)
    mapping = tmp_path / "in9" / "in_to_in9.json"
    mapping.write_text(json.dumps({str(number): 0 for number in range(1000)}))
    with pytest.raises(InputError, match="imagenet/train/<class>"):
        evaluate("in9", model, str(tmp_path), SMALL)
    write_imagenet(tmp_path)
    with pytest.raises(InputError, match="0 to 4"):
        evaluate("in9", model, str(tmp_path), SMALL)
    for odd in (3, True, 1.0, "1", None):
        mapping.write_text(json.dumps({"0": odd, "1": 0, "2": -1, "3": 1, "4": 2}))
        with pytest.raises(InputError, match="number below 3"):
            evaluate("in9", model, str(tmp_path), SMALL)


def test_layout_errors_name_the_folder(model: MoCo, tmp_path: Path):
    with pytest.raises(InputError, match="in9/original/val/<class>"):
        evaluate("in9", model, str(tmp_path), SMALL)
    write_in9(tmp_path, "background", per_class=1)
    (tmp_path / "in9" / "train").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="no training data for the classifier"):
        evaluate("in9", model, str(tmp_path), SMALL)
    (tmp_path / "elsewhere").rename(tmp_path / "in9" / "train")
    (tmp_path / "in9" / "only_fg" / "val" / "00_dog").rename(tmp_path / "in9" / "only_fg" / "val" / "00_cat")
    with pytest.raises(InputError, match="only_fg/val has the classes 00_cat"):
        evaluate("in9", model, str(tmp_path), SMALL)
    (tmp_path / "in9" / "only_fg").rename(tmp_path / "only_fg")
    with pytest.raises(InputError, match="in9/only_fg/val/<class>"):
        evaluate("in9", model, str(tmp_path), SMALL)


@pytest.mark.slow
def test_real_variants(model: MoCo, real_data: Path):
    outcome = evaluate("in9", model, str(real_data), replace(SMALL, limit=10))
    assert len(outcome.protocol["classes"]) == 5
    assert all(0 <= outcome.metrics[f"in9/{name}"] <= 100 for name in VARIANTS)
