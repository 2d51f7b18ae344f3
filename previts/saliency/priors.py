"""The handcrafted saliency priors of an image, by name.

Deep-USPS learns from four of them (PreViTS section 3.2). Prepares an image once for all methods and brings their maps
back to its size; the methods themselves are in files of their own. Pure arrays: no I/O, no randomness, no learning.

Shape suffixes: H W pixels, C channels, 3 Lab, N superpixels.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import combinations

import cv2
import numpy as np

from previts.config.experiment import PRIORS
from previts.saliency import dsr, hs, mc, rbd
from previts.saliency.superpixels import Image, Regions, Single, picture, shrink, superpixels, to_lab


class _Prepared:
    """What several methods need of one image: Lab colours, superpixels; each is made when first asked for."""

    def __init__(self, image_HWC: Image) -> None:
        self.image = image_HWC

    @cached_property
    def lab(self) -> Single:
        return to_lab(self.image)

    @cached_property
    def regions(self) -> Regions:
        return superpixels(self.lab)


def prior_map(name: str, image_HWC: Image) -> Single:
    """Return one prior (height, width) of an RGB image in [0, 1]; all 0 where nothing stands out.

    Raises:
        ValueError: If the image is not uint8 RGB with at least one pixel, or no prior has this name.
    """
    return prior_maps(image_HWC, (name,))[name]


def prior_maps(image_HWC: Image, names: Sequence[str] = PRIORS) -> dict[str, Single]:
    """Return several priors of an RGB image by name, each as `prior_map` does; what they share is computed once."""
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or not image_HWC.size:
        raise ValueError(f"expected a uint8 RGB image, got {image_HWC.shape = }, {image_HWC.dtype = }")
    inner = picture(image_HWC)
    whole_HWC = np.ascontiguousarray(image_HWC[inner])
    height, width = whole_HWC.shape[:2]
    prepared = _Prepared(shrink(whole_HWC))
    even = bool((whole_HWC == whole_HWC[0, 0]).all())
    maps = {}
    for name in names:
        maps[name] = np.zeros(image_HWC.shape[:2], dtype=np.float32)
        small_HW = _small_map(name, prepared)
        if even:  # MC, DSR and HS would find its centre
            continue
        # Bars around the picture are never salient.
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
            raise ValueError(f"no saliency prior is called {name!r}, only {', '.join(PRIORS)}")


def mean_agreement(maps: Mapping[str, Single]) -> float:
    """Return how alike saliency maps of one image are, in [0, 1]: the mean over pairs of sum(min) / sum(max).

    It tells without ground truth where saliency can be trusted: four methods that agree are rarely all wrong.
    """
    scores = []
    for one, other in combinations(maps.values(), 2):
        union = float(np.maximum(one, other).sum())
        scores.append(float(np.minimum(one, other).sum()) / union if union else 0.0)
    return float(np.mean(scores))
