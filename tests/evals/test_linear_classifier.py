"""Oracles: planted classes, noise, the optimum of scikit-learn, learning rates by hand."""

from functools import partial

import numpy as np
import pytest
import torch
from colour_images import SMALL, planted_features
from sklearn.linear_model import LogisticRegression

from previts.config.evaluation import EvaluationConfig, LinearConfig
from previts.evals import linear_classifier, training


def fit(train: np.ndarray, labels: np.ndarray, num_classes: int, config: EvaluationConfig, folder: str = ""):
    batches_from = partial(linear_classifier.cached_views, train, labels, config)
    epoch_steps = training.steps_an_epoch(len(labels), config.batch_size)
    sizes = (train.shape[1], num_classes)
    return linear_classifier.fit_softmax(
        batches_from,
        sizes,
        epoch_steps=epoch_steps,
        config=config,
        device=torch.device("cpu"),
        folder=folder,
        what="test",
    )


def test_softmax_separates_planted_classes_and_is_at_chance_on_noise():
    for answer, low, high in ((True, 99.0, 100.0), (False, 10.0, 30.0)):
        train, train_classes, test, test_classes = planted_features(answer)
        head = fit(train, train_classes, 5, SMALL)
        accuracy = 100 * (head.scores(test).argmax(1) == test_classes).mean()
        assert low <= accuracy <= high


def test_softmax_reaches_the_loss_of_scikit_learns_optimum():
    generator = np.random.default_rng(5)
    train = generator.normal(size=(400, 6)).astype(np.float32)
    labels = (train[:, :3] + generator.normal(size=(400, 3))).argmax(1)  # not separable
    head = fit(train, labels, 3, EvaluationConfig(batch_size=100, linear=LinearConfig("virtex", epochs=300)))
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(head.scores(train)), torch.from_numpy(labels))
    oracle = LogisticRegression(C=1e6, max_iter=1000).fit(train, labels).predict_log_proba(train)
    assert float(loss) == pytest.approx(-oracle[np.arange(400), labels].mean(), rel=0.01)


def test_learning_rate_follows_the_recipes():
    steps = [linear_classifier.learning_rate(EvaluationConfig(), step, 10) for step in (0, 599, 600, 799, 800, 999)]
    assert steps == pytest.approx([30, 30, 3, 3, 0.3, 0.3])
    virtex = EvaluationConfig(linear=LinearConfig("virtex"))
    cosine = [linear_classifier.learning_rate(virtex, step, 10) for step in (0, 500, 750)]
    assert cosine == pytest.approx([0.3, 0.15, 0.15 * (1 - 2**-0.5)])
