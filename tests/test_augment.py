import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as oracle

from previts import augment
from previts.experiment import AugmentConfig

CONFIG = AugmentConfig(size=32)
QUIET = replace(CONFIG, flip_probability=0, grey_probability=0, jitter_probability=0, blur_probability=0)


def images(number=4, frames=1):
    torch.manual_seed(0)
    return torch.rand(number, frames, 3, 24, 20)


def pictures(number=4, frames=1, size=24, seed=0):
    """Random I420 pictures, and colour matrices by their H.264 codes."""
    generator = torch.Generator().manual_seed(seed)
    clips = torch.randint(0, 256, (number, frames, size * 3 // 2, size), dtype=torch.uint8, generator=generator)
    return clips, torch.tensor([1, 6, 5, 2, 9, 7, 4])[torch.arange(number) % 7]


@pytest.mark.parametrize(
    ("ours", "theirs", "amounts"),
    [
        (augment.brighten, oracle.adjust_brightness, [0.6, 0.9, 1.2, 1.4]),
        (augment.change_contrast, oracle.adjust_contrast, [0.6, 0.9, 1.2, 1.4]),
        (augment.saturate, oracle.adjust_saturation, [0.6, 0.9, 1.2, 1.4]),
        (augment.turn_hue, oracle.adjust_hue, [-0.4, -0.1, 0.2, 0.4]),
    ],
)
def test_colour_changes_are_those_of_torchvision(ours, theirs, amounts):
    clips = images()
    expected = torch.stack([theirs(clip, amount) for clip, amount in zip(clips, amounts, strict=True)])
    torch.testing.assert_close(ours(clips, torch.tensor(amounts)), expected, rtol=1e-4, atol=1e-5)


def test_hue_of_greys_and_pure_colours():
    colours = torch.tensor(
        [[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float32
    )
    clips = colours.view(6, 1, 3, 1, 1)
    turned = augment.turn_hue(clips, torch.full((6,), 1 / 3)).view(6, 3)
    torch.testing.assert_close(turned, colours[[0, 1, 2, 4, 5, 3]])


def test_blur_is_that_of_torchvision():
    clips, sigmas = images(), [0.3, 0.9, 1.5, 2.0]
    expected = []
    for clip, sigma in zip(clips, sigmas, strict=True):
        size = 2 * int(np.ceil(3 * sigma)) + 1
        expected.append(oracle.gaussian_blur(clip, [size, size], [sigma, sigma]))
    blurred = augment.blur(clips, torch.tensor(sigmas), reach=6)
    torch.testing.assert_close(blurred, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_the_whole_chain_is_its_steps_in_the_drawn_order():
    config = replace(CONFIG, jitter_probability=1.0, grey_probability=0.5, blur_probability=0.5, flip_probability=0.5)
    draws = torch.stack([torch.from_numpy(augment.draw(config, np.random.default_rng(n))) for n in range(24)])
    clips, matrices = pictures(24)
    made, _ = augment.augment(clips, matrices, torch.ones(24, 1, 24, 24, dtype=torch.bool), draws)
    changes = (oracle.adjust_brightness, oracle.adjust_contrast, oracle.adjust_saturation, oracle.adjust_hue)
    orders = list(itertools.permutations(range(4)))
    for clip, draw, result in zip(augment.to_rgb(clips, matrices), draws.tolist(), made, strict=True):
        flip, *amounts, order, grey, sigma = draw
        for change in orders[int(order)]:
            clip = changes[change](clip, amounts[change])
        if grey:
            clip = oracle.rgb_to_grayscale(clip, num_output_channels=3)
        if sigma:
            size = 2 * int(np.ceil(3 * sigma)) + 1
            clip = oracle.gaussian_blur(clip, [size, size], [sigma, sigma])
        clip = oracle.normalize(clip, list(augment.MEAN), list(augment.STD))
        expected = clip.flip(-1) if flip else clip
        torch.testing.assert_close(result, expected, rtol=1e-3, atol=2e-4)
    assert {bool(draw[0]) for draw in draws} == {True, False}


def test_without_transforms_only_the_normalisation_is_left():
    clips, matrices = pictures()
    masks = torch.rand(4, 1, 24, 24) > 0.5
    draws = torch.stack([torch.from_numpy(augment.draw(QUIET, np.random.default_rng(n))) for n in range(4)])
    made, made_masks = augment.augment(clips, matrices, masks, draws)
    mean, std = torch.tensor(augment.MEAN).view(3, 1, 1), torch.tensor(augment.STD).view(3, 1, 1)
    torch.testing.assert_close(made * std + mean, augment.to_rgb(clips, matrices))
    assert torch.equal(made_masks, masks)


def test_masks_are_flipped_with_their_clips():
    config = replace(QUIET, flip_probability=0.5)
    draws = torch.stack([torch.from_numpy(augment.draw(config, np.random.default_rng(n))) for n in range(16)])
    masks = torch.rand(16, 3, 24, 24) > 0.5
    clips = torch.full((16, 3, 36, 24), 128, dtype=torch.uint8)
    clips[:, :, :24] = torch.where(masks, 235, 16)
    made, made_masks = augment.augment(clips, torch.ones(16, dtype=torch.int64), masks, draws)
    assert torch.equal(made[:, :, 0] > 0, made_masks)
    flipped = torch.tensor([not torch.equal(a, b) for a, b in zip(masks, made_masks, strict=True)])
    assert torch.equal(flipped, draws[:, 0] > 0)
    assert 0 < flipped.sum() < 16


def test_a_clip_does_not_depend_on_its_batch():
    clips, matrices = pictures(6, frames=2)
    masks = torch.ones(6, 2, 24, 24, dtype=torch.bool)
    draws = torch.stack([torch.from_numpy(augment.draw(CONFIG, np.random.default_rng(n))) for n in range(6)])
    together, _ = augment.augment(clips, matrices, masks, draws)
    for n in range(6):
        alone, _ = augment.augment(clips[n : n + 1], matrices[n : n + 1], masks[n : n + 1], draws[n : n + 1])
        torch.testing.assert_close(alone[0], together[n], rtol=1e-4, atol=1e-5)


def test_switching_one_transform_off_leaves_the_other_draws():
    on = augment.draw(replace(CONFIG, blur_probability=1.0), np.random.default_rng(3))
    off = augment.draw(replace(CONFIG, blur_probability=0.0), np.random.default_rng(3))
    assert on[-1] > 0
    assert off[-1] == 0
    assert np.array_equal(on[:-1], off[:-1])


def test_draws_follow_their_probabilities_and_ranges():
    draws = np.stack([augment.draw(CONFIG, np.random.default_rng(n)) for n in range(4000)])
    assert abs((draws[:, 0] > 0).mean() - 0.5) < 0.04
    assert abs((draws[:, 6] > 0).mean() - 0.2) < 0.03
    assert abs((draws[:, 7] > 0).mean() - 0.5) < 0.04
    assert draws[:, 1:4].min() >= 0.6 - 1e-6
    assert draws[:, 1:4].max() <= 1.4 + 1e-6
    assert np.abs(draws[:, 4]).max() <= 0.4
    assert set(draws[:, 5]) == set(range(24))
