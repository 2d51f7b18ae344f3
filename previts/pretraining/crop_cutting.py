"""Crops of decoded frames and of their masks, as small I420 images.

The spatial part of PreViTS section 3.2: `crop_sampling.py` draws the box, this file cuts it out. It works on the planes
of the decoder, so no whole frame is copied or converted to RGB.

Shape suffixes: T frames, S pixels of a side, R = 3 S / 2 rows of an I420 image: S rows of luma, then the two chroma
planes of S / 2 x S / 2 one after the other, in the memory order of yuv420p.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from previts.media.boxes import Box
from previts.media.frame_decoder import Planes

GREY = (124, 128)  # luma and chroma
_VECTOR = 64  # bytes


def even_crop(crop: Box) -> Box:
    """Grow a crop outward to even pixels, because chroma has half the resolution.

    Frames have even sides, so the crop stays inside.
    """
    left, top, right, bottom = crop
    return left // 2 * 2, top // 2 * 2, (right + 1) // 2 * 2, (bottom + 1) // 2 * 2


def crop_frames(frames: Sequence[Planes], crop: Box, targets: Sequence[NDArray[np.uint8]]) -> None:
    """Write an even crop of each frame, resized to S x S, as I420 to its target (R, S)."""
    left, top, right, bottom = crop
    size = targets[0].shape[1]
    half = size // 2
    chroma = [target[size:].reshape(2, half, half) for target in targets]
    _resize([frame.y for frame in frames], crop, [target[:size] for target in targets])
    cut = left // 2, top // 2, right // 2, bottom // 2
    _resize([frame.u for frame in frames], cut, [target[0] for target in chroma])
    _resize([frame.v for frame in frames], cut, [target[1] for target in chroma])


def crop_masks(masks: Sequence[NDArray[np.bool_]], crop: Box, target_TSS: NDArray[np.bool_]) -> None:
    """Write a crop of each mask to `target_TSS`, resized like its frame by the nearest pixel."""
    resized_TSS = target_TSS.view(np.uint8)
    changes = [number for number, mask in enumerate(masks) if not number or mask is not masks[number - 1]]
    _resize(
        [masks[number].view(np.uint8) for number in changes],
        crop,
        [resized_TSS[number] for number in changes],
        cv2.INTER_NEAREST_EXACT,
    )
    for number in range(len(masks)):
        if number not in changes:
            resized_TSS[number] = resized_TSS[number - 1]


def fill_grey(clip_TRS: NDArray[np.uint8]) -> None:
    """Write grey images as I420: the placeholder of a damaged clip."""
    clip_TRS[:] = GREY[1]
    clip_TRS[:, : clip_TRS.shape[2]] = GREY[0]


def _resize(
    planes: Sequence[NDArray[np.uint8]], crop: Box, targets: Sequence[NDArray[np.uint8]], how: int = cv2.INTER_LINEAR
) -> None:
    """Resize a crop of each plane into its target (S, S), in place; all planes have one shape."""
    left, top, right, bottom = crop
    size = targets[0].shape[::-1]
    halves = min((bottom - top) / size[1], (right - left) / size[0]) >= 2
    if how == cv2.INTER_LINEAR and halves:
        how = cv2.INTER_AREA  # between half and full size, it takes four times as long and looks the same
    # One image of four channels takes half of the time of four images, and its pixels are equal. OpenCV's `merge` is
    # slow if a row is not a multiple of its vectors, so whole vectors of pixels are merged.
    first = left // _VECTOR * _VECTOR
    last = min(-(-right // _VECTOR) * _VECTOR, planes[0].shape[1])
    fours = len(planes) // 4 * 4 if how != cv2.INTER_AREA else 0
    for start in range(0, fours, 4):
        merged = cv2.merge([plane[top:bottom, first:last] for plane in planes[start : start + 4]])
        resized = cv2.resize(merged[:, left - first : right - first], size, interpolation=how)
        cv2.split(resized, targets[start : start + 4])
    for plane, target in zip(planes[fours:], targets[fours:], strict=True):
        cv2.resize(plane[top:bottom, left:right], size, dst=target, interpolation=how)
