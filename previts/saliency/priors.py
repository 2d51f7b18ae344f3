"""Handcrafted saliency priors of an image by name: RBD, MC, DSR and HS.

Deep-USPS learns from these four (PreViTS section 3.2). This file prepares an image once for all methods and resizes
their maps to its size. Each method is in a file of its own. Pure functions of arrays: no I/O, no randomness, no
learning.

Shape suffixes: H W pixels, C channels, 3 Lab, N superpixels.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import combinations

import cv2
import numpy as np

from previts.config.perception import PRIORS
from previts.saliency import dsr, hs, mc, rbd
from previts.saliency.superpixels import Image, Regions, Single, inside_bars, shrink, superpixels, to_lab


class _Prepared:
    """One image with its Lab colours and superpixels, each computed at first use."""

    def __init__(self, image_HWC: Image) -> None:
        self.image = image_HWC

    @cached_property
    def lab(self) -> Single:
        return to_lab(self.image)

    @cached_property
    def regions(self) -> Regions:
        return superpixels(self.lab)


def prior_map(name: str, image_HWC: Image) -> Single:
    """Return one prior (height, width) of an RGB image in [0, 1]; all 0 if no region differs from the border.

    Raises:
        ValueError: If the image is not uint8 RGB with at least one pixel, or there is no prior of this name.
    """
    return prior_maps(image_HWC, (name,))[name]


def prior_maps(image_HWC: Image, names: Sequence[str] = PRIORS) -> dict[str, Single]:
    """Return several priors of an RGB image by name, the same as `prior_map` does; shared parts are computed once."""
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or not image_HWC.size:
        raise ValueError(f"expected a uint8 RGB image, got {image_HWC.shape = }, {image_HWC.dtype = }")
    inner = inside_bars(image_HWC)
    scene_HWC = np.ascontiguousarray(image_HWC[inner])
    height, width = scene_HWC.shape[:2]
    prepared = _Prepared(shrink(scene_HWC))
    even = bool((scene_HWC == scene_HWC[0, 0]).all())
    maps = {}
    for name in names:
        maps[name] = np.zeros(image_HWC.shape[:2], dtype=np.float32)
        small_HW = _small_map(name, prepared)
        if even:  # MC, DSR and HS would find the centre of an even image
            continue
        # Bars around the scene are never salient.
        maps[name][inner] = cv2.resize(small_HW, (width, height), interpolation=cv2.INTER_LINEAR)
    return maps


def _small_map(name: str, prepared: _Prepared) -> Single:
    match name:
        case "rbd":
            return rbd.region_saliency(prepared.regions).astype(np.float32)[prepared.regions.labels]
        case "mc":
            return mc.region_saliency(prepared.regions).astype(np.float32)[prepared.regions.labels]
        case "dsr":
            return dsr.pixel_saliency(prepared.image, prepared.lab).astype(np.float32)
        case "hs":
            return hs.pixel_saliency(prepared.lab).astype(np.float32)
        case _:
            raise ValueError(f"no saliency prior is called {name!r}; expected one of {', '.join(PRIORS)}")


def mean_agreement(maps: Mapping[str, Single]) -> float:
    """Return the similarity of saliency maps of one image, in [0, 1]: the mean over pairs of sum(min) / sum(max).

    It estimates without ground truth where saliency can be trusted: four methods that agree are rarely all wrong.
    """
    scores = []
    for one, other in combinations(maps.values(), 2):
        union = float(np.maximum(one, other).sum())
        scores.append(float(np.minimum(one, other).sum()) / union if union else 0.0)
    return float(np.mean(scores))
