"""Weights that the user gives for a saliency network or a detector, with the origin of their labels.

`fit.weights` names them. This file reads them; `network.py` and `supervised.py` load them into models.
"""

from dataclasses import dataclass

import torch

from previts.errors import InputError
from previts.storage import folders, tensors


@dataclass(frozen=True)
class Weights:
    """Weights to start from.

    Attributes:
        tensors: Tensors by name.
        sha256: Digest of their file.
        labels: Kind of the labels that they were trained with, a colon, and a remark. The kind is part of the identity
            of what is made from the weights.
    """

    tensors: dict[str, torch.Tensor]
    sha256: str
    labels: str


def read_weights(uri: str) -> Weights:
    """Return the weights of a file, or of the encoder in a finished folder of `pretrain`.

    Raises:
        InputError: If the file is missing, or contains anything but named tensors with finite values.
    """
    path = tensors.weights_path(uri, "fit.weights")
    source = f"fit.weights: {path}"
    loaded, digest = tensors.load(path, "fit.weights")
    for name in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
    named = isinstance(loaded, dict) and all(isinstance(name, str) for name in loaded)
    if not named or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise InputError(
            f"{source} contains {type(loaded).__name__}, expected tensors by name; save the model's "
            "state dict in this file"
        )
    labels = _labels_of(uri) if path != uri else f"unknown: the weights at {uri} may have been trained with labels"
    # Files may be in half precision to save space. Training is in single precision.
    named_tensors = tensors.unwrapped(loaded, source)
    tensors.check_plain(named_tensors, source)
    found = {name: value.float() if value.is_floating_point() else value for name, value in named_tensors.items()}
    tensors.check_finite(found, source)  # numbers in double precision may be too large
    return Weights(found, digest, labels)


def _labels_of(checkpoint: str) -> str:
    """Return the origin of the labels of a checkpoint of this project: that of the saliency model of its tubes."""
    try:
        model = folders.ancestor(checkpoint, "index", "tubes", "saliency", "model")
        known = str(folders.read_manifest(model).info["labels"])
    except (InputError, KeyError):
        return "unknown: an encoder that this project pretrained, on tubes whose saliency model is not recorded"
    return (
        f"{known.partition(':')[0]}: an encoder that this project pretrained, on tubes of a model with labels {known}"
    )
