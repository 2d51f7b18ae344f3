"""Masks of blobs on an empty frame, and the tube that the tracker builds from them."""

import numpy as np

from previts.config.perception import TrackConfig
from previts.tracking.tracker import build_tube

HEIGHT, WIDTH = 60, 100


def blob(left, top=20, width=20, height=20):
    """Return the mask of a rectangle without one corner, so that it differs from the mask of its box."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + height, max(0, left) : max(0, left + width)] = True
    mask[top : top + 4, max(0, left) : max(0, left + 4)] = False
    return mask


def follow(masks, every=1, num_frames=None, **config):
    """Return the tube of masks in every `every`-th frame."""
    key_frames = [every * place for place in range(len(masks))]
    return build_tube(masks, key_frames, num_frames or key_frames[-1] + 1, TrackConfig(**config))
