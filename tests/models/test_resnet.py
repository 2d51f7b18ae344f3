import pytest
import torch
import torchvision
from torch import nn

from previts.models.encoders import build_encoder


@pytest.mark.parametrize("kind", ["resnet18", "resnet50"])
def test_the_encoder_is_torchvisions_without_the_classifier(kind):
    encoder, oracle = build_encoder(kind).double().eval(), getattr(torchvision.models, kind)().double().eval()
    loaded = oracle.load_state_dict(encoder.state_dict(), strict=False)
    assert sorted(loaded.missing_keys) == ["fc.bias", "fc.weight"]
    assert not loaded.unexpected_keys
    oracle.fc = nn.Identity()
    images = torch.randn(2, 3, 64, 64).double()  # the two have other memory layouts: rounding differs
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), oracle(images))
        maps = encoder.features(images)
        assert maps.shape == (2, encoder.channels, 2, 2)
        torch.testing.assert_close(maps.mean((2, 3)), encoder(images))
