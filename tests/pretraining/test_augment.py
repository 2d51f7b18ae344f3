import itertools
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as oracle

from previts.config.experiment import AugmentConfig
from previts.config.perception import VideoConfig
from previts.media import frame_decoder, normalisation
from previts.models import pixels
from previts.pretraining import augment, crop_cutting

CONFIG = AugmentConfig(size=32)
QUIET = replace(CONFIG, flip_probability=0, grey_probability=0, jitter_probability=0, blur_probability=0)


def images(number=4, frames=1):
    torch.manual_seed(0)
    return torch.rand(number, frames, 3, 24, 20)


def i420_clips(number=4, frames=1, size=24, seed=0):
    """Random clips as I420, and the H.264 codes of their colour matrices."""
    generator = torch.Generator().manual_seed(seed)
    clips = torch.randint(0, 256, (number, frames, size * 3 // 2, size), dtype=torch.uint8, generator=generator)
    return clips, torch.tensor([1, 6, 5, 2, 9, 7, 4])[torch.arange(number) % 7]


@pytest.mark.parametrize(
    ("ours", "theirs", "amounts"),
    [
        (augment.adjust_brightness, oracle.adjust_brightness, [0.6, 0.9, 1.2, 1.4]),
        (augment.adjust_contrast, oracle.adjust_contrast, [0.6, 0.9, 1.2, 1.4]),
        (augment.adjust_saturation, oracle.adjust_saturation, [0.6, 0.9, 1.2, 1.4]),
        (augment.adjust_hue, oracle.adjust_hue, [-0.4, -0.1, 0.2, 0.4]),
    ],
)
def test_colour_changes_are_those_of_torchvision(ours, theirs, amounts):
    clips = images()
    expected = torch.stack([theirs(clip, amount) for clip, amount in zip(clips, amounts, strict=True)])
    torch.testing.assert_close(ours(clips, torch.tensor(amounts)), expected, rtol=1e-4, atol=1e-5)


def test_colours_are_those_of_the_standard():
    # ITU-T H.273: E'Y = (Y - 16) / 219, E'PB = (Cb - 128) / 224, and R = Y + 2 (1 - KR) PR, B = Y + 2 (1 - KB) PB,
    # Y = KR R + KG G + KB B.
    weights = {1: (0.2126, 0.0722), 4: (0.3, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087)}
    generator = np.random.default_rng(0)
    for code, (kr, kb) in {**weights, 9: (0.2627, 0.0593), 2: (0.299, 0.114)}.items():
        y, cb, cr = (int(value) for value in generator.integers(60, 180, 3))
        clip = torch.tensor([[y] * 64 + [cb] * 16 + [cr] * 16], dtype=torch.uint8).view(1, 1, 12, 8)
        light, blue, red = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
        r, b = light + 2 * (1 - kr) * red, light + 2 * (1 - kb) * blue
        expected = np.clip([r, (light - kr * r - kb * b) / (1 - kr - kb), b], 0, 1)
        both = augment.to_rgb(clip.repeat(2, 3, 1, 1), torch.tensor([code, 1]))
        np.testing.assert_allclose(both[0].reshape(3, 3, 64).mean((0, 2)), expected, atol=1e-5)


def test_chroma_is_upsampled_around_its_centres():
    clip = torch.full((1, 1, 12, 8), 128, dtype=torch.uint8)
    clip[0, 0, 8:10] = torch.tensor([96, 112, 144, 160], dtype=torch.uint8).repeat(2, 2)  # Cb, equal in all rows
    blue = augment.to_rgb(clip, torch.tensor([6]))[0, 0, 2, 0]
    expected = np.interp((np.arange(8) - 0.5) / 2, range(4), [96, 112, 144, 160])
    np.testing.assert_allclose(blue, 112 / 219 + 2 * (1 - 0.114) * (expected - 128) / 224, atol=1e-5)


@pytest.mark.parametrize("matrix", [1, 5])
def test_colours_are_those_of_the_decoder(tmp_path, matrix):
    generator = np.random.default_rng(matrix)
    small = generator.integers(60, 200, (4, 4, 3), dtype=np.uint8)
    image = cv2.resize(small, (64, 64), interpolation=cv2.INTER_CUBIC)
    source, target = tmp_path / "source.mp4", str(tmp_path / "clip.mp4")
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 1
        for _ in range(4):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p", dst_colorspace=matrix)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    info = normalisation.normalise(str(source), target, VideoConfig(crf=10), None, None)
    data = (tmp_path / "clip.mp4").read_bytes()[info.gop_offsets[0] : info.gop_offsets[-1]]
    (planes,) = frame_decoder.decode_planes(data, info.header, [2])
    assert planes.matrix == {1: 1, 5: 6}[matrix]
    image_RS = np.empty((96, 64), np.uint8)
    crop_cutting.crop_frame(planes, (0, 0, 64, 64), image_RS)
    clip = torch.from_numpy(image_RS)[None, None]
    ours, wrong = (
        augment.to_rgb(clip, torch.tensor([code]))[0, 0] * 255 for code in (planes.matrix, 7 - planes.matrix)
    )
    theirs = frame_decoder.decode_gops(data, info.header, [2])[0].transpose(2, 0, 1).astype(np.float32)
    assert np.abs(ours.numpy() - theirs).mean() < 2
    assert np.abs(wrong.numpy() - theirs).mean() > 3


def test_hue_of_greys_and_pure_colours():
    colours = torch.tensor(
        [[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float32
    )
    clips = colours.view(6, 1, 3, 1, 1)
    turned = augment.adjust_hue(clips, torch.full((6,), 1 / 3)).view(6, 3)
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
    clips, matrices = i420_clips(24)
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
        clip = oracle.normalize(clip, list(pixels.MEAN), list(pixels.STD))
        expected = clip.flip(-1) if flip else clip
        torch.testing.assert_close(result, expected, rtol=1e-3, atol=2e-4)
    assert {bool(draw[0]) for draw in draws} == {True, False}


def test_without_transforms_clips_are_only_normalised():
    clips, matrices = i420_clips()
    masks = torch.rand(4, 1, 24, 24) > 0.5
    draws = torch.stack([torch.from_numpy(augment.draw(QUIET, np.random.default_rng(n))) for n in range(4)])
    made, made_masks = augment.augment(clips, matrices, masks, draws)
    mean, std = torch.tensor(pixels.MEAN).view(3, 1, 1), torch.tensor(pixels.STD).view(3, 1, 1)
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
    clips, matrices = i420_clips(6, frames=2)
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
