"""A check that the item scores of an outcome give its numbers."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from previts.evals.outcome import ITEMS, Outcome, unpack


def check_items(outcome: Outcome, names: set[str]) -> None:
    """Fail unless these numbers have item scores, and each number follows from its scores."""
    found = unpack(outcome.files[ITEMS])
    assert set(found) == names
    for name, scores in found.items():
        if scores.labels is None:
            value = np.mean(scores.values)
        else:
            kept = [column != 0 for column in scores.labels.T]
            value = np.mean(
                [
                    100 * average_precision_score(scores.labels[rows, number] == 1, run[rows, number])
                    for run in scores.values
                    for number, rows in enumerate(kept)
                ]
            )
        assert value == pytest.approx(outcome.metrics[name], rel=1e-5), name
