"""Saliency network. Oracles: parameter counts in closed form, torch's resize, loops over pixels, ResNets."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.models import resnet18, resnet50

from previts.saliency.network import STRIDE, SaliencyNetwork, encode, load_weights


def trunk_parameters(network):
    return sum(value.numel() for name, value in network.named_parameters() if not name.startswith(("seg.", "up.")))


def conv_bn(before, after, kernel):
    return before * after * kernel * kernel + 2 * after


def counted(bottleneck, depths):
    total = conv_bn(3, 16, 7) + conv_bn(16, 16, 3) + conv_bn(16, 32, 3)
    before = 32
    for planes, depth in zip((64, 128, 256, 512), depths, strict=True):
        after = planes * (4 if bottleneck else 1)
        total += conv_bn(before, after, 1)  # each level starts with a convolution in the shortcut
        for _ in range(depth):
            total += (
                conv_bn(before, planes, 1) + conv_bn(planes, planes, 3) + conv_bn(planes, after, 1)
                if bottleneck
                else conv_bn(before, planes, 3) + conv_bn(planes, planes, 3)
            )
            before = after
    return total + conv_bn(before, 512, 3) + conv_bn(512, 512, 3)


def test_the_trunks_have_the_published_sizes():
    assert trunk_parameters(SaliencyNetwork("drn_d_105")) == counted(True, (3, 4, 23, 3)) == 54_288_304
    assert trunk_parameters(SaliencyNetwork("drn_d_22")) == counted(False, (2, 2, 2, 2)) == 15_880_752


def test_the_last_map_has_one_cell_per_eight_pixels():
    network = SaliencyNetwork("drn_d_22", 0.25).eval()
    with torch.inference_mode():
        assert network.trunk(torch.zeros(2, 3, 64, 96)).shape == (2, 128, 8, 12)
        assert network(torch.zeros(2, 3, 64, 96)).shape == (2, 64, 96)
    with pytest.raises(ValueError, match="multiples of 8"):
        network(torch.zeros(1, 3, 60, 96))


def test_upsampling_is_bilinear():
    network = SaliencyNetwork("drn_d_22", 0.25)
    logits = torch.randn(1, 2, 6, 7)
    inside = slice(STRIDE // 2, -STRIDE // 2)  # at the edges the transposed convolution sees zeros
    expected = F.interpolate(logits, scale_factor=STRIDE, mode="bilinear", align_corners=False)
    torch.testing.assert_close(network.up(logits)[..., inside, inside], expected[..., inside, inside])
    assert not network.up.weight.requires_grad


def test_every_trained_parameter_has_a_gradient():
    for kind in ("drn_d_22", "drn_d_105"):
        network = SaliencyNetwork(kind, 0.125, "contrast").train()
        network(torch.randn(2, 10, 32, 32)).square().mean().backward()
        assert all(value.grad is not None for value in network.parameters() if value.requires_grad)


def test_contrast_inputs_equal_loops_over_pixels():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    found = encode(torch.from_numpy(image)[None], "contrast")[0].numpy()
    assert found.shape == (10, 20, 30)
    r, g, b = (image[..., channel] / 255 for channel in range(3))
    brightness = 0.299 * r + 0.587 * g + 0.114 * b
    blue, red = (b - brightness) * 0.564 * 2, (r - brightness) * 0.713 * 2  # BT.601, with twice the weight
    colour = np.stack([brightness, blue, red])
    borders = [colour[:, :2], colour[:, -2:], colour[:, :, :2], colour[:, :, -2:]]

    def distance(pixel, others):
        others = others.reshape(3, -1)
        inverse = np.linalg.inv(np.cov(others, bias=True) + 1e-3 * np.eye(3))
        difference = pixel - others.mean(axis=1)
        return np.log1p(np.sqrt(difference @ inverse @ difference))

    expected = np.zeros((5, 20, 30))
    for row in range(20):
        for column in range(30):
            pixel = colour[:, row, column]
            expected[:4, row, column] = sorted(distance(pixel, border) for border in borders)
            expected[4, row, column] = distance(pixel, colour)
    expected -= expected.mean(axis=(1, 2), keepdims=True)
    expected /= expected.std(axis=(1, 2), keepdims=True) + 0.05
    np.testing.assert_allclose(found[3:8], expected, atol=0.02)
    centred = colour - colour.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found[:3], centred / (centred.std() + 0.02), atol=0.01)
    np.testing.assert_allclose(found[8], np.repeat(np.linspace(-1, 1, 20)[:, None] ** 2, 30, axis=1), atol=1e-6)
    np.testing.assert_allclose(found[9], np.repeat(np.linspace(-1, 1, 30)[None] ** 2, 20, axis=0), atol=1e-6)


@pytest.mark.parametrize("inputs", ["rgb", "contrast"])
def test_a_mirrored_image_has_mirrored_inputs(inputs):
    image = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 24, 40, 3), dtype=np.uint8))
    torch.testing.assert_close(encode(image.flip(2), inputs), encode(image, inputs).flip(3), atol=1e-4, rtol=1e-4)
    assert image.dtype == torch.uint8


@pytest.mark.parametrize("level", [0, 255])
def test_an_even_image_has_finite_inputs(level):
    image = torch.full((1, 16, 16, 3), level, dtype=torch.uint8)
    for inputs in ("rgb", "contrast"):
        assert torch.isfinite(encode(image, inputs)).all()


def test_rgb_inputs_are_normalised_pixels():
    image = torch.tensor([[[[0, 128, 255]]]], dtype=torch.uint8)
    expected = torch.tensor([(0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    torch.testing.assert_close(encode(image, "rgb")[0, :, 0, 0], expected)


@pytest.mark.parametrize("style", ["own", "base"])
def test_weights_are_loaded_under_each_published_name(style):
    torch.manual_seed(1)
    source, target = SaliencyNetwork("drn_d_22"), SaliencyNetwork("drn_d_22")
    state = {name: value for name, value in source.state_dict().items() if not name.startswith(("seg.", "up."))}
    own = set(state)
    if style == "base":
        state = {name.replace("layer", "base.", 1): value for name, value in state.items()}
    state["seg.weight"] = torch.zeros(19, 512, 1, 1)  # of another number of classes
    classifier = target.seg.weight.detach().clone()
    assert load_weights(target, state) == len(own)
    for name in own:
        torch.testing.assert_close(target.state_dict()[name], source.state_dict()[name])
    torch.testing.assert_close(target.seg.weight, classifier)


@pytest.mark.parametrize(("kind", "build"), [("drn_d_22", resnet18), ("drn_d_105", resnet50)])
def test_the_levels_of_a_resnet_are_loaded(kind, build):
    torch.manual_seed(2)
    encoder = {name: value for name, value in build().state_dict().items() if not name.startswith("fc.")}
    network = SaliencyNetwork(kind)
    taken = load_weights(network, encoder)
    own = network.state_dict()
    torch.testing.assert_close(own["layer4.0.conv2.weight"], encoder["layer2.0.conv2.weight"])
    torch.testing.assert_close(own["layer6.1.bn1.weight"], encoder["layer4.1.bn1.weight"])
    in_levels = [name for name in encoder if name.startswith("layer")]
    assert len(in_levels) - 6 <= taken <= len(in_levels)  # the first block has another number of input channels


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="none of the 1 tensors fits"):
        load_weights(SaliencyNetwork("drn_d_22", 0.25), {"features.0.weight": torch.zeros(64, 3, 3, 3)})
    with pytest.raises(ValueError, match="none of"):
        load_weights(SaliencyNetwork("drn_d_22", 0.25), SaliencyNetwork("drn_d_22", 1.0).state_dict())
