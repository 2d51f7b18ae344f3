"""ImageNet-9 of the Backgrounds Challenge, with synthetic images, each in its variants of object and background.

Paper section 4.4, figure 4. `media.variants` computes the variants. Nothing here evaluates.
"""

import numpy as np
from numpy.typing import NDArray

from previts.demo.cast.casting import family_for, generator, kind_of
from previts.demo.cast.kinds import CLASSES
from previts.demo.config import WorldConfig
from previts.demo.files import write_jpeg, write_mask, write_text
from previts.demo.sets.world_images import Still, take
from previts.media.variants import MIXED, mixed, no_fg, only_bg_b, only_bg_t, only_fg, partner
from previts.storage import files

SIDE = 224
# The objects are larger than in the other sets, as in ImageNet. A small object on black is mostly black, and Only-FG
# then measures only which class the classifier gives to black.
_SHARES = (0.25, 0.5)
# Share of training images with a plain background, black in half of them and grey in the others, as in photographs of
# products. The classifier then learns that black is no class.
_PLAIN = 0.25


def folder(class_name: str) -> str:
    """Return the official folder name of a class, such as `00_dog`."""
    return f"{list(CLASSES).index(class_name):02d}_{class_name}"


def _still(config: WorldConfig, key: str, class_number: int, split: str) -> Still:
    rng = generator(config.seed, f"in9/kind/{key}")
    kind = kind_of(rng, list(CLASSES)[class_number])
    family = family_for(rng, class_number, config.in9_correlation)
    plain = max(0, int(rng.integers(-256, 256))) if split == "train" and rng.random() < _PLAIN else None
    return take(config, f"in9/{key}", (kind,), family, size=(SIDE, SIDE), split=split, shares=_SHARES, plain=plain)


def write_in9(uri: str, config: WorldConfig) -> int:
    """Write `<variant>/val`, `fg_mask/val`, `train/original` and `index.csv`; return the number of drawn images."""
    names, index = list(CLASSES), ["split,variant,class,key,background_family,background_from"]
    stills: dict[tuple[int, int], Still] = {}
    jobs = [
        (split, c, n)
        for split, count in (("train", config.in9_train), ("val", config.in9_val))
        for c in range(len(names))
        for n in range(count)
    ]
    for split, c, n in jobs:
        key = f"{names[c]}_{split}_{n:04d}"
        still = _still(config, key, c, split)
        place = ("train", "original") if split == "train" else ("original", "val")
        write_jpeg(files.join(uri, *place, folder(names[c]), f"{key}.jpg"), still.image, 95)
        index.append(f"{split},original,{names[c]},{key},{still.family},")
        if split == "val":
            stills[c, n] = still
    counts = [config.in9_val] * len(names)
    backs = {at: only_bg_t(still.image, still.masks[0]) for at, still in stills.items()}
    for (c, n), still in stills.items():
        key, mask = f"{names[c]}_val_{n:04d}", still.masks[0]
        write_mask(files.join(uri, "fg_mask", "val", folder(names[c]), f"{key}.png"), mask)
        images: dict[str, NDArray[np.uint8]] = {
            "only_fg": only_fg(still.image, mask), "no_fg": no_fg(still.image, mask),
            "only_bg_b": only_bg_b(still.image, mask), "only_bg_t": backs[c, n],
        }  # fmt: skip
        for variant in MIXED:
            at = partner(variant, c, n, counts, generator(config.seed, f"in9/{variant}/{key}"))
            images[variant] = mixed(still.image, mask, backs[at])
            index.append(f"val,{variant},{names[c]},{key},{stills[at].family},{names[at[0]]}_val_{at[1]:04d}")
        for variant, image in images.items():
            write_jpeg(files.join(uri, variant, "val", folder(names[c]), f"{key}.jpg"), image, 95)
    write_text(files.join(uri, "index.csv"), index)
    return len(jobs)
