"""Oracle: each file compared with the images from which it is composed."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from rgb_files import read_rgb

from previts.demo import TINY
from previts.demo.cast.kinds import CLASSES
from previts.demo.scenery.backgrounds import FAMILIES
from previts.demo.sets import in9


def test_files_contain_the_variants_and_mix_the_classes_of_their_names(world):
    root = world[0] / "datasets" / "in9"
    rows = [line.split(",") for line in (root / "index.csv").read_text().splitlines()[1:]]
    names = list(CLASSES)
    for split, variant, name, key, _, source in rows:
        if split == "train" or variant == "original":
            assert not source
            continue
        place = names.index(name)
        expected = {"mixed_same": {place}, "mixed_next": {(place + 1) % 9}, "mixed_rand": set(range(9))}[variant]
        source_place = names.index(source.split("_")[0])
        assert source_place in expected
        assert variant != "mixed_same" or source != key
        label = in9.folder(name)
        mask = cv2.imread(str(root / "fg_mask" / "val" / label / f"{key}.png"), cv2.IMREAD_GRAYSCALE)
        assert set(np.unique(mask)) == {0, 255}
        original = read_rgb(root / "original" / "val" / label / f"{key}.jpg").astype(float)
        mix = read_rgb(root / variant / "val" / label / f"{key}.jpg").astype(float)
        back = read_rgb(root / "only_bg_t" / "val" / in9.folder(names[source_place]) / f"{source}.jpg").astype(float)
        core = cv2.erode(mask, np.ones((9, 9), np.uint8)) > 0
        far = cv2.dilate(mask, np.ones((17, 17), np.uint8)) == 0
        assert np.abs(mix - original)[core].mean() < 6  # JPEG
        assert np.abs(mix - back)[far].mean() < 6
        assert np.abs(read_rgb(root / "only_fg" / "val" / label / f"{key}.jpg").astype(float))[far].mean() < 2
    assert sum(row[1] == "mixed_rand" for row in rows) == 9 * TINY.in9_val


def test_objects_are_large_and_some_training_images_have_a_plain_background_half_of_them_black():
    keys = [(number % 9, f"{list(CLASSES)[number % 9]}_{number:04d}") for number in range(72)]
    train = [in9._still(TINY, key, c, "train") for c, key in keys]
    val = [in9._still(TINY, key, c, "val") for c, key in keys[:18]]
    plain = [still for still in train if still.family == "plain"]
    # Four standard deviations of the number of draws, and of a share of them.
    assert len(plain) == pytest.approx(18, abs=4 * np.sqrt(72 * 0.25 * 0.75))
    dark = [np.median(still.image[~still.masks[0]]) < 8 for still in plain]
    assert np.mean(dark) == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / len(plain)))
    assert not all(dark)
    # Light, noise and the rim of the object only; backgrounds of a family vary by 28 or more.
    assert np.median([still.image[~still.masks[0]].std() for still in plain]) < 10
    assert all(still.family != "plain" for still in val)
    assert np.median([still.masks[0].mean() for still in val]) > 0.16  # 0.16 in the other sets


@pytest.mark.parametrize("correlation", [0.0, 1.0])
def test_the_configured_share_of_images_has_the_home_background(correlation):
    config = replace(TINY, in9_correlation=correlation)
    stills = [in9._still(config, f"dog_val_{number:04d}", 0, "val") for number in range(8)]
    assert {still.family == FAMILIES[0] for still in stills} == {bool(correlation)}
