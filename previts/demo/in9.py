"""ImageNet-9 of the Backgrounds Challenge: eight variants of each picture that tell object from background.

Paper section 4.4, figure 4; recipe of Xiao et al. 2020 ("Noise or Signal"). The variants are pure functions of a
picture and a mask; writing them is the last function's business. Never scores anything.
"""

import numpy as np
from numpy.typing import NDArray

from previts import masks as mask_tools
from previts import storage
from previts.demo.backgrounds import FAMILIES
from previts.demo.casting import generator, kind_of
from previts.demo.config import WorldConfig
from previts.demo.files import write_jpeg, write_mask, write_text
from previts.demo.kinds import CLASSES
from previts.demo.pictures import Still, take
from previts.demo.scene import Mask
from previts.demo.textures import Image
from previts.progress import progress

SIDE = 224
VARIANTS = ("original", "mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t")


def folder(class_name: str) -> str:
    """Return the official folder of a class, such as `00_dog`."""
    return f"{list(CLASSES).index(class_name):02d}_{class_name}"


def only_fg(image: Image, mask: Mask) -> Image:
    """Return the object on black."""
    return image * mask[..., None].astype(np.uint8)


def no_fg(image: Image, mask: Mask) -> Image:
    """Return the picture with the object's shape black."""
    return image * (~mask)[..., None].astype(np.uint8)


def _corners(mask: Mask) -> tuple[int, int, int, int]:
    box = mask_tools.box(mask)
    if box is None:
        raise ValueError("a variant needs an object, got an empty mask")
    x0, y0, x1, y1 = (int(value) for value in box)
    return x0, y0, x1, y1


def only_bg_b(image: Image, mask: Mask) -> Image:
    """Return the picture with the object's bounding box black."""
    x0, y0, x1, y1 = _corners(mask)
    result = image.copy()
    result[y0:y1, x0:x1] = 0
    return result


def only_bg_t(image: Image, mask: Mask) -> Image:
    """Return the picture with the object's bounding box filled by tiles of the largest strip outside it.

    A strip reaches over the whole width or height; where the box spans the whole picture, it turns black.
    """
    x0, y0, x1, y1 = _corners(mask)
    height, width = mask.shape
    result = only_bg_b(image, mask)
    strips = {"above": y0 * width, "below": (height - y1) * width, "left": x0 * height, "right": (width - x1) * height}
    side = max(strips, key=lambda name: strips[name])
    rows, columns = np.arange(y1 - y0), np.arange(x1 - x0)
    match side if strips[side] else "none":
        case "above":
            result[y0:y1, x0:x1] = image[rows % y0, x0:x1]
        case "below":
            result[y0:y1, x0:x1] = image[y1 + rows % (height - y1), x0:x1]
        case "left":
            result[y0:y1, x0:x1] = image[y0:y1, columns % x0]
        case "right":
            result[y0:y1, x0:x1] = image[y0:y1, x1 + columns % (width - x1)]
    return result


def mixed(image: Image, mask: Mask, background: Image) -> Image:
    """Return the object before the background of another picture (its `only_bg_t`)."""
    return np.where(mask[..., None], image, background)


def partner(variant: str, class_number: int, number: int, counts: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return class and number of the picture whose background a mixed variant takes."""
    match variant:
        case "mixed_same":
            return class_number, (number + 1 + int(rng.integers(counts - 1))) % counts
        case "mixed_rand":
            return int(rng.integers(len(CLASSES))), int(rng.integers(counts))
        case "mixed_next":
            return (class_number + 1) % len(CLASSES), int(rng.integers(counts))
    raise ValueError(f"{variant!r} does not mix pictures")


def write_in9(uri: str, config: WorldConfig) -> int:
    """Write `<variant>/val`, `fg_mask/val`, `train/original` and `index.csv`; return the number of pictures drawn."""
    names, index = list(CLASSES), ["split,variant,class,key,background_family,background_from"]
    stills: dict[tuple[int, int], Still] = {}
    jobs = [
        (split, c, n)
        for split, count in (("train", config.in9_train), ("val", config.in9_val))
        for c in range(len(names))
        for n in range(count)
    ]
    for split, c, n in progress(jobs, "world: in9", unit="image", total=len(jobs)):
        key = f"{names[c]}_{split}_{n:04d}"
        kind = kind_of(generator(config.seed, f"in9/kind/{key}"), names[c])
        still = take(config, f"in9/{key}", (kind,), FAMILIES[c], (SIDE, SIDE), split)
        place = ("train", "original") if split == "train" else ("original", "val")
        write_jpeg(storage.join(uri, *place, folder(names[c]), f"{key}.jpg"), still.image, 95)
        index.append(f"{split},original,{names[c]},{key},{still.family},")
        if split == "val":
            stills[c, n] = still
    backs = {at: only_bg_t(still.image, still.masks[0]) for at, still in stills.items()}
    for (c, n), still in progress(stills.items(), "world: in9 variants", unit="image", total=len(stills)):
        key, mask = f"{names[c]}_val_{n:04d}", still.masks[0]
        write_mask(storage.join(uri, "fg_mask", "val", folder(names[c]), f"{key}.png"), mask)
        pictures: dict[str, NDArray[np.uint8]] = {
            "only_fg": only_fg(still.image, mask), "no_fg": no_fg(still.image, mask),
            "only_bg_b": only_bg_b(still.image, mask), "only_bg_t": backs[c, n],
        }  # fmt: skip
        for variant in ("mixed_same", "mixed_rand", "mixed_next"):
            at = partner(variant, c, n, config.in9_val, generator(config.seed, f"in9/{variant}/{key}"))
            pictures[variant] = mixed(still.image, mask, backs[at])
            index.append(f"val,{variant},{names[c]},{key},{stills[at].family},{names[at[0]]}_val_{at[1]:04d}")
        for variant, picture in pictures.items():
            write_jpeg(storage.join(uri, variant, "val", folder(names[c]), f"{key}.jpg"), picture, 95)
    write_text(storage.join(uri, "index.csv"), index)
    return len(jobs)
