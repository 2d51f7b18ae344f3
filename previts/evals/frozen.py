"""Check that an evaluation does not change a model: a digest of all weights, before and after the evaluation."""

import hashlib

from previts.models.moco import MoCo


def weights_digest(model: MoCo) -> str:
    """Return 12 hex digits of all weights and statistics of a model; they differ if the model was trained."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def unchanged(model: MoCo, before: str) -> dict[str, str]:
    """Return the digests of a model before and after an evaluation, which must be equal, for an outcome's protocol."""
    after = weights_digest(model)
    assert after == before, "an evaluation changed the model"
    return {"weights_before": before, "weights_after": after}
