"""Oracles: means of blocks of pixels, and cells listed by hand."""

import numpy as np
import torch
from colour_images import image_model

from previts.evals import attention


def test_the_share_of_a_cell_is_the_mean_of_its_pixels():
    masks = np.random.default_rng(0).random((2, 96, 64)) < 0.4
    expected = masks.reshape(2, 3, 32, 2, 32).mean((2, 4))
    np.testing.assert_allclose(attention.cell_shares(image_model(), masks, (3, 2)), expected, atol=1e-6)


def test_an_object_smaller_than_a_cell_has_the_cell_that_it_covers_most():
    masks = np.zeros((4, 96, 96), bool)
    masks[0, :40, :40] = True  # cells of 32 x 32
    masks[1, 60:70, 10:20] = True
    masks[2, 28:36, 28:36] = True  # as much of four cells
    cells = attention.covered_cells(image_model(), masks, (3, 3))
    found = [np.argwhere(frame).tolist() for frame in cells]
    assert found == [[[0, 0]], [[2, 0]], [[0, 0], [0, 1], [1, 0], [1, 1]], []]


def test_attention_of_a_query_is_independent_of_the_other_queries():
    model, generator = image_model(), torch.Generator().manual_seed(0)
    queries = torch.randn(3, 1, 3, 64, 64, generator=generator)
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, :32] = True
    together = attention.key_attention(model, queries, queries[0], mask)
    assert together.shape == (3, 1, 2, 2)
    assert (together >= 0).all()
    for number in range(3):
        alone = attention.key_attention(model, queries[number : number + 1], queries[0], mask)
        torch.testing.assert_close(alone, together[number : number + 1], rtol=1e-4, atol=1e-6)
