"""Files of tensors that may come from elsewhere: read without running what they hold, and named when they cannot be."""

import hashlib
import io
import pickle
import zipfile
from typing import Any

import torch

from previts import storage
from previts.errors import InputError

ENCODER = "encoder.pt"  # in a finished folder of `pretrain`
# What torch.load and load_state_dict raise for files that are cut short, damaged, or hold more than tensors.
DAMAGED = (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile)


def weights_path(uri: str, field: str) -> str:
    """Return the file behind a URI of weights: itself, or the encoder in a finished folder of `pretrain`.

    Raises:
        InputError: If it is a finished folder of another stage.
    """
    if not storage.is_committed(uri):
        return uri
    if (stage := storage.read_manifest(uri).stage) != "checkpoints":
        raise InputError(f"{field} = {uri} is an output of stage {stage!r}, not weights")
    return storage.join(uri, ENCODER)


def load(path: str, field: str) -> tuple[Any, str]:
    """Return what a file of torch holds, on the CPU, and the SHA-256 of its bytes.

    Args:
        path: From `weights_path`.
        field: The setting that names it, for messages.

    Raises:
        InputError: If there is no such file, or it cannot be read, or holds more than data.
    """
    try:
        data = storage.read_bytes(path)
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), hashlib.sha256(data).hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        what = "it is a folder" if isinstance(error, IsADirectoryError) else "there is no such file"
        raise InputError(
            f"{field} names {path}, and {what}; give a state dict, or the finished folder of a checkpoint"
        ) from None
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"{field}: {path} holds no weights that can be read ({reason(error)})") from None


def reason(error: Exception) -> str:
    """Return the kind of an error with its first sentence; that of a refused pickle tells how to load it unsafely."""
    silent = isinstance(error, pickle.UnpicklingError | KeyError)
    text = "" if silent else str(error).partition("\n")[0].partition(". ")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
