"""Images of a disc on a gradient, with the mask of the disc."""

import numpy as np


def disc_image(height, width, *, noise=6, seed=0):
    """Return an image of a red disc right of the centre on a green gradient, and the mask of the disc."""
    rows, columns = np.mgrid[0:height, 0:width]
    disc = (rows - 0.5 * height) ** 2 + (columns - 0.6 * width) ** 2 < (0.22 * min(height, width)) ** 2
    image = np.stack([40 + 20 * rows / height, 110 + 40 * columns / width, 60 + 0 * rows], axis=2)
    image[disc] = [200, 40, 40]
    image += np.random.default_rng(seed).normal(0, noise, image.shape)
    return image.clip(0, 255).astype(np.uint8), disc


def overlap(one, other):
    """Return the intersection over union of two masks."""
    return (one & other).sum() / (one | other).sum()
