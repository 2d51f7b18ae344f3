"""Random crop boxes, with and without a mask that the crop must cover.

PreViTS section 3.2 (spatial constraint) and section 4.6. Draws boxes only; `crop_cutting.py` cuts them out.
"""

from statistics import NormalDist

import cv2
import numpy as np
from numpy.typing import NDArray

from previts.config.experiment import SamplingConfig
from previts.media.boxes import Box, draw_box, draw_size


def sample_crop(
    mask_HW: NDArray[np.bool_] | None,
    height: int,
    width: int,
    *,
    config: SamplingConfig,
    generator: np.random.Generator,
) -> Box:
    """Draw the box of a frame to crop; with a mask, one that overlaps it by `min_overlap`.

    Without a mask this is torchvision's random resized crop. With one, the centre is drawn from a Gaussian around the
    mask's centroid (standard deviation: the frame's width and height), truncated so that the crop fits. The overlap is
    the share of the mask's pixels in the crop (`coverage`), or the intersection over union of crop and mask (`iou`).

    - coverage: a mask too large for the smallest crop lowers the threshold. If all attempts fail, the crop is the
      bounding box of the mask, widened at random. It is then cut to an allowed aspect ratio. If that loses too much of
      the mask, the crop is the largest one that the frame allows, placed where it covers most.
    - iou: all attempts fail if the object is smaller than `min_overlap` of the smallest crop, for example. Then the
      crop is the bounding box of the mask, widened at random as far as the threshold allows. If even the box itself is
      below the threshold, as for a thin diagonal object, the best of these boxes is taken.

    Paper: section 3.2 says IoU, section 4.6 "cover at least mu of the object area". With crops of 40 % of the frame an
    IoU of 0.3 is out of reach for most objects, so coverage is the default, as in the released code.

    Raises:
        ValueError: If the mask is empty or has another shape than the frame.
    """
    if mask_HW is None:
        box = draw_box(height, width, config.crop_scale, config.crop_ratio, config.crop_attempts, generator)
        return box or _shrink_to_ratio((0, 0, width, height), (width / 2, height / 2), config)
    pixels_HW = mask_HW.view(np.uint8)
    rows = cv2.reduce(pixels_HW, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()
    area = int(rows.sum())
    if mask_HW.shape != (height, width) or not area:
        raise ValueError(f"the mask must be {height} x {width} and not empty, got {mask_HW.shape} of {area} px")
    columns = cv2.reduce(pixels_HW, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()
    middle_row, middle_column = (float(counts @ np.arange(len(counts))) / area + 0.5 for counts in (rows, columns))
    for _ in range(config.crop_attempts):
        crop_height, crop_width = draw_size(height, width, config.crop_scale, config.crop_ratio, generator)
        if crop_height > height or crop_width > width:
            continue
        left = _draw_offset(middle_column, crop_width, width, generator)
        top = _draw_offset(middle_row, crop_height, height, generator)
        crop = (left, top, left + crop_width, top + crop_height)
        if _overlaps(mask_HW, area, crop, config):
            return crop
    inside_rows, inside_columns = np.flatnonzero(rows), np.flatnonzero(columns)
    box = (int(inside_columns[0]), int(inside_rows[0]), int(inside_columns[-1]) + 1, int(inside_rows[-1]) + 1)
    return _fallback_box(mask_HW, area, box, config=config, generator=generator)


def _overlaps(mask_HW: NDArray[np.bool_], area: int, crop: Box, config: SamplingConfig) -> bool:
    if config.overlap == "iou":
        return _iou(mask_HW, area, crop) >= config.min_overlap
    # Enough, too: the smallest crop if the mask is larger, and a crop, rounded down, that is full of the object.
    needed = min(config.min_overlap * area, config.crop_scale[0] * mask_HW.size, _area(crop))
    return _covered(mask_HW, crop) >= needed


def _covered(mask_HW: NDArray[np.bool_], crop: Box) -> int:
    left, top, right, bottom = crop
    return int(np.count_nonzero(mask_HW[top:bottom, left:right]))


def _area(crop: Box) -> int:
    left, top, right, bottom = crop
    return (right - left) * (bottom - top)


def _iou(mask_HW: NDArray[np.bool_], area: int, crop: Box) -> float:
    covered = _covered(mask_HW, crop)
    return covered / (area + _area(crop) - covered)


def _draw_offset(centre: float, size: int, extent: int, generator: np.random.Generator) -> int:
    """Draw the first pixel of a crop side whose middle is Gaussian around `centre`, truncated to the frame."""
    gaussian = NormalDist(float(centre), extent)
    low, high = gaussian.cdf(size / 2), gaussian.cdf(extent - size / 2)
    middle = gaussian.inv_cdf(generator.uniform(low, high)) if high > low else size / 2
    return min(max(round(middle - size / 2), 0), extent - size)


def _fallback_box(
    mask_HW: NDArray[np.bool_], area: int, box: Box, *, config: SamplingConfig, generator: np.random.Generator
) -> Box:
    """Return a crop around a mask, for a frame in which no random crop overlaps the mask enough.

    The bounding box of the mask is widened on each side at random, then cut to the allowed aspect ratio. With coverage,
    the largest possible crop is returned if this crop covers too little. With IoU, ever smaller margins are tried: the
    first crop that reaches `min_overlap` is returned, otherwise the one with the largest IoU.
    """
    left, top, right, bottom = box
    height, width = mask_HW.shape
    sides = [int(generator.integers(0, room + 1)) for room in (left, top, width - right, height - bottom)]
    centre = ((left + right) / 2, (top + bottom) / 2)

    def widened(share: float) -> Box:
        more = [int(side * share) for side in sides]
        wide = (left - more[0], top - more[1], right + more[2], bottom + more[3])
        return _shrink_to_ratio(wide, centre, config)

    if config.overlap == "coverage":
        crop = widened(1)
        return crop if _overlaps(mask_HW, area, crop, config) else _largest_crop(mask_HW, config)
    candidates = [widened(share) for share in (1, 1 / 2, 1 / 4, 1 / 8, 0)]
    ious = [_iou(mask_HW, area, crop) for crop in candidates]
    good = [crop for crop, iou in zip(candidates, ious, strict=True) if iou >= config.min_overlap]
    return good[0] if good else candidates[int(np.argmax(ious))]


def _largest_crop(mask_HW: NDArray[np.bool_], config: SamplingConfig) -> Box:
    """Return the largest crop of an allowed aspect ratio, placed where it covers most of the mask."""
    height, width = mask_HW.shape
    narrow, wide = config.crop_ratio
    crop_height, crop_width = min(height, max(1, round(width / narrow))), min(width, max(1, round(wide * height)))

    def best(counts: NDArray[np.int64], size: int) -> int:
        sums = np.concatenate([[0], np.cumsum(counts)])
        return int(np.argmax(sums[size:] - sums[:-size]))

    # One side of the crop is as long as the frame, so only the other one has a choice of places.
    top, left = best(mask_HW.sum(1), crop_height), best(mask_HW.sum(0), crop_width)
    return left, top, left + crop_width, top + crop_height


def _shrink_to_ratio(box: Box, centre: tuple[float, float], config: SamplingConfig) -> Box:
    """Cut the longer side of a box to the allowed aspect ratio, around `centre` as far as the box allows."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    narrow, wide = config.crop_ratio
    new_width, new_height = width, height
    if width > wide * height:
        new_width = max(1, round(wide * height))
    elif width < narrow * height:
        new_height = max(1, round(width / narrow))
    left = min(max(round(centre[0] - new_width / 2), left), right - new_width)
    top = min(max(round(centre[1] - new_height / 2), top), bottom - new_height)
    return left, top, left + new_width, top + new_height
