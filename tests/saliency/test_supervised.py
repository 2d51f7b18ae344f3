"""Supervised detector. Oracles: torchvision's forward pass on the same tensors, and counts of missing tensors."""

import functools

import numpy as np
import pytest
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.ops import FrozenBatchNorm2d

from previts import stages
from previts.corpus import region_table, tube_table
from previts.errors import InputError
from previts.media import normalisation
from previts.media.masks import decode_rle
from previts.saliency.supervised import DETECTOR, build_detector, load_detector, write_detector
from previts.saliency.weights import Weights
from previts.storage import folders

CLASSES = 3


SIDE = 160  # pixels; the detector's default of 800 is slow
small = functools.partial(maskrcnn_resnet50_fpn, min_size=SIDE, max_size=round(SIDE * 1333 / 800))


@pytest.fixture(scope="module")
def detector():
    """Return a Mask R-CNN of three classes with random weights."""
    torch.manual_seed(0)
    model = small(weights=None, weights_backbone=None, num_classes=CLASSES)
    # Larger weights, so that scores and masks differ from place to place.
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(30)
        model.roi_heads.mask_predictor.mask_fcn_logits.weight.mul_(30)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.mul_(2)
    return model.eval()


def bar_image(size=48):
    """Return an image of a red bar on grain."""
    image = np.random.default_rng(0).integers(60, 120, size=(size, size, 3), dtype=np.uint8)
    image[size // 4 : size // 2, size // 3 :] = [220, 30, 40]
    return image


def weights(model):
    return Weights({name: tensor.clone() for name, tensor in model.state_dict().items()}, "0" * 64, "unknown")


def test_masks_equal_those_of_torchvision_from_min_score_on(detector, tmp_path):
    write_detector(weights(detector), str(tmp_path))
    image = bar_image()
    detector.roi_heads.score_thresh = 0.0
    with torch.inference_mode():
        found = detector([torch.from_numpy(image).permute(2, 0, 1).float() / 255])[0]
    # `min_score` is a score that occurs: its mask is found, and that of the next lower score is not.
    scores = found["scores"].unique()
    assert len(scores) > 9
    least = float(scores[len(scores) // 2])
    expected = [mask for mask in (found["masks"][found["scores"] >= least, 0] > 0.5).numpy() if mask.any()]
    find = load_detector(str(tmp_path), least, SIDE)
    assert find(image[None][:0]) == []
    masks = find(image[None])[0]
    assert len(masks) == len(expected) > 0
    for mask, right in zip(masks, expected, strict=True):
        assert mask.dtype == np.bool_
        np.testing.assert_array_equal(mask, right)


def test_weights_without_batch_counts_run_as_frozen_batch_norm_without_epsilon(detector):
    tensors = {name: value for name, value in detector.state_dict().items() if not name.endswith("num_batches_tracked")}
    frozen = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES)
    for module in list(frozen.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.BatchNorm2d):
                setattr(module, name, FrozenBatchNorm2d(child.num_features, eps=0.0))
    frozen.load_state_dict(tensors)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = frozen.eval().backbone(image)
        found = build_detector(tensors, 0.5).backbone(image)
        other = build_detector(detector.state_dict(), 0.5).backbone(image)
    for name, features in expected.items():
        torch.testing.assert_close(found[name], features, rtol=1e-4, atol=1e-6)
    assert not torch.equal(other["0"], found["0"])  # with batch counts the epsilon is unchanged


def test_weights_of_another_model_are_refused_with_names_of_tensors(detector, tmp_path):
    tensors = weights(detector).tensors
    without = {name: value for name, value in tensors.items() if not name.startswith("roi_heads.mask_head")}
    misfit = tensors | {"rpn.head.bbox_pred.weight": torch.zeros(8, 256, 1, 1)}
    more = tensors | {"roi_heads.keypoint_head.0.weight": torch.zeros(3)}
    for wrong, message in (
        ({"conv1.weight": torch.zeros(1)}, r"no 'roi_heads.box_predictor.cls_score.weight' among 1 tensors .*conv1"),
        (without, r"8 tensors are missing .*roi_heads.mask_head.*, 0 are unknown"),
        (misfit, r"size mismatch for rpn.head.bbox_pred.weight.*\[8, 256, 1, 1\]"),
        (more, r"0 tensors are missing.*1 are unknown .*keypoint_head"),
    ):
        with pytest.raises(InputError, match=r"(?s)fit.weights is not a state dict of .*" + message):
            write_detector(Weights(wrong, "0" * 64, "unknown"), str(tmp_path))
        assert not (tmp_path / DETECTOR).exists()


def test_the_error_for_a_damaged_or_missing_detector_says_what_to_do(tmp_path):
    for _ in range(2):
        with pytest.raises(InputError, match=r"(?s)cannot be read .*run `previts fit_saliency` again"):
            load_detector(str(tmp_path), 0.5, SIDE)
        (tmp_path / DETECTOR).write_bytes(b"no tensors")


def test_the_stages_track_an_object_of_the_detector(detector, tmp_path, monkeypatch):
    monkeypatch.setenv("PREVITS_WORKERS", "1")
    crawl, root = tmp_path / "crawl", str(tmp_path / "runs")
    crawl.mkdir()
    normalisation.encode_video([bar_image(64)] * 2, 25.0, str(crawl / "red.mp4"))
    torch.save(detector.state_dict(), tmp_path / "weights.pt")
    chosen = ["saliency.method=supervised", f"fit.weights={tmp_path / 'weights.pt'}", "saliency.min_score=0.34"]
    chosen += ["saliency.every=2", "saliency.agreement=false", "track.min_area=0", f"saliency.detector_side={SIDE}"]
    videos = stages.download(str(crawl), root)
    with pytest.raises(InputError, match=r"needs fit.weights"):
        stages.fit_saliency(videos, root, set=chosen[:1])
    model = stages.fit_saliency(videos, root, set=chosen)
    assert folders.read_manifest(model).info["labels"].startswith("detector: unknown")
    found = stages.saliency(videos, model, root, set=chosen)
    rows = region_table.read_shard(found, 0)
    assert [(row.video_id, row.frame) for row in rows] == [("red", 0)]
    masks = [decode_rle(counts, row.height, row.width) for row in rows for counts in row.regions]
    assert masks
    assert all(mask.any() for mask in masks)
    row = tube_table.read_shard(stages.track(videos, found, root, set=chosen), 0)[0]
    assert (row.video_id, row.status) == ("red", "tracked")
    # The side of the detector does not decide results of other methods.
    prior = ["saliency.method=rbd", "saliency.agreement=false"]
    model = stages.fit_saliency(videos, root, set=prior)
    found = stages.saliency(videos, model, root, set=prior)
    assert stages.saliency(videos, model, root, set=[*prior, "saliency.detector_side=640"]) == found


@pytest.mark.parametrize(("side", "expected"), [(64, (64, 96)), (96, (96, 144)), (800, (800, 1200))])
def test_the_short_side_of_an_image_is_scaled_to_the_side(detector, side, expected):
    scaled, _ = build_detector(detector.state_dict(), 0.5, side).transform([torch.rand(3, 40, 60)])
    assert scaled.image_sizes == [expected]


def test_a_long_side_is_limited_as_by_torchvision(detector):
    scaled, _ = build_detector(detector.state_dict(), 0.5).transform([torch.rand(3, 40, 120)])
    assert scaled.image_sizes == [(444, 1333)]
