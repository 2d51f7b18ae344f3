"""Oracle: the same images, one by one, through torchvision's normalisation."""

import numpy as np
import pytest
import torch
from colour_images import image_model
from torchvision.transforms import Normalize

from previts.errors import InputError
from previts.evals import features


def test_batches_keep_the_order_and_raise_errors_of_loading():
    loaded = features.image_batches(list(range(11)), lambda n: np.full((1, 2, 2), n, np.uint8), 4)
    assert [batch[:, 0, 0, 0].tolist() for batch in loaded] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]

    def broken(number: int) -> np.ndarray:
        if number == 5:
            raise InputError("image 5")
        return np.zeros((1, 2, 2), np.uint8)

    with pytest.raises(InputError, match="image 5"):
        list(features.image_batches(list(range(11)), broken, 4))


def test_features_are_the_mean_of_the_last_map_for_each_image():
    model = image_model()
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 64, 96), dtype=np.uint8)
    found = features.extract(model, range(5), lambda number: images[number], batch_size=2, what="test")
    oracle = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for image, row in zip(images, found, strict=True):
        with torch.no_grad():
            maps = model.encoder.features(oracle(torch.from_numpy(image) / 255)[None])
        np.testing.assert_allclose(row, maps[0].flatten(1).mean(1), atol=1e-5)
