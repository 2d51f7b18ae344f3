"""Train torchvision's Mask R-CNN on labelled synthetic images, and compare its masks with those of RBD.

Run by `make bench`. The row 6d/supervised of the demo needs such weights: those of torchvision know no synthetic
objects. With `PREVITS_BENCH_OUT` set, the weights are written there as `detector.pth`, for
`--set 6d/supervised:fit.weights=`. The images are of another seed than the demo, so that none of them is in its corpus.

The measure is the mean intersection over union of the largest salient region with the largest object of an image.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torchvision.models.detection import maskrcnn_resnet50_fpn

from previts.config.perception import SaliencyConfig
from previts.demo.config import WorldConfig
from previts.demo.sets.world_images import write_coco
from previts.evals.detection import detector_inputs, object_sets
from previts.evals.detection.object_sets import AnnotatedImage
from previts.evals.detection.shapes import shape_mask
from previts.media.masks import Mask, components, iou
from previts.processes.progress import progress
from previts.saliency import predict, supervised
from previts.saliency.weights import read_weights

IMAGES, HELD_OUT, SEED = 480, 60, 7
SIDE = 128  # pixels; the short side of an image
STEPS, BATCH, WARM_UP, RATE, DECAY, NORM = 600, 8, 50, 4e-4, 0.01, 10.0


def labelled(uri: str, split: str) -> list[AnnotatedImage]:
    """Return the images of a split that have an object."""
    images = [image.without(True) for image in object_sets.read_coco(uri, split, 0).images]
    return [image for image in images if len(image.objects.labels)]


def trained(images: list[AnnotatedImage]) -> nn.Module:
    """Return a Mask R-CNN with random first weights, trained to tell objects of any class from the background."""
    torch.manual_seed(SEED)
    detector = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=2, min_size=SIDE, max_size=2 * SIDE,
        rpn_pre_nms_top_n_train=300, rpn_post_nms_top_n_train=64, box_batch_size_per_image=16,
    ).train()  # fmt: skip
    optimiser = torch.optim.AdamW(detector.parameters(), RATE, weight_decay=DECAY)
    rng = np.random.default_rng(SEED)
    order: list[int] = []
    for step in progress(range(STEPS), "Mask R-CNN", unit="step", total=STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARM_UP) * (1 + np.cos(np.pi * step / STEPS)) / 2
        if len(order) < BATCH:
            order = list(rng.permutation(len(images)))
        samples = [
            detector_inputs.training_sample(images[order.pop()], (SIDE, SIDE), rng, masks=True) for _ in range(BATCH)
        ]
        pixels = [image.float() / 255 for image, _ in samples]
        targets = [target | {"labels": torch.ones_like(target["labels"])} for _, target in samples]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = detector(pixels, targets)
        optimiser.zero_grad()
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()
        nn.utils.clip_grad_norm_(detector.parameters(), NORM)
        optimiser.step()
    return detector.eval()


def overlap(images: list[AnnotatedImage], find: Callable[[npt.NDArray[np.uint8]], list[list[Mask]]]) -> float:
    """Return the mean overlap of the largest region that is found with the largest object."""
    overlaps = []
    for image in images:
        pixels = np.asarray(detector_inputs.open_annotated(image))
        truth = max((shape_mask(shape, image.size, image.size) > 0 for shape in image.shapes), key=np.sum)
        regions = [region for mask in find(pixels[None])[0] for region in components(mask, 0)]
        overlaps.append(iou(max(regions, key=np.sum), truth) if regions else 0.0)
    return float(np.mean(overlaps))


@pytest.mark.bench
def test_a_detector_that_was_trained_with_labels_finds_synthetic_objects(tmp_path):
    uri = str(tmp_path / "coco")
    write_coco(uri, WorldConfig(seed=SEED, coco_train=IMAGES, coco_val=HELD_OUT))
    folder = Path(os.environ.get("PREVITS_BENCH_OUT", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "detector.pth"
    torch.save(trained(labelled(uri, "train")).state_dict(), path)
    supervised.write_detector(read_weights(str(path)), str(tmp_path / "model"))
    shown = labelled(uri, "val")
    config = SaliencyConfig(method="supervised", detector_side=SIDE)
    found = overlap(shown, predict.load_finder(str(tmp_path / "model"), config))
    prior = overlap(shown, predict.load_finder("", SaliencyConfig(method="rbd")))
    print(f"mean IoU on {len(shown)} images: detector {found:.3f}, RBD {prior:.3f}; weights: {path}")
    assert found > prior
