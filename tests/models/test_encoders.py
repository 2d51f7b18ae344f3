import pytest
import torch
import torchvision
from torch import nn

from previts.models import encoders
from previts.models.encoders import build_encoder
from previts.models.heads import build_head
from previts.models.norm import GroupedBatchNorm


@pytest.mark.parametrize("kind", ["resnet18", "resnet50"])
def test_the_encoder_is_torchvisions_without_the_classifier(kind):
    encoder, oracle = build_encoder(kind).double().eval(), getattr(torchvision.models, kind)().double().eval()
    loaded = oracle.load_state_dict(encoder.state_dict(), strict=False)
    assert sorted(loaded.missing_keys) == ["fc.bias", "fc.weight"]
    assert not loaded.unexpected_keys
    oracle.fc = nn.Identity()
    images = torch.randn(2, 3, 64, 64).double()  # the two lay images out in other ways: rounding differs
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), oracle(images))
        maps = encoder.features(images)
        assert maps.shape == (2, encoder.channels, 2, 2)
        torch.testing.assert_close(maps.mean((2, 3)), encoder(images))


def test_encoders_are_built_by_name():
    clips, images = torch.randn(1, 3, 8, 32, 32), torch.randn(1, 3, 32, 32)
    for kind, channels, seen in (("resnet18", 512, images), ("resnet50", 2048, images), ("s3dg", 1024, clips)):
        encoder = encoders.build_encoder(kind, group_size=2).eval()
        assert {module.group_size for module in encoder.modules() if isinstance(module, GroupedBatchNorm)} == {2}
        with torch.no_grad():
            assert encoder(seen).shape == (1, channels) == (1, encoder.channels)
    assert encoders.build_encoder("s3dg", width=0.25).channels == 256


def test_a_resnet_has_one_width():
    with pytest.raises(ValueError, match=r"only s3dg has a width, got kind = 'resnet18', width = 0.5"):
        encoders.build_encoder("resnet18", width=0.5)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_pull_back_is_the_gradient(kind):
    torch.manual_seed(0)
    head = build_head(kind, 16, 4).double()
    pooled, direction = torch.randn(3, 16).double().requires_grad_(), torch.randn(3, 4).double()
    (expected,) = torch.autograd.grad((head(pooled) * direction).sum(), pooled)
    torch.testing.assert_close(head.pull_back(pooled, direction), expected, rtol=1e-13, atol=1e-14)
