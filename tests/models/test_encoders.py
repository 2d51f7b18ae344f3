import pytest
import torch

from previts.models import encoders
from previts.models.norm import GroupedBatchNorm


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


@pytest.mark.parametrize(("kind", "frames"), [("resnet18", 1), ("s3dg", 16)])
def test_last_maps_have_time_and_pool_to_the_features(kind, frames):
    torch.manual_seed(0)
    encoder = encoders.build_encoder(kind).eval()
    clips = torch.randn(2, 3, frames, 64, 64)
    with torch.no_grad():
        maps = encoders.last_maps(encoder, clips)
        pooled = encoder(clips if kind == "s3dg" else clips[:, :, 0])
    assert maps.shape == (2, encoder.channels, max(1, frames // 8), 2, 2)
    torch.testing.assert_close(maps.mean((2, 3, 4)), pooled, rtol=1e-4, atol=1e-5)


def test_an_image_encoder_takes_single_frames_only():
    with pytest.raises(AssertionError, match="single frames"):
        encoders.last_maps(encoders.build_encoder("resnet18"), torch.randn(1, 3, 2, 32, 32))
