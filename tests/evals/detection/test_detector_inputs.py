"""Oracles: a drawn rectangle, whose place in the image is known, and sizes by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from pycocotools import mask as run_lengths

from previts.evals.detection import detector_inputs
from previts.evals.detection.object_sets import AnnotatedImage
from previts.evals.detection.scores import Objects


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


def test_boxes_and_masks_are_scaled_and_mirrored_like_the_image(tmp_path: Path):
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


def test_images_of_16_bits_have_their_brightness(tmp_path: Path):
    annotated = rectangle(tmp_path / "a.png", (150, 100), (20, 30, 70, 90))
    grey = np.tile(np.linspace(0, 255, 150, dtype=np.uint8), (100, 1))
    Image.fromarray(grey.astype(np.uint16) * 257).save(annotated.uri)
    np.testing.assert_array_equal(np.asarray(detector_inputs.open_annotated(annotated)), np.dstack([grey] * 3))


def test_sizes_keep_the_ratio_and_limit_the_longest_side():
    assert detector_inputs.fitted((500, 375), 800) == (1067, 800)
    assert detector_inputs.fitted((375, 500), 600) == (600, 800)
    assert detector_inputs.fitted((1000, 300), 800) == (1333, 400)


def test_detections_are_in_pixels_of_the_original_image(tmp_path: Path):
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
