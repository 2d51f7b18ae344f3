"""Whether attention tells two objects of one picture apart: one query, two keys.

PreViTS section 4.7, figure 6. The foreground of each object alone is a key, the whole picture the query; the same
Grad-CAM that pretraining supervises says where the query agrees with each. Nothing is trained.

Shape suffixes: K keys, C channels, H W pixels of a picture, S pixels of the squashed picture, h w cells of the map.
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

from previts import storage
from previts.errors import InputError
from previts.evals import detection_images, detection_sets, features, metrics
from previts.evals.protocol import Outcome, Population
from previts.evaluation import EvaluationConfig
from previts.moco import MoCo
from previts.progress import progress

KEYS = 2
# A key must be seen on the map's coarse grid, and keys must not be one another's.
LEAST_AREA, MOST_OVERLAP = 0.04, 0.1
FIGURE_PICTURES, THUMBNAIL_WIDTH = 6, 128

Masks = NDArray[np.bool_]
Cells = NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """A picture with two objects: its URI, their names, and their pixels KHW."""

    uri: str
    names: tuple[str, ...]
    masks: Masks


def localise(model: MoCo, data_uri: str, config: EvaluationConfig) -> Outcome:
    """Score attention on pictures of COCO with two objects, as fractions.

    `grounding/energy` is the share of attention on the key's object, `grounding/pointing` how often the strongest cell
    lies on it, `grounding/told_apart` how often each of the two keys draws more attention to its own object, for its
    area, than to the other: 0.25 for maps that have nothing to do with the keys, 0 for maps that are always the same.

    Args:
        model: In eval mode.
        data_uri: Folder with `val2017` and `annotations/instances_val2017.json`.
        config: Uses crop, limit.

    Raises:
        InputError: If a file of the layout is missing or damaged, or no picture has two objects that are large enough.
    """
    before = features.weights_digest(model)
    scenes = read_scenes(data_uri)
    chosen = [scenes[number] for number in features.evenly(len(scenes), config.limit)]
    shown = features.evenly(len(chosen), FIGURE_PICTURES)
    figure = _Figure()
    load = partial(features.load_whole, size=config.crop)
    pictures = features.batches([scene.uri for scene in chosen], load, 1)
    energy, pointing, told_apart, even, random_cell = [], [], [], [], []
    for number, (scene, image) in enumerate(zip(progress(chosen, "COCO keys", unit="picture"), pictures, strict=True)):
        cam_Khw, shares_Khw = attend(model, image[0], scene.masks)
        energy.append(metrics.energy_in_mask(cam_Khw, shares_Khw))
        pointing.append(metrics.pointing(cam_Khw, shares_Khw))
        told_apart.append(tells_apart(cam_Khw, shares_Khw))
        even.append(shares_Khw.mean())
        random_cell.append((shares_Khw >= metrics.POINTING_SHARE).mean())
        if number in shown:
            figure.add(scene, cam_Khw)
    return Outcome(
        metrics={
            "grounding/energy": float(np.mean(energy)),
            "grounding/pointing": float(np.mean(pointing)),
            "grounding/told_apart": float(np.mean(told_apart)),
        },
        protocol={
            # Paper: shows pictures only, of frames of videos; its numbers, and COCO, are ours.
            "pictures": f"val2017 with {KEYS} objects or more of {LEAST_AREA:.0%} of the picture each, the two largest "
            f"that overlap in at most {MOST_OVERLAP:.0%} of the smaller",
            "input": f"whole pictures squashed to {config.crop} x {config.crop}; a key is the picture times the mask",
            "mask": "cells' shares that the object covers; a cell counts as the object where more than half",
            "pictures_scored": len(chosen),
            "mean_area_of_an_object": float(np.mean([scene.masks.mean(axis=(1, 2)) for scene in chosen])),
            **features.unchanged(model, before),
        },
        figures={"keys.npz": figure.npz()},
        populations={
            # An even map, a random cell, and two maps that do not depend on their keys.
            "grounding/energy": Population(KEYS * len(chosen), "objects", float(np.mean(even))),
            "grounding/pointing": Population(KEYS * len(chosen), "objects", float(np.mean(random_cell))),
            "grounding/told_apart": Population(len(chosen), "images", 0.25),
        },
    )


def attend(model: MoCo, image_CSS: features.Pixels, masks_KHW: Masks) -> tuple[Cells, Cells]:
    """Return the attention of the whole picture for each object as key, and the object's share of each cell, Khw."""
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
            [features.attention(model, image_1CSS[None], image_1CSS, mask_1SS)[:, 0] for mask_1SS in mask_K1SS]
        )
    shares_Khw = features.cell_shares(model, squashed_KSS, (cam_Khw.shape[1], cam_Khw.shape[2]))
    return cam_Khw.cpu().numpy(), shares_Khw


def tells_apart(cam_Khw: Cells, shares_Khw: Cells) -> bool:
    """Return whether each map is stronger, per covered cell, on its own object than on the other."""
    # means_KJ: map k's mean strength on object j.
    means_KJ = np.einsum("khw,jhw->kj", cam_Khw, shares_Khw) / np.maximum(shares_Khw.sum(axis=(1, 2)), 1e-12)
    return bool((means_KJ.argmax(axis=1) == np.arange(len(means_KJ))).all() and (means_KJ.max(axis=1) > 0).all())


def read_scenes(data_uri: str) -> list[Scene]:
    """Return the pictures with two objects that are large enough and apart, in the order of their numbers.

    Raises:
        InputError: If the annotations are missing or damaged, or there is no such picture.
    """
    split = detection_sets.read_coco(data_uri, "val", 0)
    names = list(split.categories.values())
    found = (_scene(picture, names) for picture in split.pictures)
    scenes = [scene for scene in found if scene is not None]
    if not scenes:
        raise InputError(
            f"no picture of {storage.join(data_uri, 'val2017')} has two objects of {LEAST_AREA:.0%} of its area each"
        )
    return scenes


def _scene(picture: detection_sets.Picture, names: Sequence[str]) -> Scene | None:
    """Return a picture with its two largest objects that are apart, or None."""
    width, height = picture.size
    boxes_N4 = picture.objects.boxes
    areas_N = (boxes_N4[:, 2:] - boxes_N4[:, :2]).prod(axis=1) / (width * height)
    first: tuple[int, Masks] | None = None
    for number in np.argsort(-areas_N, kind="stable"):
        if areas_N[number] < LEAST_AREA:
            break
        if picture.objects.ignored[number]:  # a crowd
            continue
        mask_HW = detection_images.shape_mask(picture.shapes[number], picture.size, picture.size, picture.uri) > 0
        if mask_HW.mean() < LEAST_AREA:
            continue
        if first is None:
            first = (int(number), mask_HW)
        elif (mask_HW & first[1]).sum() <= MOST_OVERLAP * min(mask_HW.sum(), first[1].sum()):
            labels = (picture.objects.labels[first[0]], picture.objects.labels[number])
            return Scene(picture.uri, tuple(names[label - 1] for label in labels), np.stack([first[1], mask_HW]))
    return None


class _Figure:
    """Collects thumbnails of the same pictures whatever the model, one line a key."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Any]] = {}
        self.size = (THUMBNAIL_WIDTH, THUMBNAIL_WIDTH * 3 // 4)

    def add(self, scene: Scene, cam_Khw: Cells) -> None:
        """Keep one picture with its keys."""
        image = features.open_image(scene.uri).convert("RGB").resize(self.size, Image.Resampling.BOX)
        pixels = np.asarray(image, dtype=np.uint8)
        for number, (name, mask, cam) in enumerate(zip(scene.names, scene.masks, cam_Khw, strict=True), start=1):
            small = Image.fromarray(mask.astype(np.uint8)).resize(self.size, Image.Resampling.NEAREST)
            key_mask = np.asarray(small) > 0
            row = {
                "names": f"{scene.uri.rsplit('/', 1)[-1]}, key {number}: {name}",
                "frames": pixels[None],
                "cams": cam[None].astype(np.float16),
                "masks": key_mask[None],
                "key_frames": pixels,
                "key_masks": key_mask,
            }
            for field, value in row.items():
                self.rows.setdefault(field, []).append(value)

    def npz(self) -> bytes:
        """Return the figure as DAVIS-2016's is laid out: a scene of one frame for each key."""
        file = io.BytesIO()
        arrays: dict[str, Any] = {name: np.stack(values) for name, values in self.rows.items()}
        np.savez_compressed(file, **arrays)
        return file.getvalue()
