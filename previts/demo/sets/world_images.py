"""Labelled images of the demo world, in the official layouts of VOC2007, ImageNet and COCO.

The paper evaluates on these datasets in sections 4.3 and 4.5. The images are drawn; the folders and file formats are
official. Nothing here trains or evaluates.
"""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from previts.demo.cast.casting import family_for, generator, snapshot
from previts.demo.config import WorldConfig
from previts.demo.files import write_jpeg, write_text
from previts.demo.scene import Mask, render
from previts.demo.scenery.backgrounds import FAMILIES
from previts.demo.scenery.textures import Image
from previts.media import masks as mask_tools
from previts.storage import files

VOC_NAMES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
# Kinds that are both VOC and COCO classes: category number of COCO, and the home family of backgrounds.
HOMES = {
    "dog": (18, "meadow"), "bird": (16, "sky"), "car": (3, "street"), "bus": (6, "street"), "cat": (17, "room"),
    "horse": (19, "desert"), "cow": (21, "meadow"), "sheep": (20, "meadow"), "person": (1, "forest"),
}  # fmt: skip
# The ImageNet-1k class of each kind, in the order of the nine classes of the Backgrounds Challenge.
WNIDS = {
    "dog": "n02102040",
    "bird": "n01531178",
    "car": "n04285008",
    "lizard": "n01675722",
    "tiger": "n02129604",
    "ladybird": "n02165456",
    "guitar": "n02676566",
    "monkey": "n02487347",
    "goldfish": "n01443537",
}


@dataclass(frozen=True)
class Still:
    """An image HWC with the visible mask HW of each object, and the family of its background, or "plain"."""

    image: Image
    kinds: tuple[str, ...]
    masks: tuple[Mask, ...]
    family: str


def take(
    config: WorldConfig, name: str, kinds: tuple[str, ...], family: str, *, size: tuple[int, int], split: str,
    shares: tuple[float, float] = (0.1, 0.24), plain: int | None = None,
) -> Still:  # fmt: skip
    """Return an image of size (width, height) in which the mask of the first object covers at least 4%.

    `shares` is the range of the share of the image that the first object covers. `plain` is the grey level of a plain
    background, instead of one of `family`.
    """
    for attempt in range(20):
        scene, time = snapshot(config.seed, f"{name}/{attempt}", kinds, family, size=size, split=split, shares=shares)
        if plain is not None:
            scene = replace(scene, backdrop=np.full_like(scene.backdrop, plain), foreground=None)
        frame = render(scene, time)
        if frame.masks[0].mean() >= 0.04:
            shown = [number for number, mask in enumerate(frame.masks) if mask.sum() >= 40]
            behind = family if plain is None else "plain"
            return Still(frame.image, tuple(kinds[n] for n in shown), tuple(frame.masks[n] for n in shown), behind)
    raise AssertionError(f"{name}: the object is too small or hidden in 20 attempts")


def _family(config: WorldConfig, name: str, home: str) -> str:
    return family_for(generator(config.seed, f"family/{name}"), FAMILIES.index(home), config.background_correlation)


def _kinds_shown(config: WorldConfig, name: str, number: int) -> tuple[str, ...]:
    """Return the kinds in an image: the kind whose turn it is, and in a third of the images a second one."""
    rng, kinds = generator(config.seed, f"company/{name}"), tuple(HOMES)
    first = kinds[number % len(kinds)]
    return (first, kinds[int(rng.integers(len(kinds)))]) if rng.random() < 0.35 else (first,)


def _size(config: WorldConfig, name: str) -> tuple[int, int]:
    """Return the (width, height) of an image; a fifth of the images are upright."""
    rng = generator(config.seed, f"size/{name}")
    long, short = int(rng.choice([224, 232, 240])), int(rng.choice([168, 176, 180]))
    return (long, short) if rng.random() < 0.8 else (short, long)


def write_voc(uri: str, config: WorldConfig) -> int:
    """Write `VOCdevkit/VOC2007` with as many images for trainval as for test; return their total number."""
    root = files.join(uri, "VOCdevkit", "VOC2007")
    sets: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    present: dict[str, dict[str, bool]] = {}
    for number in range(2 * config.voc_images):
        name, split = f"{number + 1:06d}", "train" if number < config.voc_images else "test"
        kinds = _kinds_shown(config, f"voc/{name}", number)
        size = _size(config, f"voc/{name}")
        family = _family(config, f"voc/{name}", HOMES[kinds[0]][1])
        still = take(config, f"voc/{name}", kinds, family, size=size, split=split)
        write_jpeg(files.join(root, "JPEGImages", f"{name}.jpg"), still.image)
        difficult = [bool(place and mask.mean() < 0.012) for place, mask in enumerate(still.masks)]
        files.write_bytes(files.join(root, "Annotations", f"{name}.xml"), _voc_xml(name, still, difficult).encode())
        present[name] = {}
        for kind, hard in zip(still.kinds, difficult, strict=True):
            present[name][kind] = present[name].get(kind, False) or not hard
        sets["test" if split == "test" else ("train", "val")[number // len(HOMES) % 2]].append(name)
    sets["trainval"] = sorted(sets["train"] + sets["val"])
    for set_name, members in sets.items():
        write_text(files.join(root, "ImageSets", "Main", f"{set_name}.txt"), members)
        for label in VOC_NAMES:
            # 1: shown, 0: shown but difficult, -1: absent.
            signs = [(1 if present[name][label] else 0) if label in present[name] else -1 for name in members]
            lines = [f"{name} {sign:2d}" for name, sign in zip(members, signs, strict=True)]
            write_text(files.join(root, "ImageSets", "Main", f"{label}_{set_name}.txt"), lines)
    return 2 * config.voc_images


def _voc_xml(name: str, still: Still, difficult: list[bool]) -> str:
    height, width = still.image.shape[:2]
    objects = ""
    for kind, mask, hard in zip(still.kinds, still.masks, difficult, strict=True):
        box = mask_tools.box(mask)
        assert box is not None
        x0, y0, x1, y1 = (int(value) for value in box)
        cut = int(x0 == 0 or y0 == 0 or x1 == width or y1 == height)
        objects += (
            f"\t<object>\n\t\t<name>{kind}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>{cut}</truncated>\n"
            f"\t\t<difficult>{int(hard)}</difficult>\n\t\t<bndbox>\n"
            f"\t\t\t<xmin>{x0 + 1}</xmin>\n\t\t\t<ymin>{y0 + 1}</ymin>\n"
            f"\t\t\t<xmax>{x1}</xmax>\n\t\t\t<ymax>{y1}</ymax>\n\t\t</bndbox>\n\t</object>\n"
        )
    return (
        f"<annotation>\n\t<folder>VOC2007</folder>\n\t<filename>{name}.jpg</filename>\n\t<source>\n"
        f"\t\t<database>previts demo world</database>\n\t</source>\n\t<size>\n\t\t<width>{width}</width>\n"
        f"\t\t<height>{height}</height>\n\t\t<depth>3</depth>\n\t</size>\n\t<segmented>0</segmented>\n{objects}</annotation>\n"
    )


def write_imagenet(uri: str, config: WorldConfig) -> int:
    """Write `{train,val}/<wnid>/*.JPEG`; return the number of images."""
    counts = {"train": config.imagenet_train, "val": config.imagenet_val}
    jobs = [(split, kind, number) for split in counts for kind in WNIDS for number in range(counts[split])]
    for split, kind, number in jobs:
        wnid, home = WNIDS[kind], FAMILIES[list(WNIDS).index(kind)]
        name = (
            f"{wnid}_{number}"
            if split == "train"
            else f"ILSVRC2012_val_{list(WNIDS).index(kind) * counts['val'] + number + 1:08d}"
        )
        size = _size(config, f"imagenet/{name}")
        family = _family(config, f"imagenet/{split}/{name}", home)
        still = take(config, f"imagenet/{split}/{name}", (kind,), family, size=size, split=split)
        write_jpeg(files.join(uri, split, wnid, f"{name}.JPEG"), still.image)
    return len(jobs)


def write_coco(uri: str, config: WorldConfig) -> int:
    """Write `{train,val}2017` and `annotations/instances_*.json`; return the number of images."""
    categories = [{"supercategory": "thing", "id": number, "name": kind} for kind, (number, _) in HOMES.items()]
    for split, count in (("train", config.coco_train), ("val", config.coco_val)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(count):
            image_id = number + 1 + (0 if split == "train" else 100_000)
            name = f"coco/{split}/{image_id}"
            kinds = _kinds_shown(config, name, number)
            family = _family(config, name, HOMES[kinds[0]][1])
            still = take(config, name, kinds, family, size=_size(config, name), split=split)
            file_name = f"{image_id:012d}.jpg"
            write_jpeg(files.join(uri, f"{split}2017", file_name), still.image)
            height, width = still.image.shape[:2]
            images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
            for kind, mask in zip(still.kinds, still.masks, strict=True):
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": image_id, "category_id": HOMES[kind][0], **_instance(mask)}
                )
        document = {
            "info": {"description": "previts demo world"},
            "licenses": [],
            "images": images,
            "annotations": annotations,
        }
        files.write_json(
            files.join(uri, "annotations", f"instances_{split}2017.json"), {**document, "categories": categories}
        )
    return config.coco_train + config.coco_val


def _instance(mask: Mask) -> dict[str, Any]:
    """Return the polygons, area and box (x, y, width, height) of one object in the format of COCO."""
    box = mask_tools.box(mask)
    assert box is not None
    # Each pixel is enlarged to 4x4, so that the polygon follows the edges of the pixels.
    outlines, _ = cv2.findContours(
        np.kron(mask, np.ones((4, 4))).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    polygons = [
        [round(float(value), 2) for value in ((outline.reshape(-1, 2) + 0.5) / 4).ravel()]
        for outline in outlines
        if len(outline) > 2
    ]
    x0, y0, x1, y1 = (float(value) for value in box)
    return {"segmentation": polygons, "area": float(mask.sum()), "iscrowd": 0, "bbox": [x0, y0, x1 - x0, y1 - y0]}
