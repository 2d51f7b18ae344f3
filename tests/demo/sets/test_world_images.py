"""Oracles: readers of torchvision, and masks drawn again from the written labels."""

import json
import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
from rgb_files import read_rgb
from torchvision.datasets import ImageFolder, VOCDetection

from previts.demo import TINY
from previts.demo.sets import world_images
from previts.media import variants


def test_torchvision_reads_voc_and_its_lists_agree_with_its_boxes(world):
    root = world[0] / "datasets" / "voc"
    sets = root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    for image_set in ("train", "val", "trainval", "test"):
        data = VOCDetection(str(root), year="2007", image_set=image_set, download=False)
        names = (sets / f"{image_set}.txt").read_text().split()
        assert len(data) == len(names) > 0
        truth = {}
        for name, (image, target) in zip(names, data, strict=True):
            annotation = target["annotation"]
            assert (int(annotation["size"]["width"]), int(annotation["size"]["height"])) == image.size
            for item in annotation["object"]:
                box = [int(item["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")]
                assert 1 <= box[0] < box[2] <= image.size[0]
                assert 1 <= box[1] < box[3] <= image.size[1]
                key = (item["name"], name)
                truth[key] = max(truth.get(key, 0), 1 - int(item["difficult"]))
        for label in world_images.VOC_NAMES:
            lines = [line.split() for line in (sets / f"{label}_{image_set}.txt").read_text().splitlines()]
            assert [name for name, _ in lines] == names
            assert [int(sign) for _, sign in lines] == [truth.get((label, name), -1) for name in names]
    train, val, trainval = (set((sets / f"{name}.txt").read_text().split()) for name in ("train", "val", "trainval"))
    assert train | val == trainval
    assert not train & val


def test_a_voc_box_is_the_bounding_box_of_the_mask():
    still = world_images.take(TINY, "box", ("car",), "sky", size=(200, 160), split="train")
    text = ElementTree.fromstring(world_images._voc_xml("000001", still, [False]))
    box = [int(text.findtext(f"object/bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")]
    rows, columns = np.nonzero(still.masks[0])
    assert box == [
        columns.min() + 1,
        rows.min() + 1,
        columns.max() + 1,
        rows.max() + 1,
    ]


def test_torchvision_reads_imagenet_and_in9_as_folders_of_nine_classes(world):
    datasets = world[0] / "datasets"
    for split, count in (("train", TINY.imagenet_train), ("val", TINY.imagenet_val)):
        folder = ImageFolder(str(datasets / "imagenet" / split))
        assert folder.classes == sorted(world_images.WNIDS.values())
        assert np.bincount(folder.targets).tolist() == [count] * 9
    for variant in (*variants.VARIANTS, "fg_mask"):
        folder = ImageFolder(str(datasets / "in9" / variant / "val"))
        assert folder.classes[:2] == ["00_dog", "01_bird"]
        assert folder.classes[8] == "08_fish"
        assert np.bincount(folder.targets).tolist() == [TINY.in9_val] * 9
    assert len(ImageFolder(str(datasets / "in9" / "train" / "original"))) == 9 * TINY.in9_train


def test_coco_polygons_agree_with_area_and_box(world):
    root = world[0] / "datasets" / "coco"
    for split, count in (("train", TINY.coco_train), ("val", TINY.coco_val)):
        document = json.loads((root / "annotations" / f"instances_{split}2017.json").read_text())
        images = {image["id"]: image for image in document["images"]}
        assert len(images) == count
        categories = {category["id"] for category in document["categories"]}
        for image in images.values():
            pixels = read_rgb(root / f"{split}2017" / image["file_name"])
            assert pixels.shape[:2] == (image["height"], image["width"])
            assert image["file_name"] == f"{image['id']:012d}.jpg"
        for item in document["annotations"]:
            image = images[item["image_id"]]
            assert item["category_id"] in categories
            raster = np.zeros((image["height"] * 4, image["width"] * 4), np.uint8)
            for polygon in item["segmentation"]:
                cv2.fillPoly(raster, [np.round(np.array(polygon).reshape(-1, 2) * 4 - 0.5).astype(np.int32)], 1)
            # A polygon cannot express holes, such as between legs: they are filled.
            assert 0.95 * item["area"] <= raster.sum() / 16 <= 1.7 * item["area"]
            rows, columns = np.nonzero(raster)
            x, y, width, height = item["bbox"]
            extent = np.array([columns.min(), rows.min(), columns.max(), rows.max()]) / 4
            np.testing.assert_allclose(extent, (x, y, x + width, y + height), atol=1)
