"""A linear classifier on the features of a frozen encoder, trained by softmax regression.

PreViTS section 4.2, table 1 (IN-1k clf.), and section 4.4, table 4 (ImageNet-9). The recipe is MoCo's or VirTex's. The
encoder only computes features; its weights do not change.

Shape suffixes: N B images, D features, C classes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from previts.config.evaluation import EvaluationConfig
from previts.evals import features, labelled_images, training
from previts.evals.features import Features, Labels
from previts.models.moco import MoCo
from previts.processes import prefetch

# Learning rates of MoCo's linear classification and of VirTex's.
RATES = {"moco": 30.0, "virtex": 0.3}
MOMENTUM, INITIAL_DEVIATION = 0.9, 0.01
STEPS, STEP_FACTOR = (0.6, 0.8), 0.1  # epochs 60 and 80 of 100
# The recipe takes 500,000 steps on ImageNet. On a small dataset its hundred epochs are about a hundred steps, and the
# result would depend on the last batches by chance. With cached features, training takes at least this many steps.
LEAST_STEPS = 2000
SCORED_AT_ONCE = 4096  # images
Batch = tuple[Tensor, Tensor]  # features_BD, labels_B


@dataclass(frozen=True)
class LinearClassifier:
    """A linear classifier: weight CD, bias C, and the number of training epochs."""

    weight: Tensor
    bias: Tensor
    epochs: int

    def scores(self, features_ND: Features) -> Features:
        """Return the class scores of features, N x C."""
        parts = [
            F.linear(torch.from_numpy(part).to(self.weight.device), self.weight, self.bias).cpu().numpy()
            for part in np.array_split(features_ND, max(1, len(features_ND) // SCORED_AT_ONCE))
        ]
        return np.concatenate(parts)


def protocol(config: EvaluationConfig, classifier: LinearClassifier, view: str) -> dict[str, Any]:
    """Return how a classifier was trained, for an outcome's protocol; `view` describes the output of its `load`."""
    cached = config.linear.views == "cached"
    return {
        "classifier": "softmax regression on pooled features, SGD",
        # Paper: follows MoCo, which draws new crops in each epoch; "cached" differs, to save compute.
        "views": f"{view}, encoded once" if cached else "random crops and flips, encoded every epoch",
        "recipe": config.linear.recipe,
        "learning_rate": RATES[config.linear.recipe],
        "epochs": classifier.epochs,
        "batch_size": config.batch_size,
    }


def train_classifier(
    model: MoCo,
    train: labelled_images.LabelledImages,
    load: Callable[[str], labelled_images.Pixels],
    *,
    config: EvaluationConfig,
    folder: str,
    what: str,
) -> LinearClassifier:
    """Return a linear classifier trained on images, on the device of the model; the encoder does not change.

    Args:
        model: In eval mode.
        train: The training images.
        load: Converts an image's URI to the input of the encoder; "fresh" views use random crops instead.
        config: Uses linear, batch_size, crop, seed.
        folder: URI for the states to resume from.
        what: Text of the progress line.
    """
    labels_N = np.array(train.labels)
    epoch_steps = training.steps_an_epoch(len(labels_N), config.batch_size)
    if config.linear.views == "fresh":
        batches_from = partial(fresh_views, model, train.uris, labels_N, config)
        channels = model.encoder.channels
    else:
        train_ND = features.extract(model, train.uris, load, batch_size=config.batch_size, what=f"{what} train")
        epochs = max(config.linear.epochs, math.ceil(LEAST_STEPS / epoch_steps))
        config = replace(config, linear=replace(config.linear, epochs=epochs))
        batches_from = partial(cached_views, train_ND, labels_N, config)
        channels = train_ND.shape[1]
    sizes = (channels, len(train.classes))
    return fit_softmax(
        batches_from,
        sizes,
        epoch_steps=epoch_steps,
        config=config,
        device=features.device_of(model),
        folder=folder,
        what=what,
    )


def cached_views(features_ND: Features, labels_N: Labels, config: EvaluationConfig, first: int) -> Iterator[Batch]:
    """Yield this process's share of the batches from step `first` on, of cached features."""
    for _, chosen in training.shares(len(labels_N), config.batch_size, config.seed, first):
        yield torch.from_numpy(features_ND[chosen]), torch.from_numpy(labels_N[chosen])


def fresh_views(
    model: MoCo, uris: Sequence[str], labels_N: Labels, config: EvaluationConfig, first: int
) -> Iterator[Batch]:
    """Yield this process's share of the batches from step `first` on, of random crops encoded on the fly (MoCo)."""

    def load(item: tuple[int, int]) -> tuple[labelled_images.Pixels, int]:
        epoch, number = item
        generator = np.random.default_rng((config.seed, epoch, number))
        return labelled_images.random_crop(labelled_images.open_image(uris[number]), config.crop, generator), int(
            labels_N[number]
        )

    device = features.device_of(model)
    shares = training.shares(len(labels_N), config.batch_size, config.seed, first)
    groups = ([(epoch, number) for number in chosen] for epoch, chosen in shares)
    for loaded in prefetch.loaded(groups, load):
        images, labels = zip(*loaded, strict=True)
        yield (
            features.pooled_features(model, features.normalised(np.stack(images), device)),
            torch.tensor(labels),
        )


def fit_softmax(
    batches_from: Callable[[int], Iterator[Batch]],
    sizes: tuple[int, int],
    *,
    epoch_steps: int,
    config: EvaluationConfig,
    device: torch.device,
    folder: str,
    what: str,
) -> LinearClassifier:
    """Return a linear classifier, trained by SGD with momentum and without weight decay.

    Args:
        batches_from: Called with the first step; yields this process's share of the batches from that step on.
        sizes: Numbers of features and of classes.
        epoch_steps: Batches in an epoch.
        config: Uses linear, seed.
        device: The device to train on.
        folder: URI for the states to resume from.
        what: Text of the progress line.

    Raises:
        FloatingPointError: If the loss is not finite.
    """
    head = nn.Linear(*sizes)
    with torch.no_grad():
        head.weight.normal_(0, INITIAL_DEVIATION, generator=torch.Generator().manual_seed(config.seed))
        head.bias.zero_()
    head = head.to(device)
    training.run_steps(
        head,
        torch.optim.SGD(head.parameters(), lr=RATES[config.linear.recipe], momentum=MOMENTUM),
        steps=config.linear.epochs * epoch_steps,
        batches=batches_from,
        loss_of=lambda learner, batch: F.cross_entropy(learner(batch[0].to(device)), batch[1].to(device)),
        rate_at=lambda step: learning_rate(config, step, epoch_steps),
        folder=folder,
        what=f"{what} head",
    )
    return LinearClassifier(head.weight.detach(), head.bias.detach(), config.linear.epochs)


def learning_rate(config: EvaluationConfig, step: int, epoch_steps: int) -> float:
    """Return the rate of a step: MoCo's drops after whole epochs, or VirTex's cosine over all steps."""
    rate, epochs = RATES[config.linear.recipe], config.linear.epochs
    if config.linear.recipe == "virtex":
        return rate * 0.5 * (1 + math.cos(math.pi * step / (epochs * epoch_steps)))
    passed = sum(step // epoch_steps >= round(drop * epochs) for drop in STEPS)
    return float(rate * STEP_FACTOR**passed)
