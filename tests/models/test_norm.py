import pytest
import torch
from torch import nn

from previts.models.norm import GroupedBatchNorm

ORACLES = {4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def maps_of(dims, batch=12):
    """Maps whose samples differ in scale and offset, so that each group has its own statistics."""
    torch.manual_seed(0)
    shape = (batch, 5, 3, 4, 6) if dims == 5 else (batch, 5, 4, 6)
    scale = torch.arange(1, batch + 1).view(-1, *[1] * (dims - 1))
    return torch.randn(shape) * scale + scale


@pytest.mark.parametrize("dims", [4, 5])
@pytest.mark.parametrize("constants", [{}, {"eps": 0.5, "momentum": 0.3}])
@pytest.mark.parametrize("size", [1, 4])
def test_groups_are_normalised_like_batches_of_their_own(dims, constants, size):
    maps = maps_of(dims)
    grouped = GroupedBatchNorm(5, group_size=size, **constants)
    nn.init.normal_(grouped.weight)
    nn.init.normal_(grouped.bias)
    nn.init.normal_(grouped.running_mean)
    before = {name: value.clone() for name, value in grouped.named_buffers()}
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    outputs, alone = [], []
    for group in theirs.split(size):
        alone.append(ORACLES[dims](5, **constants))
        alone[-1].load_state_dict(before, strict=False)
        alone[-1].weight, alone[-1].bias = grouped.weight, grouped.bias
        outputs.append(alone[-1](group))
    expected, made = torch.cat(outputs), grouped(ours)
    torch.testing.assert_close(made, expected)
    weights = torch.randn_like(made)
    found = torch.autograd.grad((made * weights).sum(), (ours, grouped.weight, grouped.bias))
    wanted = torch.autograd.grad((expected * weights).sum(), (theirs, grouped.weight, grouped.bias))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grouped.running_mean, torch.stack([norm.running_mean for norm in alone]).mean(0))
    torch.testing.assert_close(grouped.running_var, torch.stack([norm.running_var for norm in alone]).mean(0))
    assert grouped.num_batches_tracked == 1


@pytest.mark.parametrize("dims", [4, 5])
@pytest.mark.parametrize("size", [None, 12])
def test_one_group_is_torchs_batch_norm(dims, size):
    grouped, oracle = GroupedBatchNorm(5, size, eps=0.01, momentum=0.2), ORACLES[dims](5, eps=0.01, momentum=0.2)
    torch.testing.assert_close(grouped(maps_of(dims)), oracle(maps_of(dims)))
    assert list(grouped.state_dict()) == list(oracle.state_dict())
    torch.testing.assert_close(grouped.state_dict(), oracle.state_dict())


@pytest.mark.parametrize("dims", [4, 5])
def test_groups_leave_inference_alone(dims):
    grouped = GroupedBatchNorm(5, group_size=2)
    grouped(maps_of(dims))
    oracle = ORACLES[dims](5)
    oracle.load_state_dict(grouped.state_dict())
    maps = maps_of(dims, batch=3)
    torch.testing.assert_close(grouped.eval()(maps), oracle.eval()(maps))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_the_memory_layout_is_kept(layout):
    maps = maps_of(5).contiguous(memory_format=layout)
    assert GroupedBatchNorm(5, group_size=4)(maps).is_contiguous(memory_format=layout)


def test_a_batch_that_is_no_multiple_of_the_groups_is_refused():
    grouped = GroupedBatchNorm(5, group_size=5)
    with pytest.raises(ValueError, match=r"len\(maps\) = 12, self.group_size = 5"):
        grouped(maps_of(4))


@pytest.mark.parametrize("size", [None, 2])
def test_vectors_are_refused(size):
    with pytest.raises(ValueError, match="BCHW or BCTHW"):
        GroupedBatchNorm(5, size)(torch.randn(4, 5))
