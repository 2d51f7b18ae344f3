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


def even_crop(crop: Box) -> Box:
    """Grow a crop outward to even pixels, because chroma has half the resolution.

    Frames have even sides, so the crop stays inside.
    """
    left, top, right, bottom = crop
    return left // 2 * 2, top // 2 * 2, (right + 1) // 2 * 2, (bottom + 1) // 2 * 2


def crop_frame(frame: Planes, crop: Box, target_RS: NDArray[np.uint8]) -> None:
    """Write an even crop of a frame, resized to S x S, as I420 to `target_RS`."""
    left, top, right, bottom = crop
    size = target_RS.shape[1]
    half = size // 2
    _resize(frame.y[top:bottom, left:right], target_RS[:size])
    for plane, target in zip((frame.u, frame.v), target_RS[size:].reshape(2, half, half), strict=True):
        _resize(plane[top // 2 : bottom // 2, left // 2 : right // 2], target)


def crop_masks(masks: Sequence[NDArray[np.bool_]], crop: Box, target_TSS: NDArray[np.bool_]) -> None:
    """Write a crop of each mask to `target_TSS`, resized like its frame by the nearest pixel."""
    left, top, right, bottom = crop
    resized_TSS = target_TSS.view(np.uint8)
    for number, mask in enumerate(masks):
        if number and mask is masks[number - 1]:
            resized_TSS[number] = resized_TSS[number - 1]
        else:
            window = mask.view(np.uint8)[top:bottom, left:right]
            size = resized_TSS.shape[2], resized_TSS.shape[1]
            cv2.resize(window, size, dst=resized_TSS[number], interpolation=cv2.INTER_NEAREST_EXACT)


def fill_grey(clip_TRS: NDArray[np.uint8]) -> None:
    """Write grey images as I420: the placeholder of a damaged clip."""
    clip_TRS[:] = GREY[1]
    clip_TRS[:, : clip_TRS.shape[2]] = GREY[0]


def _resize(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
    """Resize one plane into `target`, in place."""
    halves = min(source.shape[0] / target.shape[0], source.shape[1] / target.shape[1]) >= 2
    # Between half and full size, averaging areas takes four times as long and looks the same.
    cv2.resize(source, target.shape[::-1], dst=target, interpolation=cv2.INTER_AREA if halves else cv2.INTER_LINEAR)
