import pytest
import torch
import torchvision
from torch import nn

from previts.models.heads import build_head
from previts.models.resnet import GroupedBatchNorm2d, build_encoder


@pytest.mark.parametrize("kind", ["resnet18", "resnet50"])
def test_the_encoder_is_torchvisions_without_the_classifier(kind):
    encoder, oracle = build_encoder(kind).eval(), getattr(torchvision.models, kind)().eval()
    loaded = oracle.load_state_dict(encoder.state_dict(), strict=False)
    assert sorted(loaded.missing_keys) == ["fc.bias", "fc.weight"]
    assert not loaded.unexpected_keys
    oracle.fc = nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), oracle(images))
        maps = encoder.features(images)
        assert maps.shape == (2, encoder.channels, 2, 2)
        torch.testing.assert_close(maps.mean((2, 3)), encoder(images))


def test_groups_are_normalised_like_batches_of_their_own():
    torch.manual_seed(0)
    grouped = GroupedBatchNorm2d(5, group_size=4)
    nn.init.normal_(grouped.weight)
    nn.init.normal_(grouped.bias)
    images = torch.randn(12, 5, 6, 6) * torch.arange(1, 13).view(-1, 1, 1, 1)
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    outputs, means, variances = [], [], []
    for group in theirs.split(4):
        alone = nn.BatchNorm2d(5)
        alone.weight, alone.bias = grouped.weight, grouped.bias
        outputs.append(alone(group))
        means.append(alone.running_mean)
        variances.append(alone.running_var)
    expected = torch.cat(outputs)
    made = grouped(ours)
    torch.testing.assert_close(made, expected)
    weights = torch.randn_like(made)
    (made * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grouped.running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(grouped.running_var, torch.stack(variances).mean(0))
    assert grouped.num_batches_tracked == 1


def test_groups_leave_inference_alone():
    norm = GroupedBatchNorm2d(3, group_size=2)
    norm(torch.randn(6, 3, 4, 4) * 3 + 1)
    oracle = nn.BatchNorm2d(3)
    oracle.load_state_dict(norm.state_dict())
    images = torch.randn(5, 3, 4, 4)
    torch.testing.assert_close(norm.eval()(images), oracle.eval()(images))


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_pull_back_is_the_gradient(kind):
    torch.manual_seed(0)
    head = build_head(kind, 16, 4).double()
    pooled, direction = torch.randn(3, 16).double().requires_grad_(), torch.randn(3, 4).double()
    (expected,) = torch.autograd.grad((head(pooled) * direction).sum(), pooled)
    torch.testing.assert_close(head.pull_back(pooled, direction), expected, rtol=1e-13, atol=1e-14)
