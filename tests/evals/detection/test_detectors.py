"""Oracles: the encoder's own maps, the numbers of detectron2, linear functions."""

import math

import pytest
import torch
from torch import nn

from previts.config.evaluation import DetectionConfig
from previts.evals.detection import detectors
from previts.models.encoders import build_encoder
from previts.models.norm import GroupedBatchNorm

SMALL = DetectionConfig(proposals=8, regions=8, cells=4)


@pytest.fixture(params=["resnet18", "resnet50"])
def encoder(request: pytest.FixtureRequest) -> nn.Module:
    """An encoder that normalises in groups, with statistics of its own."""
    torch.manual_seed(1)
    encoder = build_encoder(request.param, group_size=2)
    encoder(torch.randn(4, 3, 64, 64))
    return encoder.eval()


def test_c4_starts_from_the_encoder_and_does_not_change_it(encoder: nn.Module):
    detector = detectors.c4(encoder, 5, SMALL).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        maps = detector.backbone(images)
        assert maps.shape == (2, encoder.channels // 2, 4, 6)  # stride 16
        assert torch.allclose(detector.roi_heads.box_head.layer4(maps), encoder.features(images), atol=1e-5)
    mine = detector.state_dict()
    for name, value in encoder.state_dict().items():
        prefix = "roi_heads.box_head." if name.startswith("layer4") else "backbone."
        assert torch.equal(mine[prefix + name], value)
        assert mine[prefix + name].data_ptr() != value.data_ptr()
    assert not any(isinstance(module, GroupedBatchNorm) for module in detector.modules())
    assert all(parameter.requires_grad for parameter in detector.parameters())
    # The one normalisation that the encoder does not have comes after layer4.
    own = sum(isinstance(module, GroupedBatchNorm) for module in encoder.modules())
    assert len(list(detectors.normalisations(detector))) == own + 1


def test_fpn_starts_from_the_encoder(encoder: nn.Module):
    detector = detectors.fpn(encoder, 5, SMALL).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert torch.allclose(detector.backbone.body(images)["3"], encoder.features(images), atol=1e-5)
        sides = [tuple(maps.shape[2:]) for maps in detector.backbone(images).values()]
    assert sides == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    own = sum(isinstance(module, GroupedBatchNorm) for module in encoder.modules())
    assert len(list(detectors.normalisations(detector))) == own + 8  # two for each level of the pyramid


def test_paper_sizes_are_those_of_detectron2():
    detector = detectors.c4(build_encoder("resnet18"), 20, DetectionConfig())
    assert (detector.rpn._pre_nms_top_n, detector.rpn._post_nms_top_n) == (
        {"training": 12000, "testing": 6000}, {"training": 2000, "testing": 1000},
    )  # fmt: skip
    assert detector.roi_heads.box_roi_pool.output_size == (14, 14)
    detector = detectors.fpn(build_encoder("resnet18"), 80, DetectionConfig())
    assert (detector.rpn._pre_nms_top_n, detector.rpn._post_nms_top_n) == (
        {"training": 2000, "testing": 1000}, {"training": 1000, "testing": 1000},
    )  # fmt: skip
    assert detector.roi_heads.detections_per_img == 100


def test_weights_decay_except_those_of_normalisation():
    detector = detectors.c4(build_encoder("resnet18"), 5, SMALL)
    decaying, still = detectors.parameter_groups(detector, 1e-4)
    assert (decaying["weight_decay"], still["weight_decay"]) == (1e-4, 0)
    assert len(decaying["params"]) + len(still["params"]) == len(list(detector.parameters()))
    assert len(still["params"]) == 2 * len(list(detectors.normalisations(detector)))


def test_the_map_of_a_region_is_exact_on_a_linear_function():
    """Bilinear sampling of a linear function is that function: at the middle of each cell, in pixels of the image."""
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    slope = torch.stack([(x + 0.5) * 16, (y + 0.5) * 16])[None]  # the place of each cell's middle
    pooled = detectors.AlignedPool((16,), 4)({"0": slope}, [torch.tensor([[40.0, 60.0, 140.0, 200.0]])], [(320, 480)])
    middles = (torch.arange(4) + 0.5) / 4
    assert torch.allclose(pooled[0, 0], (40 + 100 * middles).expand(4, 4), atol=1e-3)
    assert torch.allclose(pooled[0, 1], (60 + 140 * middles)[:, None].expand(4, 4), atol=1e-3)


def test_large_regions_use_coarse_maps():
    maps = {str(n): torch.full((2, 1, 256 >> n, 256 >> n), float(n), requires_grad=True) for n in range(4)}
    sides = [10, 111, 112, 223, 224, 447, 448, 1000]
    regions = torch.tensor([[0.0, 0.0, side, side] for side in sides])
    pooled = detectors.AlignedPool((4, 8, 16, 32), 2)(maps, [regions, regions[:3]], [])
    expected = [min(3, max(0, math.floor(4 + math.log2(side / 224)) - 2)) for side in sides]
    assert pooled.mean(dim=(1, 2, 3)).tolist() == [*expected, *expected[:3]]
    pooled.sum().backward()
    assert all(features.grad is not None and features.grad.abs().sum() > 0 for features in maps.values())


def test_reset_statistics_are_the_mean_over_the_batches():
    norm = nn.BatchNorm2d(3).train()
    norm(torch.randn(4, 3, 5, 5) + 9)
    detectors.forget_statistics(norm)
    batches = torch.randn(5, 4, 3, 6, 6) * 2 + 1
    for batch in batches:
        norm(batch)
    assert torch.allclose(norm.running_mean, batches.mean(dim=(1, 3, 4)).mean(0), atol=1e-6)
    assert torch.allclose(norm.running_var, batches.transpose(1, 2).flatten(2).var(dim=2).mean(0), atol=1e-5)
