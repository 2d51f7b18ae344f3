"""Oracle: each file compared with the images from which it is composed."""

import cv2
import numpy as np
from rgb_files import read_rgb

from previts.demo import TINY
from previts.demo.cast.kinds import CLASSES
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
