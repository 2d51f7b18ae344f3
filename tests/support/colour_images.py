"""Small labelled images whose class is their colour, features with a planted class, and an untrained image model."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from previts.config.evaluation import EvaluationConfig, LinearConfig
from previts.config.experiment import Experiment, ModelConfig, ObjectiveConfig, OptimConfig
from previts.models.moco import MoCo

SMALL = EvaluationConfig(resize=64, crop=64, batch_size=8, linear=LinearConfig(epochs=20, views="cached"))
COLOURS = {"cat": (200, 30, 30), "dog": (30, 200, 30), "train": (30, 30, 200)}


def image_model(seed: int = 0, *, groups: int = 1) -> MoCo:
    """Return an untrained ResNet-18 in eval mode."""
    torch.manual_seed(seed)
    experiment = Experiment(
        model=ModelConfig(encoder="resnet18"),
        objective=ObjectiveConfig(queue_size=64, batch_norm_groups=groups),
        optim=OptimConfig(batch_size=8),
    )
    return MoCo(experiment).eval()


def write_image(path: Path, colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (80, 70)) -> None:
    """Write an image of one colour with noise."""
    noise = np.random.default_rng(seed).integers(-30, 31, (size[1], size[0], 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


def write_imagenet(root: Path, per_class: int = 6) -> Path:
    """Write ImageNet with a class for each colour."""
    for split in ("train", "val"):
        for c, (name, colour) in enumerate(COLOURS.items()):
            for n in range(per_class):
                write_image(
                    root / "imagenet" / split / name / f"{n}.JPEG", colour, 1000 * c + n + 500 * (split == "val")
                )
    return root


def planted_features(separable: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training features and classes, then those of the test: 5 classes in noise, or noise alone."""
    generator = np.random.default_rng(seed)
    classes = [np.arange(n) % 5 for n in (300, 400)]
    found = [generator.normal(size=(len(c), 32)).astype(np.float32) for c in classes]
    if separable:
        for rows, c in zip(found, classes, strict=True):
            rows[np.arange(len(c)), c] += 12
    return found[0], classes[0], found[1], classes[1]
