"""A training of two pods that the step `pretrain` starts: its weights, its outputs and its run in MLflow."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from manifests import Document
from steps import Ended
from trainings import EPOCHS, Trainings

pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class Trained:
    """A finished training, and its pods at their end by their names."""

    uri: str
    pods: dict[str, Document]
    ended: Ended


@pytest.fixture(scope="module")
def trained(trainings: Trainings) -> Iterator[Trained]:
    """A training that nothing disturbs."""
    with trainings.start("undisturbed") as training:
        assert trainings.expected  # the same training on this machine, at the same time
        pods = {replica: training.pod(replica) for replica in ("master-0", "worker-0", "worker-1")}
        yield Trained(training.uri, pods, training.finish())


def test_two_pods_learn_the_weights_of_two_processes_of_one_machine(trainings: Trainings, trained: Trained):
    import torch

    assert trained.ended.succeeded, trained.ended.log
    model = trainings.model(trained.uri)
    expected = trainings.expected
    assert model["step"] == expected["step"] == EPOCHS
    assert model["model"].keys() == expected["model"].keys()
    unequal = {
        name: float((value - expected["model"][name]).abs().max())
        for name, value in model["model"].items()
        if not torch.equal(value, expected["model"][name])
    }
    assert not unequal
