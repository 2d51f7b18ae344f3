import pytest
import torch
from torch import nn
from torch.nn import functional as F

from previts.models.norm import GroupedBatchNorm
from previts.models.s3dg import S3DG, Inception, Separable


@pytest.fixture(scope="module")
def whole():
    torch.manual_seed(0)
    return S3DG().eval()


def settled(module):
    """The module in eval mode, with random statistics and affine parameters."""
    for norm in module.modules():
        if isinstance(norm, GroupedBatchNorm):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return module.eval()


def unit(maps, conv, norm, stride, padding):
    """Convolution, batch normalisation and ReLU by their formulas."""
    maps = F.conv3d(maps, conv.weight, stride=stride, padding=padding)
    column = (1, -1, 1, 1, 1)
    maps = (maps - norm.running_mean.view(column)) / (norm.running_var.view(column) + 0.001).sqrt()
    return (maps * norm.weight.view(column) + norm.bias.view(column)).clamp(min=0)


def separable(maps, module, kernel, stride):
    """A separable convolution with its gate, as in RSPNet's model."""
    side = kernel // 2
    maps = unit(maps, module.spatial.conv, module.spatial.norm, (stride,) * 3, (0, side, side))
    maps = unit(maps, module.temporal.conv, module.temporal.norm, 1, (side, 0, 0))
    pooled_BC = maps.flatten(2).mean(2)
    gate_BC = 1 / (1 + torch.exp(-(pooled_BC @ module.gate.weight[:, :, 0, 0, 0].T + module.gate.bias)))
    return maps * gate_BC[:, :, None, None, None]


def test_the_trunk_has_the_parameters_of_rspnets(whole):
    assert sum(parameter.numel() for parameter in whole.parameters()) == 8_675_744
    assert whole.channels == 1024


def test_a_clip_of_16_frames_at_224_pixels(whole):
    with torch.no_grad():
        assert whole.features(torch.randn(1, 3, 16, 224, 224)).shape == (1, 1024, 2, 7, 7)


@pytest.mark.parametrize(("frames", "steps"), [(8, 1), (16, 2), (32, 4), (64, 8)])
def test_time_is_divided_by_8_and_space_by_32(frames, steps):
    encoder = S3DG(width=1 / 16).eval()
    with torch.no_grad():
        maps = encoder.features(torch.randn(1, 3, frames, 112, 112))
        assert maps.shape == (1, encoder.channels, steps, 3, 3) == (1, 64, steps, 3, 3)


def test_each_layer_has_its_resolution_in_time_and_space():
    encoder, seen = S3DG(width=1 / 16).eval(), {}
    for name, layer in encoder.named_children():
        layer.register_forward_hook(lambda _, __, maps, name=name: seen.update({name: tuple(maps.shape[1:])}))
    with torch.no_grad():
        encoder.features(torch.randn(1, 3, 16, 64, 64))
    channels = {"3b": 256, "3c": 480, "4b": 512, "4c": 512, "4d": 512, "4e": 528, "4f": 832, "5b": 832, "5c": 1024}
    places = {"3": (8, 8, 8), "4": (4, 4, 4), "5": (2, 2, 2)}
    mixed = {f"mixed_{name}": (number // 16, *places[name[0]]) for name, number in channels.items()}
    first = {"conv_1a": (4, 8, 32, 32), "conv_2b": (4, 8, 16, 16), "conv_2c": (12, 8, 16, 16)}
    assert list(seen.items()) == list({**first, **mixed}.items())


@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1)])
def test_a_separable_convolution_is_gated_by_the_whole_clip(kernel, stride):
    torch.manual_seed(0)
    module = settled(Separable(3, 5, kernel, stride, group_size=None))
    maps = torch.randn(2, 3, 8, 12, 10)
    with torch.no_grad():
        torch.testing.assert_close(module(maps), separable(maps, module, kernel, stride), rtol=1e-4, atol=1e-5)


def test_an_inception_block_concatenates_its_four_branches():
    torch.manual_seed(0)
    module = settled(Inception(6, (2, 3, 4, 2, 3, 5), group_size=None))
    maps = torch.randn(2, 6, 4, 5, 5)
    with torch.no_grad():
        alone, reduced_a, reduced_b, pooled = (
            unit(seen, part.conv, part.norm, 1, 0)
            for seen, part in (
                (maps, module.alone),
                (maps, module.reduced_a),
                (maps, module.reduced_b),
                (F.max_pool3d(F.pad(maps, (1,) * 6, value=-torch.inf), 3, 1), module.pooled),
            )
        )
        wide_a, wide_b = separable(reduced_a, module.wide_a, 3, 1), separable(reduced_b, module.wide_b, 3, 1)
        expected = torch.cat([alone, wide_a, wide_b, pooled], 1)
        assert expected.shape[1] == module.channels == 14
        torch.testing.assert_close(module(maps), expected, rtol=1e-4, atol=1e-5)


def test_a_call_pools_the_maps_over_time_and_space():
    encoder, clips = S3DG(width=1 / 16).eval(), torch.randn(2, 3, 16, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(clips), encoder.features(clips).flatten(2).mean(2))


def test_a_quarter_of_the_width_is_a_quarter_of_every_layer(whole):
    small = S3DG(width=0.25).state_dict()
    assert list(small) == list(whole.state_dict())
    for name, value in whole.state_dict().items():
        # The first two axes are output and input channels; the three colours stay.
        expected = [size if axis > 1 or size == 3 else size // 4 for axis, size in enumerate(value.shape)]
        assert list(small[name].shape) == expected, name


def test_no_layer_is_left_without_channels():
    assert all(parameter.numel() for parameter in S3DG(width=0.001).parameters())


def test_statistics_move_slowly_and_by_groups():
    torch.manual_seed(0)
    encoder, clips = S3DG(width=1 / 16, group_size=2), torch.randn(4, 3, 8, 64, 64)
    encoder.features(clips)
    norms = [module for module in encoder.modules() if isinstance(module, GroupedBatchNorm)]
    assert {(norm.eps, norm.momentum, norm.group_size, int(norm.num_batches_tracked)) for norm in norms} == {
        (1e-3, 1e-3, 2, 1)
    }
    maps = encoder.conv_1a.spatial.conv(clips)
    variances = torch.stack([group.transpose(0, 1).flatten(1).var(1) for group in maps.split(2)])
    torch.testing.assert_close(encoder.conv_1a.spatial.norm.running_var, 0.999 + 0.001 * variances.mean(0))


def test_groups_of_clips_are_independent():
    torch.manual_seed(0)
    encoder, clips = S3DG(width=1 / 16, group_size=2), torch.randn(4, 3, 8, 64, 64)
    with torch.no_grad():
        together = encoder(clips)
        torch.testing.assert_close(together[:2], encoder(clips[:2]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together[2:], encoder(clips[2:]), rtol=1e-4, atol=1e-5)


def test_every_parameter_learns():
    torch.manual_seed(0)
    encoder = S3DG(width=1 / 16)
    encoder(torch.randn(2, 3, 16, 64, 64)).square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if not parameter.grad.any()] == []
