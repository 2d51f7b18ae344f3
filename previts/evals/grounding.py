"""Attention to two objects of one image: one query, two keys.

PreViTS section 4.7, figure 6. Each object alone is a key, the whole image the query. The Grad-CAM that pretraining
supervises shows where the query matches each key. Nothing is trained.

Shape suffixes: K keys, C channels, H W pixels of an image, S pixels of the squashed image, h w cells of the map.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from previts.config.evaluation import EvaluationConfig
from previts.errors import InputError
from previts.evals import attention, features, frozen, labelled_images, metrics
from previts.evals.detection import object_sets, shapes
from previts.evals.outcome import ITEMS, Outcome, Population, item_scores, pack
from previts.models.moco import MoCo
from previts.processes.progress import progress
from previts.storage import files

KEYS = 2
# A key must be visible on the map's coarse grid, and the two keys must hardly overlap.
LEAST_AREA, MOST_OVERLAP = 0.04, 0.1
FIGURE_PICTURES, THUMBNAIL_WIDTH = 6, 128

Masks = NDArray[np.bool_]
Cells = NDArray[np.float32]


@dataclass(frozen=True)
class TwoObjectImage:
    """An image with two objects: its URI, their names, and their masks KHW."""

    uri: str
    names: tuple[str, ...]
    masks: Masks


def localise(model: MoCo, data_uri: str, config: EvaluationConfig) -> Outcome:
    """Score attention on images of COCO with two objects, as fractions.

    `grounding/energy` is the share of attention on the key's object. `grounding/pointing` is how often the strongest
    cell is on it. `grounding/told_apart` is how often each of the two keys draws more attention per area to its own
    object than to the other: 0.25 for maps that are independent of the keys, 0 for maps that are always the same.

    Args:
        model: In eval mode.
        data_uri: Folder with `val2017` and `annotations/instances_val2017.json`.
        config: Uses crop, limit.

    Raises:
        InputError: If a file of the layout is missing or damaged, or no image has two objects that are large enough.
    """
    before = frozen.weights_digest(model)
    every = read_two_object_images(data_uri)
    chosen = [every[number] for number in labelled_images.evenly(len(every), config.limit)]
    shown = labelled_images.evenly(len(chosen), FIGURE_PICTURES)
    figure = _Figure()
    batches = features.image_batches(chosen, partial(_load, size=config.crop), 1)
    energy, pointing, told_apart, even, random_cell = [], [], [], [], []
    for number, (item, batch) in enumerate(zip(progress(chosen, "COCO keys", unit="image"), batches, strict=True)):
        cam_Khw, shares_Khw = attend(model, batch[0], item.masks)
        energy.append(metrics.energy_in_mask(cam_Khw, shares_Khw))
        pointing.append(metrics.pointing(cam_Khw, shares_Khw))
        told_apart.append(tells_apart(cam_Khw, shares_Khw))
        even.append(shares_Khw.mean())
        random_cell.append((shares_Khw >= metrics.POINTING_SHARE).mean())
        if number in shown:
            figure.add(item, cam_Khw)
    # The two keys of an image are not independent, so the image is the item.
    by_image = {
        "grounding/energy": np.mean(energy, axis=1),
        "grounding/pointing": np.mean(pointing, axis=1),
        "grounding/told_apart": np.array(told_apart, np.float64),
    }
    return Outcome(
        metrics={
            "grounding/energy": float(np.mean(energy)),
            "grounding/pointing": float(np.mean(pointing)),
            "grounding/told_apart": float(np.mean(told_apart)),
        },
        protocol={
            # Paper: shows figures only, of frames of videos; the numbers, and COCO, are our choice.
            "pictures": f"val2017 with {KEYS} objects or more of {LEAST_AREA:.0%} of the image each; the two largest "
            f"that overlap in at most {MOST_OVERLAP:.0%} of the smaller",
            "input": f"whole images squashed to {config.crop} x {config.crop}; a key is the image times the mask",
            "mask": "the share of each cell that the object covers; pointing needs a cell that is half covered",
            "pictures_scored": len(chosen),
            "mean_area_of_an_object": float(np.mean([item.masks.mean(axis=(1, 2)) for item in chosen])),
            **frozen.unchanged(model, before),
        },
        figures={"keys.npz": figure.npz()},
        files={
            ITEMS: pack({name: item_scores([item.uri for item in chosen], values) for name, values in by_image.items()})
        },
        populations={
            # The scores of an even map, of a random cell, and of two maps that do not depend on their keys.
            "grounding/energy": Population(KEYS * len(chosen), "objects", float(np.mean(even))),
            "grounding/pointing": Population(KEYS * len(chosen), "objects", float(np.mean(random_cell))),
            "grounding/told_apart": Population(len(chosen), "images", 0.25),
        },
    )


def _load(item: TwoObjectImage, *, size: int) -> labelled_images.Pixels:
    image, (height, width) = labelled_images.open_image(item.uri), item.masks.shape[1:]
    if image.size != (width, height):
        raise InputError(
            f"{item.uri} has {image.width} x {image.height} pixels, its annotations say {width} x {height}; image and "
            "annotations must be of the same release"
        )
    return labelled_images.squash(image, size)


def attend(model: MoCo, image_CSS: labelled_images.Pixels, masks_KHW: Masks) -> tuple[Cells, Cells]:
    """Return the attention of the whole image to each object as key, and the object's share of each cell, Khw."""
    size, device = image_CSS.shape[-1], features.device_of(model)
    squashed_KSS = np.stack(
        [
            np.asarray(Image.fromarray(mask.astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST)) > 0
            for mask in masks_KHW
        ]
    )
    image_1CSS = features.normalised(image_CSS[None], device)
    mask_K1SS = torch.from_numpy(squashed_KSS[:, None]).to(device)
    with torch.no_grad():
        cam_Khw = torch.cat(
            [attention.key_attention(model, image_1CSS[None], image_1CSS, mask_1SS)[:, 0] for mask_1SS in mask_K1SS]
        )
    shares_Khw = attention.cell_shares(model, squashed_KSS, (cam_Khw.shape[1], cam_Khw.shape[2]))
    return cam_Khw.cpu().numpy(), shares_Khw


def tells_apart(cam_Khw: Cells, shares_Khw: Cells) -> bool:
    """Return whether each map is stronger per covered cell on its own object than on the other."""
    # means_KJ: mean strength of map k on object j.
    means_KJ = np.einsum("khw,jhw->kj", cam_Khw, shares_Khw) / np.maximum(shares_Khw.sum(axis=(1, 2)), 1e-12)
    return bool((means_KJ.argmax(axis=1) == np.arange(len(means_KJ))).all() and (means_KJ.max(axis=1) > 0).all())


def read_two_object_images(data_uri: str) -> list[TwoObjectImage]:
    """Return the images with two large objects that hardly overlap, in the order of their numbers.

    Raises:
        InputError: If the annotations are missing or damaged, or there is no such image.
    """
    split = object_sets.read_coco(data_uri, "val", 0)
    names = list(split.categories.values())
    found = (_two_object_image(image, names) for image in split.images)
    images = [image for image in found if image is not None]
    if not images:
        raise InputError(
            f"no image of {files.join(data_uri, 'val2017')} has two objects that each cover at least "
            f"{LEAST_AREA:.0%} of its area; give more images"
        )
    return images


def _two_object_image(image: object_sets.AnnotatedImage, names: Sequence[str]) -> TwoObjectImage | None:
    """Return an image with its two largest objects that hardly overlap, or None."""
    width, height = image.size
    boxes_N4 = image.objects.boxes
    areas_N = (boxes_N4[:, 2:] - boxes_N4[:, :2]).prod(axis=1) / (width * height)
    first: tuple[int, Masks] | None = None
    for number in np.argsort(-areas_N, kind="stable"):
        if areas_N[number] < LEAST_AREA:
            break
        if image.objects.ignored[number]:  # a crowd
            continue
        mask_HW = shapes.shape_mask(image.shapes[number], image.size, image.size) > 0
        if mask_HW.mean() < LEAST_AREA:
            continue
        if first is None:
            first = (int(number), mask_HW)
        elif (mask_HW & first[1]).sum() <= MOST_OVERLAP * min(mask_HW.sum(), first[1].sum()):
            labels = (image.objects.labels[first[0]], image.objects.labels[number])
            return TwoObjectImage(image.uri, tuple(names[label - 1] for label in labels), np.stack([first[1], mask_HW]))
    return None


class _Figure:
    """Collects thumbnails of images that do not depend on the model, one row per key."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Any]] = {}
        self.size = (THUMBNAIL_WIDTH, THUMBNAIL_WIDTH * 3 // 4)

    def add(self, item: TwoObjectImage, cam_Khw: Cells) -> None:
        """Add one image with its keys."""
        image = labelled_images.as_rgb(labelled_images.open_image(item.uri)).resize(self.size, Image.Resampling.BOX)
        pixels = np.asarray(image, dtype=np.uint8)
        for number, (name, mask, cam) in enumerate(zip(item.names, item.masks, cam_Khw, strict=True), start=1):
            small = Image.fromarray(mask.astype(np.uint8)).resize(self.size, Image.Resampling.NEAREST)
            key_mask = np.asarray(small) > 0
            row = {
                "names": f"{item.uri.rsplit('/', 1)[-1]}, key {number}: {name}",
                "frames": pixels[None],
                "cams": cam[None].astype(np.float16),
                "masks": key_mask[None],
                "key_frames": pixels,
                "key_masks": key_mask,
            }
            for field, value in row.items():
                self.rows.setdefault(field, []).append(value)

    def npz(self) -> bytes:
        """Return the figure in the format of DAVIS-2016's figure: a sequence of one frame for each key."""
        file = io.BytesIO()
        arrays: dict[str, Any] = {name: np.stack(values) for name, values in self.rows.items()}
        np.savez_compressed(file, **arrays)
        return file.getvalue()
