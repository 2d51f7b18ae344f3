"""Oracles: classes with a visible difference, literal loops, autograd, an uninterrupted training."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import clip_sets
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from previts.errors import InputError
from previts.evals import frozen, metrics, training
from previts.evals.actions import classifier, video_sets
from previts.evals.actions.classifier import Classifier
from previts.media.video_reader import Footage
from previts.models.moco import MoCo
from previts.models.norm import GroupedBatchNorm

MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def model() -> MoCo:
    return clip_sets.small_model()


@pytest.fixture(scope="module")
def tuned(model: MoCo) -> Classifier:
    """A classifier of colours after two epochs."""
    return classifier.train_classifier(
        model, clip_sets.planted("colour", 8, 0), clip_sets.small_settings(), folder="", what="x"
    )


def accuracy(made: Classifier, data: video_sets.LabelledClips) -> float:
    scores = classifier.test_classifier(made, data, clip_sets.small_settings(), "test")
    return metrics.accuracy(metrics.top_k_hits(scores, np.array(data.labels), 1))


def normalised(clip_TCHW: np.ndarray) -> Tensor:
    return ((torch.from_numpy(clip_TCHW).float() / 255).permute(0, 2, 3, 1) - MEAN).div(DEVIATION).permute(3, 0, 1, 2)


@pytest.mark.slow
def test_planted_classes_are_separated(model: MoCo):
    before = frozen.weights_digest(model)
    train, test = clip_sets.planted("colour", 24, 0), clip_sets.planted("colour", 24, 1)
    config = clip_sets.small_settings(epochs=10)
    assert accuracy(classifier.train_classifier(model, train, config, folder="", what="colour"), test) == 100
    labels = tuple(np.random.default_rng(0).permutation(train.labels).tolist())
    shuffled = classifier.train_classifier(model, replace(train, labels=labels), config, folder="", what="shuffled")
    assert accuracy(shuffled, test) < 75
    assert frozen.weights_digest(model) == before


@pytest.mark.slow
def test_motion_is_recognised_if_no_single_frame_shows_the_class(model: MoCo):
    train, test = clip_sets.planted("motion", 24, 0), clip_sets.planted("motion", 48, 1)
    made = classifier.train_classifier(model, train, clip_sets.small_settings(epochs=36), folder="", what="motion")
    assert accuracy(made, test) >= 75  # by chance four times in ten thousand
    assert accuracy(made, replace(test, open=lambda uri: still(test.open(uri)))) < 65


def still(footage: Footage) -> Footage:
    return replace(footage, read=lambda numbers: footage.read([0] * len(numbers)))


def test_logits_are_the_mean_over_the_clips(tuned: Classifier):
    data = clip_sets.planted("colour", 3, 5, frames=19)
    settings = clip_sets.small_settings(test_clips=10)
    scores = classifier.test_classifier(tuned, data, settings, "test")
    for number, uri in enumerate(data.uris):
        frames, logits = data.open(uri).read(range(19)), []
        for place in range(10):
            start = round(place * (19 - 8) / 9)
            square = torch.from_numpy(frames[start : start + 8, :, 8:56]).permute(0, 3, 1, 2)
            larger = F.interpolate(square.float(), (64, 64), mode="bilinear", align_corners=False)
            clip = normalised(larger.round().to(torch.uint8).numpy())
            with torch.no_grad():
                pooled = tuned.encoder.features(clip[None]).mean((2, 3, 4))
                logits.append(pooled @ tuned.head.weight.T + tuned.head.bias)
        # OpenCV interpolates in fixed point, so some pixels differ by one.
        np.testing.assert_allclose(scores[number], torch.cat(logits).mean(0), atol=0.02)
    again = classifier.test_classifier(tuned, data, clip_sets.small_settings(test_clips=10, batch_size=40), "test")
    np.testing.assert_allclose(scores, again, atol=1e-5)


def test_a_new_classifier_is_the_encoder_with_a_linear_layer(model: MoCo):
    made = classifier.new_classifier(model, ("a", "b"), seed=3).eval()
    clip = torch.randn(2, 3, 8, 64, 64)
    with torch.no_grad():
        assert torch.equal(made(clip), made.head(model.encoder.features(clip).mean((2, 3, 4))))
    norms = [module for module in made.modules() if isinstance(module, GroupedBatchNorm)]
    assert norms
    assert all(norm.group_size is None and norm.momentum == 0.2 for norm in norms)
    assert all(parameter.requires_grad for parameter in made.parameters())
    same, other = (classifier.new_classifier(made, ("a", "b", "c"), seed) for seed in (3, 4))
    assert torch.equal(same.encoder.conv_1a.spatial.conv.weight, made.encoder.conv_1a.spatial.conv.weight)
    assert same.encoder.conv_1a.spatial.conv.weight.data_ptr() != made.encoder.conv_1a.spatial.conv.weight.data_ptr()
    assert not torch.equal(same.head.weight, other.head.weight)
    assert same.head.weight.abs().max() <= made.encoder.channels**-0.5


def test_the_rate_is_a_cosine_of_the_epoch():
    settings = clip_sets.small_settings(epochs=4, lr=0.1).actions
    rates = [classifier.learning_rate(settings, epoch) for epoch in range(4)]
    assert rates == pytest.approx([0.1, 0.05 + 0.05 * 0.5**0.5, 0.05, 0.05 - 0.05 * 0.5**0.5])


@pytest.mark.slow
def test_an_interrupted_training_equals_an_uninterrupted_one(model: MoCo, tmp_path: Path):
    data, config = clip_sets.planted("colour", 9, 0), clip_sets.small_settings(epochs=3, batch_size=3)
    straight = classifier.train_classifier(model, data, config, folder="", what="straight")
    opened = []

    def stopping(uri: str) -> Footage:
        opened.append(uri)
        if len(opened) == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return data.open(uri)

    folder = str(tmp_path / "states")
    with pytest.raises(SystemExit):
        classifier.train_classifier(model, replace(data, open=stopping), config, folder=folder, what="stopped")
    (saved,) = training.states_of(folder).numbers()
    assert 0 < saved < 9
    resumed = classifier.train_classifier(model, data, config, folder=folder, what="resumed")
    assert_equal(straight.state_dict(), resumed.state_dict())
    # A finished training is not repeated.
    assert_equal(
        classifier.train_classifier(model, data, config, folder=folder, what="done").state_dict(), straight.state_dict()
    )


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


TWO = """
import sys, torch
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
import clip_sets
from previts.processes import distributed
from previts.evals.actions import classifier
data, config = clip_sets.planted("colour", 8, 0), clip_sets.small_settings(epochs=1)
with distributed.process_group():
    made = classifier.train_classifier(clip_sets.small_model(), data, config, folder="", what="two")
    scores = classifier.test_classifier(made, clip_sets.planted("colour", 5, 1), config, "two")
    torch.save((made.state_dict(), torch.from_numpy(scores)), f"{sys.argv[2]}/{distributed.rank()}.pt")
"""


@pytest.mark.slow
def test_two_processes_equal_one_that_normalises_in_two_groups(model: MoCo, tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    program = [sys.executable, "-c", TWO, str(Path(__file__).parents[2] / "support"), str(tmp_path)]
    several = [
        subprocess.Popen(program, env=shared | {"RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    data, config = clip_sets.planted("colour", 8, 0), clip_sets.small_settings(epochs=1)
    made = classifier.new_classifier(model, data.classes, 0).train()
    for module in made.modules():
        if isinstance(module, GroupedBatchNorm):
            module.group_size = 4
    before = {name: value.clone() for name, value in made.state_dict().items()}
    rows = np.random.default_rng((0, 0)).permutation(8)
    batch, labels = [], []
    for number in [*rows[::2], *rows[1::2]]:
        generator = np.random.default_rng((0, 0, number))
        batch.append(normalised(video_sets.training_clip(data.open(str(number)), 8, 64, generator)))
        labels.append(data.labels[number])
    F.cross_entropy(made(torch.stack(batch)), torch.tensor(labels)).backward()
    torch.optim.SGD(made.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4).step()
    for process in several:
        assert process.wait(120) == 0, process.stderr and process.stderr.read()
    (first, scores), (second, same) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_equal(first, second)
    assert torch.equal(scores, same)
    for name, value in made.state_dict().items():
        step, own = first[name] - before[name], value - before[name]
        assert (step - own).abs().max() <= 0.01 * own.abs().max() + 1e-6, name
    made.load_state_dict(first)
    alone = classifier.test_classifier(made, clip_sets.planted("colour", 5, 1), config, "one")
    np.testing.assert_allclose(scores, alone, atol=1e-5)


def test_class_attention_is_the_gradient_of_the_logit(tuned: Classifier):
    clips_BCTHW, classes_B = torch.randn(3, 3, 16, 96, 64), torch.tensor([2, 0, 2])
    cam = classifier.class_attention(tuned, clips_BCTHW, classes_B)
    maps = tuned.encoder.features(clips_BCTHW).detach().requires_grad_()
    logits = tuned.head(maps.mean((2, 3, 4)))
    (gradient,) = torch.autograd.grad(logits[torch.arange(3), classes_B].sum(), maps)
    weights = gradient.sum((2, 3, 4), keepdim=True)
    assert cam.shape == (3, 2, 3, 2)
    torch.testing.assert_close(cam, (maps * weights).sum(1).clamp(min=0).detach(), rtol=1e-4, atol=1e-6)
    assert (cam > 0).any()


def test_a_classifier_is_read_as_it_was_written(model: MoCo, tuned: Classifier, tmp_path: Path):
    path = tmp_path / "classifier.pt"
    path.write_bytes(classifier.classifier_bytes(tuned))
    loaded = classifier.load_classifier(str(path), model)
    assert loaded.classes == tuned.classes
    assert not loaded.training
    assert_equal(loaded.state_dict(), tuned.state_dict())
    other = MoCo(replace(model.experiment, model=replace(model.experiment.model, width=0.1)))
    with pytest.raises(InputError, match=r"classifier.pt has an encoder of .*'width': 0.08"):
        classifier.load_classifier(str(path), other)
    for content, message in ((b"text", "no weights that can be read"), (None, "no such file")):
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            classifier.load_classifier(str(path), model)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="is not a classifier of clips"):
        classifier.load_classifier(str(path), model)


def test_a_batch_that_cannot_be_normalised_is_refused(model: MoCo):
    config = clip_sets.small_settings(size=32, batch_size=4)
    with pytest.raises(InputError, match=r"batch_size = 4: the last batch of each epoch of 5 videos"):
        classifier.train_classifier(model, clip_sets.planted("colour", 5, 0), config, folder="", what="x")
