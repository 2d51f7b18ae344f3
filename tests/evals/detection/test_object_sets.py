"""Oracles: annotations written by hand, and layouts with one fault each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from previts.demo.sets import world_images
from previts.errors import InputError
from previts.evals.detection import object_sets, scores, shapes


def test_voc_boxes_count_from_zero_and_exclude_their_right_and_bottom(tmp_path: Path):
    for folder in ("ImageSets/Main", "Annotations"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets/Main/test.txt").write_text("7\n")
    box = "<bndbox><xmin>1</xmin><ymin>3</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"
    (tmp_path / "Annotations/7.xml").write_text(
        "<annotation><size><width>40</width><height>30</height></size>"
        f"<object><name>dog</name><difficult>1</difficult>{box}</object><object><name>cat</name>{box}</object></annotation>"
    )
    (image,) = object_sets.read_voc(str(tmp_path), "test", ("cat", "dog"), 0)
    assert image.size == (40, 30)
    assert image.objects.boxes.tolist() == [[0, 2, 40, 30]] * 2
    assert image.objects.labels.tolist() == [2, 1]
    assert image.objects.ignored.tolist() == [True, False]
    assert image.without(ignored=True).objects.labels.tolist() == [1]


def test_coco_labels_count_sorted_categories_and_boxes_have_corners(tmp_path: Path):
    document = {
        "images": [{"id": number, "file_name": f"{number}.jpg", "width": 40, "height": 30} for number in (5, 2)],
        "annotations": [
            {
                "id": 1, "image_id": 5, "category_id": 9, "bbox": [4, 5, 10, 20], "area": 200, "iscrowd": 1,
                "segmentation": [[4, 5, 14, 5, 14, 25]],
            }
        ],
        "categories": [{"id": 9, "name": "car"}, {"id": 3, "name": "dog"}],
    }  # fmt: skip
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(document))
    split = object_sets.read_coco(str(tmp_path), "val", 0)
    assert split.image_ids == [2, 5]
    assert split.categories == {3: "dog", 9: "car"}
    empty, image = split.images
    assert len(empty.objects.labels) == 0
    assert image.uri == str(tmp_path / "val2017/5.jpg")
    assert image.objects.boxes.tolist() == [[4, 5, 14, 25]]
    assert (image.objects.labels.tolist(), image.objects.ignored.tolist()) == ([2], [True])
    assert image.shapes == ([[4, 5, 14, 5, 14, 25]],)


def test_a_box_in_the_margin_beside_its_image_is_empty_and_not_reversed():
    assert object_sets._inside((101, 20, 102, 30), (100, 80), "") == (100, 20, 100, 30)
    assert object_sets._inside((-1, -2, 5, 81), (100, 80), "") == (0, 0, 5, 80)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


VOC = "voc/VOCdevkit/VOC2007"


FIRST = f"{VOC}/Annotations/000001.xml"


VOC_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no list": (lambda root: (root / VOC / "ImageSets/Main/trainval.txt").unlink(), r"Main/trainval\.txt is missing"),
    "no XML": (lambda root: (root / FIRST).unlink(), r"000001\.xml is missing"),
    "cut XML": (lambda root: (root / FIRST).write_text("<annotation>"), r"000001\.xml is not XML"),
    "unknown class": (
        lambda root: edit(root / FIRST, "<name>dog<", "<name>unicorn<"),
        r"000001\.xml: name of object 1 must be a class of the dataset .*aeroplane.* got 'unicorn'",
    ),
    "box outside": (
        lambda root: edit(root / FIRST, "<xmax>", "<xmax>9"),
        r"000001\.xml: bndbox of object 1 \(dog\) must be inside the image of \d+ x \d+ pixels",
    ),
    "reversed box": (
        lambda root: edit(root / FIRST, "<xmin>", "<xmin>9"),
        r"000001\.xml: bndbox of object 1 \(dog\) must have xmin <= xmax and ymin <= ymax",
    ),
    "NaN": (
        lambda root: edit(root / FIRST, "<ymin>", "<ymin>nan</ymin><ymin>"),
        r"000001\.xml: bndbox/ymin of object must be a number, got 'nan'",
    ),
    "a number of a program": (
        lambda root: edit(root / FIRST, "<ymin>", "<ymin>1_0</ymin><ymin>"),
        r"000001\.xml: bndbox/ymin of object must be a number, got '1_0'",
    ),
    "half a pixel": (
        lambda root: edit(root / FIRST, "<width>", "<width>100.5</width><width>"),
        r"000001\.xml: size must be the width and height of the image, got 100\.5 x",
    ),
    "no size": (
        lambda root: edit(root / FIRST, "<width>", "<width>0</width><width>"),
        r"000001\.xml: size must be the width and height of the image, got 0 x",
    ),
    "unknown mark": (
        lambda root: edit(root / FIRST, "<difficult>", "<difficult>yes</difficult><difficult>"),
        r"000001\.xml: difficult of object 1 \(dog\) must be 0 or 1, got 'yes'",
    ),
    "listed twice": (
        lambda root: edit(root / VOC / "ImageSets/Main/trainval.txt", "000001\n", "000001\n000001\n"),
        r"trainval\.txt lists 000001 2 times",
    ),
    "box without number": (
        lambda root: edit(root / FIRST, "<xmin>", "<xmin>a"),
        r"000001\.xml: bndbox/xmin of object must be a number, got 'a",
    ),
}


COCO = "coco/annotations/instances_train2017.json"


COCO_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no annotations": (lambda root: (root / COCO).unlink(), r"^[^ ]*instances_train2017\.json is missing"),
    "cut JSON": (lambda root: (root / COCO).write_text("{"), r"instances_train2017\.json is not JSON"),
    "unknown class": (
        lambda root: change(root, "annotations", 0, "category_id", 999),
        r"annotations\[0\] has category_id 999, which has no category",
    ),
    "unknown image": (
        lambda root: change(root, "annotations", 0, "image_id", 999),
        r"annotations\[0\] has image_id 999, which has no image",
    ),
    "box outside": (
        lambda root: change(root, "annotations", 0, "bbox", [0, 0, 9999, 5]),
        r"bbox of annotations\[0\] \(id \d+\) must be inside the image",
    ),
    "no box": (
        lambda root: change(root, "annotations", 0, "bbox", [1, 2]),
        r"bbox of annotations\[0\] \(id \d+\) must be x, y, width, height; the last two 0 or more, got \[1, 2\]",
    ),
    "negative box": (
        lambda root: change(root, "annotations", 0, "bbox", [9, 9, -5, 5]),
        r"bbox of annotations\[0\] \(id \d+\) must be x, y, width, height; the last two 0 or more, got \[9, 9, -5, 5\]",
    ),
    "NaN in box": (
        lambda root: change(root, "annotations", 0, "bbox", [1, float("nan"), 5, 5]),
        r"bbox of annotations\[0\] .* got \[1, nan, 5, 5\]",
    ),
    "text in box": (
        lambda root: change(root, "annotations", 0, "bbox", ["1", 1, 5, 5]),
        r"bbox of annotations\[0\] .* got \['1', 1, 5, 5\]",
    ),
    "no size": (
        lambda root: change(root, "images", 1, "width", float("nan")),
        r"width of images\[1\] \(id \d+\) must be a number of pixels, got nan",
    ),
    "same image": (
        lambda root: change(root, "images", 1, "id", json.loads((root / COCO).read_text())["images"][0]["id"]),
        r"images\[0\] and images\[1\] have the same id",
    ),
    "unknown mark": (
        lambda root: change(root, "annotations", 0, "iscrowd", "0"),
        r"iscrowd of annotations\[0\] \(id \d+\) must be 0 or 1, got '0'",
    ),
    "negative area": (
        lambda root: change(root, "annotations", 0, "area", -1),
        r"area of annotations\[0\] \(id \d+\) must be a number of 0 or more, got -1",
    ),
    "short run lengths": (
        lambda root: change(root, "annotations", 0, "segmentation", {**runs(root), "counts": [3, 5]}),
        r"instances_train2017\.json: segmentation of annotations\[0\] \(id \d+\): it must have counts of 0 or more",
    ),
    "swapped run lengths": (
        lambda root: change(root, "annotations", 0, "segmentation", {**runs(root), "size": runs(root)["size"][::-1]}),
        r"segmentation of annotations\[0\] \(id \d+\): it must have size",
    ),
    "odd polygon": (
        lambda root: change(root, "annotations", 0, "segmentation", [[1, 1, 5, 1, 5, 5, 3]]),
        r"segmentation of annotations\[0\] \(id \d+\): polygon 0 must be a list x, y",
    ),
    "no field": (lambda root: change(root, "images", 1, "width", None), r"images\[1\] must have the fields .*width"),
}


def runs(root: Path) -> dict[str, list[int]]:
    """Return run lengths that fit the image of the first annotation, which is wider than high."""
    document = json.loads((root / COCO).read_text())
    image = next(item for item in document["images"] if item["id"] == document["annotations"][0]["image_id"])
    assert image["width"] != image["height"]
    return {"size": [image["height"], image["width"]], "counts": [image["height"] * image["width"]]}


def change(root: Path, section: str, place: int, field: str, value: object) -> None:
    document = json.loads((root / COCO).read_text())
    document[section][place][field] = value
    if value is None:
        del document[section][place][field]
    (root / COCO).write_text(json.dumps(document))


@pytest.mark.parametrize("fault", VOC_FAULTS)
def test_voc_layout_errors_name_file_and_field(world: Path, tmp_path: Path, fault: str):
    shutil.copytree(world / "voc", tmp_path / "voc")
    damage, message = VOC_FAULTS[fault]
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        object_sets.read_voc(str(tmp_path / VOC), "trainval", sorted(world_images.VOC_NAMES), 0)


@pytest.mark.parametrize("fault", COCO_FAULTS)
def test_coco_layout_errors_name_file_and_field(world: Path, tmp_path: Path, fault: str):
    shutil.copytree(world / "coco", tmp_path / "coco")
    damage, message = COCO_FAULTS[fault]
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        object_sets.read_coco(str(tmp_path / "coco"), "train", 0)


def test_an_object_without_a_mark_is_no_crowd_and_can_be_scored(world: Path, tmp_path: Path):
    shutil.copytree(world / "coco", tmp_path / "coco")
    document = json.loads((tmp_path / COCO).read_text())
    for item in document["annotations"]:
        item.pop("iscrowd", None)
    (tmp_path / COCO).write_text(json.dumps(document))
    split = object_sets.read_coco(str(tmp_path / "coco"), "train", 0)
    assert not any(image.objects.ignored.any() for image in split.images)
    truth = [
        scores.Detections(image.objects.boxes, image.objects.labels, np.ones(len(image.objects.labels)))
        for image in split.images
    ]
    for found, image in zip(truth, split.images, strict=True):
        masks = [shapes.shape_mask(shape, image.size, image.size) for shape in image.shapes]
        found.masks.extend(run_lengths.encode(np.asfortranarray(mask)) for mask in masks)
    numbers = scores.coco_average_precision(split.document, split.image_ids, truth, list(split.categories))
    assert numbers["box_ap"] == pytest.approx(100)
    assert numbers["mask_ap"] == pytest.approx(100)
