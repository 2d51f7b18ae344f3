"""Datasets of labelled objects in their authors' layouts: PASCAL VOC's folders of XML, COCO's JSON.

PreViTS section 4.2. Reads and checks annotations. Opens no images; the caller selects the training objects.

Shape suffixes: N objects.
"""

import json
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from previts.errors import InputError
from previts.evals import labelled_images
from previts.evals.detection import shapes
from previts.evals.detection.scores import Objects
from previts.processes import prefetch
from previts.storage import documents, files

# A box may exceed the border of its image by this share of the longer side, because both datasets were drawn by hand.
OUTSIDE = 0.02


@dataclass(frozen=True)
class AnnotatedImage:
    """An image file with its labelled objects.

    Attributes:
        uri: URI of the image.
        size: Width and height in pixels, from the annotations.
        objects: Boxes, labels and which of them to ignore.
        shapes: COCO's `segmentation` of each object, polygons or run lengths; empty for VOC.
    """

    uri: str
    size: tuple[int, int]
    objects: Objects
    shapes: tuple[Any, ...] = ()

    def without(self, ignored: bool) -> "AnnotatedImage":
        """Return the image without empty boxes, and without ignored objects if `ignored`."""
        boxes_N4 = self.objects.boxes
        kept_N = (boxes_N4[:, 2:] > boxes_N4[:, :2]).all(axis=1) & ~(self.objects.ignored & ignored)
        kept = np.flatnonzero(kept_N)
        objects = Objects(boxes_N4[kept], self.objects.labels[kept], self.objects.ignored[kept])
        return AnnotatedImage(self.uri, self.size, objects, tuple(self.shapes[n] for n in kept) if self.shapes else ())


def read_voc(root: str, split: str, classes: Sequence[str], limit: int) -> list[AnnotatedImage]:
    """Return the images of a split of one year of VOC, in the order of its list.

    Args:
        root: Folder with `ImageSets/Main/<split>.txt`, `Annotations` and `JPEGImages`.
        split: trainval or test.
        classes: Names of the classes; labels count them from 1.
        limit: At most this many images, evenly spaced; 0 means all.

    Raises:
        InputError: If a file is missing or damaged, a class is unknown, or a box is outside its image.
    """
    uri = files.join(root, "ImageSets", "Main", f"{split}.txt")
    names = [line.split()[0] for line in _read(uri).decode("utf-8-sig", "replace").splitlines() if line.split()]
    if not names:
        raise InputError(f"{uri} has no images; expected the list as published")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"{uri} lists {twice[0]} {names.count(twice[0])} times; replace it by the original list")
    labels = {name: number for number, name in enumerate(classes, start=1)}
    chosen = [names[number] for number in labelled_images.evenly(len(names), limit)]
    with ThreadPoolExecutor(prefetch.THREADS) as pool:
        return list(pool.map(partial(_read_xml, root, labels), chosen))


def _read(uri: str) -> bytes:
    try:
        return files.read_regular(uri)
    except FileNotFoundError:
        raise InputError(f"{uri} is missing; the dataset must be complete and in its authors' layout") from None


def _read_xml(root: str, labels: Mapping[str, int], name: str) -> AnnotatedImage:
    uri = files.join(root, "Annotations", f"{name}.xml")
    try:
        tree = ET.fromstring(_read(uri))
    except ET.ParseError as error:
        raise InputError(f"{uri} is not XML ({error}); replace it by the original file") from None
    sides = [_number(uri, tree, f"size/{side}") for side in ("width", "height")]
    width, height = map(int, sides)
    if not all(map(_is_side, sides)):
        raise InputError(f"{uri}: size must be the width and height of the image, got {sides[0]:g} x {sides[1]:g}")
    boxes, numbers, difficult = [], [], []
    for place, item in enumerate(tree.iter("object"), start=1):
        label = item.findtext("name", "").strip()
        if label not in labels:
            raise InputError(
                f"{uri}: name of object {place} must be a class of the dataset ({', '.join(labels)}), got {label!r}"
            )
        x0, y0, x1, y1 = (_number(uri, item, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
        if x0 > x1 or y0 > y1:
            raise InputError(
                f"{uri}: bndbox of object {place} ({label}) must have xmin <= xmax and ymin <= ymax, got "
                f"{x0:g}, {y0:g}, {x1:g}, {y1:g}"
            )
        # Pixels count from 1, and the last pixel belongs to the box.
        box = _inside((x0 - 1, y0 - 1, x1, y1), (width, height), f"{uri}: bndbox of object {place} ({label})")
        boxes.append(box)
        numbers.append(labels[label])
        mark = item.findtext("difficult", "").strip()
        if mark not in ("", "0", "1"):
            raise InputError(f"{uri}: difficult of object {place} ({label}) must be 0 or 1, got {mark!r}")
        difficult.append(mark == "1")
    image = files.join(root, "JPEGImages", f"{name}.jpg")
    return AnnotatedImage(image, (width, height), _objects(boxes, numbers, difficult))


def _number(uri: str, item: ET.Element, path: str) -> float:
    text = item.findtext(path, "")
    try:
        value = documents.number(text)
    except ValueError:
        raise InputError(f"{uri}: {path} of {item.tag} must be a number, got {text!r}") from None
    if value < 0:
        raise InputError(f"{uri}: {path} of {item.tag} must be 0 or more, got {text!r}")
    return value


def _inside(box: tuple[float, ...], size: tuple[int, int], what: str) -> tuple[float, ...]:
    """Return a box xyxy, clipped to its image; the box may exceed the image by `OUTSIDE`."""
    x0, y0, x1, y1 = box
    width, height = size
    reach = min(x0, y0, width - x1, height - y1)
    if not (reach >= -OUTSIDE * max(size) and x0 <= x1 and y0 <= y1):
        found = ", ".join(f"{value:g}" for value in box)
        raise InputError(
            f"{what} must be inside the image of {width} x {height} pixels, got left, top, right, bottom {found}"
        )
    # Both ends: a box in the margin beside the image becomes empty, not reversed.
    return tuple(min(max(value, 0.0), float(side)) for value, side in zip(box, (width, height) * 2, strict=True))


def _objects(boxes: Sequence[tuple[float, ...]], labels: Sequence[int], ignored: Sequence[bool]) -> Objects:
    return Objects(
        np.array(boxes, np.float64).reshape(-1, 4), np.array(labels, np.int64), np.array(ignored, dtype=bool)
    )


def _is_id(value: Any) -> bool:
    return type(value) is int


def _is_side(value: Any) -> bool:
    return shapes.is_number(value) and value >= 1 and value == int(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(shapes.is_number, value)) and min(value[2:]) >= 0


# By section of the annotation file, and by field: what it must be, and a check of that.
_COCO: dict[str, dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "images": {
        "id": ("a whole number", _is_id),
        "file_name": ("a text", _is_text),
        "width": ("a number of pixels", _is_side),
        "height": ("a number of pixels", _is_side),
    },
    "annotations": {
        "id": ("a whole number", _is_id),
        "image_id": ("a whole number", _is_id),
        "category_id": ("a whole number", _is_id),
        "bbox": ("x, y, width, height; the last two 0 or more", _is_box),
        "segmentation": ("polygons or run lengths", lambda value: isinstance(value, list | dict)),
        "area": ("a number of 0 or more", lambda value: shapes.is_number(value) and value >= 0),
    },
    "categories": {"id": ("a whole number", _is_id), "name": ("a text", _is_text)},
}


@dataclass(frozen=True)
class CocoSplit:
    """A split of COCO: its images, their numbers, and the annotation file as plain data."""

    images: list[AnnotatedImage]
    image_ids: list[int]
    document: dict[str, Any]

    @property
    def categories(self) -> dict[int, str]:
        """The name of each category, by its number in the file, sorted; labels count them from 1."""
        return {category["id"]: category["name"] for category in sorted(self.document["categories"], key=_id)}


def _id(item: Mapping[str, Any]) -> int:
    return int(item["id"])


def read_coco(data_uri: str, split: str, limit: int) -> CocoSplit:
    """Return a split of COCO 2017, images sorted by number.

    Args:
        data_uri: Folder with `annotations/instances_<split>2017.json` and `<split>2017/<image>`.
        split: train or val.
        limit: At most this many images, evenly spaced; 0 means all.

    Raises:
        InputError: If the annotations are missing or damaged, have an unknown category or image, or have a box or shape
            that does not fit its image.
    """
    uri = files.join(data_uri, "annotations", f"instances_{split}2017.json")
    data = _read(uri)
    try:
        document = json.loads(data)  # half a gigabyte, for which `documents` is too slow
    except (ValueError, RecursionError) as error:
        raise InputError(f"{uri} is not JSON ({error}); replace it by the original file") from None
    if not isinstance(document, dict):
        raise InputError(f"{uri} must be a JSON object with images, annotations and categories")
    for section, fields in _COCO.items():
        items = document.get(section)
        if not isinstance(items, list) or not (items or section == "annotations"):
            raise InputError(f"{uri}: {section} must be a list that is not empty")
        seen: dict[int, int] = {}
        for place, item in enumerate(items):
            if lacking := [key for key in fields if not isinstance(item, dict) or key not in item]:
                raise InputError(f"{uri}: {section}[{place}] must have the fields {', '.join(fields)}, lacks {lacking}")
            for key, (what, is_right) in fields.items():
                if not is_right(item[key]):
                    raise InputError(
                        f"{uri}: {key} of {section}[{place}] (id {item['id']!r}) must be {what}, got {item[key]!r:.200}"
                    )
            if item["id"] in seen:
                raise InputError(
                    f"{uri}: {section}[{seen[item['id']]}] and {section}[{place}] have the same id {item['id']}"
                )
            seen[item["id"]] = place
    return _coco_split(uri, files.join(data_uri, f"{split}2017"), document, limit)


def _coco_split(uri: str, folder: str, document: dict[str, Any], limit: int) -> CocoSplit:
    labels = {item["id"]: number for number, item in enumerate(sorted(document["categories"], key=_id), start=1)}
    images = sorted(document["images"], key=_id)
    sizes = {image["id"]: (int(image["width"]), int(image["height"])) for image in images}
    objects: dict[int, list[tuple[tuple[float, ...], dict[str, Any]]]] = {image["id"]: [] for image in images}
    for place, item in enumerate(document["annotations"]):
        if item["category_id"] not in labels:
            raise InputError(
                f"{uri}: annotations[{place}] has category_id {item['category_id']}, which has no category"
            )
        if item["image_id"] not in objects:
            raise InputError(f"{uri}: annotations[{place}] has image_id {item['image_id']}, which has no image")
        named = f"annotations[{place}] (id {item['id']})"
        size = sizes[item["image_id"]]
        # Without the field, an object is no crowd. pycocotools needs it.
        if item.setdefault("iscrowd", 0) not in (0, 1):
            raise InputError(f"{uri}: iscrowd of {named} must be 0 or 1, got {item['iscrowd']!r}")
        x, y, width, height = item["bbox"]
        box = _inside((x, y, x + width, y + height), size, f"{uri}: bbox of {named}")
        try:
            shapes.check_shape(item["segmentation"], size, OUTSIDE * max(size))
        except ValueError as error:
            raise InputError(f"{uri}: segmentation of {named}: {error}; replace the annotation file") from None
        objects[item["image_id"]].append((box, item))
    annotated = []
    chosen = [images[number] for number in labelled_images.evenly(len(images), limit)]
    for image in chosen:
        mine = objects[image["id"]]
        annotated.append(
            AnnotatedImage(
                files.join(folder, image["file_name"]),
                sizes[image["id"]],
                _objects(
                    [box for box, _ in mine],
                    [labels[item["category_id"]] for _, item in mine],
                    [bool(item["iscrowd"]) for _, item in mine],
                ),
                tuple(item["segmentation"] for _, item in mine),
            )
        )
    return CocoSplit(annotated, [image["id"] for image in chosen], document)
