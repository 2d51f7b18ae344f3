"""Classifiers of clips: a pretrained encoder with a new linear layer, both trained on labelled videos.

PreViTS sections 4.3, 4.4 and 4.7. Open details follow RSPNet's code, on which the paper builds. The encoder is copied;
the pretrained model never changes. The caller chooses the videos.

Shape suffixes: B clips, N videos, C classes or channels, T H W frames and pixels, t h w cells, S pixels of a side.
"""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from previts.config.evaluation import ActionsConfig, EvaluationConfig
from previts.config.experiment import ModelConfig
from previts.errors import InputError
from previts.evals import training
from previts.evals.actions import video_sets
from previts.evals.features import device_of
from previts.models.encoders import build_encoder, last_maps
from previts.models.gradcam import attention_map
from previts.models.moco import MoCo
from previts.models.norm import GroupedBatchNorm
from previts.models.pixels import normalise
from previts.processes import distributed, prefetch
from previts.processes.progress import progress
from previts.storage import tensors

MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4  # not stated; RSPNet's code, all weights alike
Scores = NDArray[np.float32]
Batch = tuple[Tensor, Tensor]  # uint8 clips BTCSS, labels B


class Classifier(nn.Module):
    """An encoder and a linear layer on its pooled features, without dropout.

    Batch normalisation uses the clips of a process, not the groups of pretraining.

    Args:
        encoder: Configuration of the encoder.
        classes: Names, in the order of the logits.
    """

    def __init__(self, encoder: ModelConfig, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.settings = encoder
        self.encoder = build_encoder(encoder.encoder, None, encoder.width)
        if encoder.bn_momentum:
            for module in self.modules():
                if isinstance(module, GroupedBatchNorm):
                    module.whole_momentum = module.momentum = encoder.bn_momentum
        self.head = nn.Linear(self.encoder.channels, len(self.classes))

    def maps(self, clips_BCTHW: Tensor) -> Tensor:
        """Return the last maps of normalised clips, (B, C, t, h, w); computed in bfloat16 on a GPU."""
        with torch.autocast("cuda", torch.bfloat16, enabled=clips_BCTHW.is_cuda):
            maps = last_maps(self.encoder, clips_BCTHW)
        return maps.to(self.head.weight.dtype)

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        """Return the logits of normalised clips, (B, C)."""
        logits: Tensor = self.head(self.maps(clips_BCTHW).mean((2, 3, 4)))
        return logits


def new_classifier(start: MoCo | Classifier, classes: Sequence[str], seed: int) -> Classifier:
    """Return a classifier with a copy of the encoder of `start`, on its device, and a new linear layer.

    Args:
        start: A pretrained model, whose projection heads are dropped, or a classifier of other classes.
        classes: Names of the new classes.
        seed: Draws the new layer.
    """
    settings = start.experiment.model if isinstance(start, MoCo) else start.settings
    made = Classifier(settings, classes)
    made.encoder.load_state_dict(start.encoder.state_dict())
    with torch.no_grad():
        # not stated; as torch draws a linear layer, but from a generator of its own
        generator, bound = torch.Generator().manual_seed(seed), made.encoder.channels**-0.5
        made.head.weight.uniform_(-bound, bound, generator=generator)
        made.head.bias.uniform_(-bound, bound, generator=generator)
    return made.to(device_of(start))


def train_classifier(
    start: MoCo | Classifier, data: video_sets.LabelledClips, config: EvaluationConfig, *, folder: str, what: str
) -> Classifier:
    """Return a classifier trained on the videos of `data`; every process of a group must call this.

    Args:
        start: Source of the encoder; it does not change.
        data: The training videos.
        config: Uses actions, seed.
        folder: URI for the states to resume from; "" stores none.
        what: Text of the progress line.

    Raises:
        InputError: If a video is missing or damaged, or a batch is too small for batch normalisation.
        FloatingPointError: If the loss is not finite.
    """
    made = new_classifier(start, data.classes, config.seed)
    fine_tune(made, data, config, folder=folder, what=what)
    return made


def fine_tune(
    classifier: Classifier, data: video_sets.LabelledClips, config: EvaluationConfig, *, folder: str, what: str
) -> None:
    """Train all layers of a classifier in place; see `train_classifier`."""
    settings, count = config.actions, len(data.uris)
    epoch_steps = training.steps_an_epoch(count, settings.batch_size)
    _check_batches(settings, count, epoch_steps)
    device = device_of(classifier)

    def loss_of(learner: nn.Module, batch: Batch) -> Tensor:
        clips_BTCSS, labels_B = batch
        return F.cross_entropy(learner(normalised(clips_BTCSS, device)), labels_B.to(device))

    def average_statistics() -> None:
        distributed.average_([value for name, value in classifier.named_buffers() if "running_" in name])

    classifier.train()
    training.run_steps(
        classifier,
        torch.optim.SGD(classifier.parameters(), lr=settings.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY),
        steps=settings.epochs * epoch_steps,
        batches=lambda first: _batches(data, config, first),
        loss_of=loss_of,
        rate_at=lambda step: learning_rate(settings, step // epoch_steps),
        folder=folder,
        what=f"{what} fine-tuning",
        # Updates of the statistics are linear, so intermediate averages do not change their final mean.
        before_saving=average_statistics,
    )
    classifier.eval()


def learning_rate(settings: ActionsConfig, epoch: int) -> float:
    """Return the rate of an epoch: a cosine, updated once per epoch (not stated; RSPNet's code)."""
    return settings.lr * 0.5 * (1 + math.cos(math.pi * epoch / settings.epochs))


def normalised(clips_BTCSS: Tensor, device: torch.device) -> Tensor:
    """Return uint8 clips in the encoder's input format: normalised float, (B, C, T, S, S), on the device."""
    return normalise(clips_BTCSS.to(device, non_blocking=True).float() / 255).transpose(1, 2)


def _check_batches(settings: ActionsConfig, count: int, epoch_steps: int) -> None:
    smallest = count - (epoch_steps - 1) * settings.batch_size
    share = -(-smallest // distributed.world_size())
    cells = (settings.frames // 8) * (settings.size // 32) ** 2
    if share * cells < 2:
        raise InputError(
            f"evaluation.actions.batch_size = {settings.batch_size}: the last batch of each epoch of {count} videos "
            "has one clip of one cell, which cannot be normalised; change it, or set evaluation.actions.size=64"
        )


def _batches(data: video_sets.LabelledClips, config: EvaluationConfig, first: int) -> Iterator[Batch]:
    """Yield this process's share of the batches from step `first` on; a clip depends only on seed, epoch and number."""
    settings = config.actions

    def load(item: tuple[int, int]) -> tuple[video_sets.Pixels, int]:
        epoch, number = item
        generator = np.random.default_rng((config.seed, epoch, number))
        footage = data.open(data.uris[number])
        return video_sets.training_clip(footage, settings.frames, settings.size, generator), data.labels[number]

    shares = training.shares(len(data.uris), settings.batch_size, config.seed, first)
    for loaded in prefetch.loaded(([(epoch, number) for number in chosen] for epoch, chosen in shares), load):
        frames, labels = zip(*loaded, strict=True)
        yield torch.from_numpy(np.stack(frames)), torch.tensor(labels)


@torch.no_grad()
def test_classifier(
    classifier: Classifier, data: video_sets.LabelledClips, config: EvaluationConfig, what: str
) -> Scores:
    """Return the logits of the videos, N x C: the mean over evenly spaced clips of each.

    Processes share the videos, and each returns all logits; every process of a group must call this.

    Args:
        classifier: Put into eval mode.
        data: The test videos; their classes may differ from the classifier's.
        config: Uses actions.
        what: Text of the progress line.

    Raises:
        InputError: If a video is missing or damaged.
    """
    settings, device = config.actions, device_of(classifier)
    world, count = distributed.world_size(), len(data.uris)
    mine = range(distributed.rank(), count, world)
    together = max(1, settings.batch_size // settings.test_clips)

    def load(number: int) -> video_sets.SpacedClips:
        footage = data.open(data.uris[number])
        return video_sets.evenly_spaced_clips(footage, settings.frames, settings.size, settings.test_clips)

    classifier.eval()
    logits_RC = torch.zeros(-(-count // world), len(classifier.classes), device=device)
    done = 0
    with progress(range(len(mine)), f"{what} testing", unit="video") as shown:
        groups = (mine[start : start + together] for start in range(0, len(mine), together))
        for loaded in prefetch.loaded(groups, load):
            clips_BTCSS = torch.cat([_spread(item, device) for item in loaded])
            parts = [classifier(normalised(part, device)) for part in torch.split(clips_BTCSS, settings.batch_size)]
            means = torch.cat(parts).view(len(loaded), settings.test_clips, -1).mean(1)
            logits_RC[done : done + len(loaded)] = means
            done += len(loaded)
            shown.update(len(loaded))
    # Process r has videos r, r + world, and so on.
    gathered = distributed.gather(logits_RC).view(world, len(logits_RC), -1).transpose(0, 1).flatten(0, 1)
    return np.asarray(gathered[:count].cpu().numpy())


def _spread(item: video_sets.SpacedClips, device: torch.device) -> Tensor:
    """Return the clips of a video, (K, T, C, S, S); each frame is copied to the device once."""
    spread: Tensor = torch.from_numpy(item.frames).to(device)[torch.from_numpy(item.places).to(device)]
    return spread


def protocol(config: EvaluationConfig) -> dict[str, Any]:
    """Return how classifiers are trained and tested, for an outcome's protocol."""
    settings = config.actions
    return {
        "classifier": "linear layer on pooled features; all layers trained by SGD, cosine updated once per epoch",
        "epochs": settings.epochs,
        "learning_rate": settings.lr,
        "batch_size": settings.batch_size,
        "processes": distributed.world_size(),
        "clip": f"{settings.frames} consecutive frames at {video_sets.FPS:g} per second, "
        f"{settings.size} x {settings.size}",
        # not stated; RSPNet's code selects the best epoch on the test list
        "epoch": "the last",
        "test": f"{settings.test_clips} evenly spaced clips of the central square, with averaged logits",
    }


@torch.no_grad()
def class_attention(classifier: Classifier, clips_BCTHW: Tensor, classes_B: Tensor) -> Tensor:
    """Return the non-negative attention of each clip for a class, (B, t, h, w): Grad-CAM of the class's logit.

    A logit is linear in the mean of the last maps, so its gradient in every cell is the class's row of the last layer.

    Args:
        classifier: In eval mode.
        clips_BCTHW: Normalised.
        classes_B: The number of a class for each clip.
    """
    return attention_map(classifier.maps(clips_BCTHW), classifier.head.weight[classes_B], "relu")


def classifier_bytes(classifier: Classifier) -> bytes:
    """Return a classifier as a file for `load_classifier`: classes, configuration of the encoder, weights."""
    buffer = io.BytesIO()
    state = {name: value.cpu() for name, value in classifier.state_dict().items()}
    torch.save({"classes": list(classifier.classes), "encoder": asdict(classifier.settings), "state": state}, buffer)
    return buffer.getvalue()


def load_classifier(uri: str, model: MoCo) -> Classifier:
    """Return a classifier that was stored for `model`, on the model's device and in eval mode.

    Raises:
        InputError: If the file is missing, is not a classifier, or has a different encoder than the model.
    """
    found: Any = tensors.load(uri, "classifier", "give the classifier of a finished ucf101 result")[0]
    if not isinstance(found, dict) or not {"classes", "encoder", "state"} <= found.keys():
        raise InputError(f"{uri} is not a classifier of clips; give the classifier of a finished ucf101 result")
    settings = model.experiment.model
    made = Classifier(settings, found["classes"])
    try:
        made.load_state_dict(found["state"])
    except (RuntimeError, AttributeError, TypeError):
        raise InputError(
            f"classifier: {uri} has an encoder of {found['encoder']}, the checkpoint one of {asdict(settings)}"
        ) from None
    return made.to(device_of(model)).eval()
