"""Oracle: changes of single weights and statistics."""

import pytest
import torch
from colour_images import image_model

from previts.evals import frozen


def test_the_digest_changes_with_any_weight_or_statistic():
    model = image_model()
    before = frozen.weights_digest(model)
    assert frozen.weights_digest(image_model()) == before
    assert frozen.unchanged(model, before) == {"weights_before": before, "weights_after": before}
    for value in (model.encoder.conv1.weight, model.encoder.bn1.running_mean):
        with torch.no_grad():
            first = (0,) * value.ndim
            kept = value[first].item()
            value[first] += 1e-3
            assert frozen.weights_digest(model) != before
            with pytest.raises(AssertionError, match="an evaluation changed the model"):
                frozen.unchanged(model, before)
            value[first] = kept
    assert frozen.weights_digest(model) == before
