import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from pycocotools import mask as run_lengths
from torch import nn

from previts.config.evaluation import DetectionConfig
from previts.errors import InputError
from previts.evals.detection import detector_inputs, detectors
from previts.evals.detection.object_sets import AnnotatedImage
from previts.evals.detection.scores import Objects
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


def test_c4_starts_from_the_encoder_and_leaves_it_alone(encoder: nn.Module):
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


def test_weights_decay_but_not_those_of_normalisation():
    detector = detectors.c4(build_encoder("resnet18"), 5, SMALL)
    decaying, still = detectors.parameter_groups(detector, 1e-4)
    assert (decaying["weight_decay"], still["weight_decay"]) == (1e-4, 0)
    assert len(decaying["params"]) + len(still["params"]) == len(list(detector.parameters()))
    assert len(still["params"]) == 2 * len(list(detectors.normalisations(detector)))


def test_a_regions_map_is_exact_on_a_slope():
    """Bilinear sampling of a linear function is that function: at the middle of each cell, in pixels of the image."""
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    slope = torch.stack([(x + 0.5) * 16, (y + 0.5) * 16])[None]  # the place of each cell's middle
    pooled = detectors.AlignedPool((16,), 4)({"0": slope}, [torch.tensor([[40.0, 60.0, 140.0, 200.0]])], [(320, 480)])
    middles = (torch.arange(4) + 0.5) / 4
    assert torch.allclose(pooled[0, 0], (40 + 100 * middles).expand(4, 4), atol=1e-3)
    assert torch.allclose(pooled[0, 1], (60 + 140 * middles)[:, None].expand(4, 4), atol=1e-3)


def test_large_regions_are_looked_up_on_coarse_maps():
    maps = {str(n): torch.full((2, 1, 256 >> n, 256 >> n), float(n), requires_grad=True) for n in range(4)}
    sides = [10, 111, 112, 223, 224, 447, 448, 1000]
    regions = torch.tensor([[0.0, 0.0, side, side] for side in sides])
    pooled = detectors.AlignedPool((4, 8, 16, 32), 2)(maps, [regions, regions[:3]], [])
    expected = [min(3, max(0, math.floor(4 + math.log2(side / 224)) - 2)) for side in sides]
    assert pooled.mean(dim=(1, 2, 3)).tolist() == [*expected, *expected[:3]]
    pooled.sum().backward()
    assert all(features.grad is not None and features.grad.abs().sum() > 0 for features in maps.values())


def test_renewed_statistics_are_the_mean_over_the_batches():
    norm = nn.BatchNorm2d(3).train()
    norm(torch.randn(4, 3, 5, 5) + 9)
    detectors.forget_statistics(norm)
    batches = torch.randn(5, 4, 3, 6, 6) * 2 + 1
    for batch in batches:
        norm(batch)
    assert torch.allclose(norm.running_mean, batches.mean(dim=(1, 3, 4)).mean(0), atol=1e-6)
    assert torch.allclose(norm.running_var, batches.transpose(1, 2).flatten(2).var(dim=2).mean(0), atol=1e-5)


def rectangle(path: Path, size: tuple[int, int], box: tuple[int, int, int, int]) -> AnnotatedImage:
    image = Image.new("RGB", size)
    ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill="white")
    image.save(path)
    x0, y0, x1, y1 = box
    polygon = [[x0, y0, x1, y0, x1, y1, x0, y1]]
    objects = Objects(np.array([box], np.float64), np.array([1]), np.array([False]))
    return AnnotatedImage(str(path), size, objects, (polygon,))


def bounds(mask: torch.Tensor) -> list[float]:
    y, x = torch.where(mask)
    return [float(x.min()), float(y.min()), float(x.max()) + 1, float(y.max()) + 1]


def test_boxes_and_masks_go_with_the_image(tmp_path: Path):
    annotated = rectangle(tmp_path / "a.png", (150, 100), (20, 30, 70, 90))
    drawn_samples = set()
    for seed in range(12):
        image, target = detector_inputs.training_sample(
            annotated, (64, 128), np.random.default_rng(seed), masks=True
        )  # fmt: skip
        again, _ = detector_inputs.training_sample(annotated, (64, 128), np.random.default_rng(seed), masks=True)
        assert torch.equal(image, again)
        side = min(image.shape[1:])
        assert image.shape[2] == round(side * 1.5)
        box = target["boxes"][0].tolist()
        assert bounds(image[0] > 127) == pytest.approx(box, abs=0.8)
        assert bounds(target["masks"][0] > 0) == pytest.approx(box, abs=0.8)
        mirrored = box[0] > image.shape[2] / 3
        drawn_samples.add((side, mirrored))
    assert {side for side, _ in drawn_samples} == {64, 96, 128}
    assert {mirrored for _, mirrored in drawn_samples} == {False, True}


def test_sizes_keep_the_shape_and_the_longest_side():
    assert detector_inputs.fitted((500, 375), 800) == (1067, 800)
    assert detector_inputs.fitted((375, 500), 600) == (600, 800)
    assert detector_inputs.fitted((1000, 300), 800) == (1333, 400)


def test_run_lengths_are_drawn_as_polygons_are(tmp_path: Path):
    annotated = rectangle(tmp_path / "a.png", (150, 100), (20, 30, 70, 90))
    mask = np.zeros((100, 150), np.uint8)
    mask[30:90, 20:70] = 1
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    drawn = detector_inputs.shape_mask(annotated.shapes[0], annotated.size, (300, 200), "a.png")
    for shape in ({"size": [100, 150], "counts": counts}, run_lengths.encode(np.asfortranarray(mask))):
        resized = detector_inputs.shape_mask(shape, annotated.size, (300, 200), "a.png")
        assert (drawn == resized).mean() > 0.99
    with pytest.raises(InputError, match=r"a segmentation of a\.png is neither"):
        detector_inputs.shape_mask({"size": [100, 150]}, annotated.size, (300, 200), "a.png")


def test_detections_return_to_the_pixels_of_the_image(tmp_path: Path):
    annotated = rectangle(tmp_path / "a.png", (150, 100), (20, 30, 70, 90))
    detected = {
        "boxes": torch.tensor([[40.0, 60.0, 140.0, 180.0]]),
        "labels": torch.tensor([1]),
        "scores": torch.tensor([0.7]),
        "masks": torch.ones(1, 1, 28, 28),
    }
    found = detector_inputs.detections_in(annotated, detected, (300, 200))
    assert found.boxes.tolist() == [[20, 30, 70, 90]]
    mask = torch.from_numpy(run_lengths.decode(found.masks[0]))
    assert bounds(mask > 0) == pytest.approx([20, 30, 70, 90], abs=1.5)
    sheet = detector_inputs.contact_sheet([annotated], [found], ["thing"])
    assert sheet.startswith(b"\x89PNG")
