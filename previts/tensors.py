"""Files of tensors: those that may come from elsewhere, and our own, which bear a checksum.

All are read with `weights_only=True`, so none can run what it holds, and are named when they cannot be read.
"""

import hashlib
import io
import pickle
import sys
import zipfile
from typing import Any

import torch

from previts import storage
from previts.errors import InputError

ENCODER = "encoder.pt"  # in a finished folder of `pretrain`
# What torch.load and load_state_dict raise for files that are cut short, damaged, or hold more than tensors.
DAMAGED = (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, LookupError, AttributeError, zipfile.BadZipFile)


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
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        what = "it is a folder" if isinstance(error, IsADirectoryError) else "there is no such file"
        raise InputError(
            f"{field} names {path}, and {what}; give a state dict, or the finished folder of a checkpoint"
        ) from None
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), hashlib.sha256(data).hexdigest()
    except Exception as error:  # the bytes of any other file make torch's unpickler fail in any way
        raise InputError(f"{field}: {path} holds no weights that can be read ({reason(error)})") from None


def reason(error: Exception) -> str:
    """Return the kind of an error with its first sentence; that of a refused pickle tells how to load it unsafely."""
    silent = isinstance(error, pickle.UnpicklingError | KeyError)
    text = "" if silent else str(error).partition("\n")[0].partition(". ")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def write_checked(uri: str, state: dict[str, Any]) -> None:
    """Write a .pt file, then its SHA-256 beside it, without which it is as if the file were not there."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    storage.write_bytes(uri, data)
    storage.write_bytes(uri + ".sha256", hashlib.sha256(data).hexdigest().encode() + b"\n")


def read_checked(uri: str, device: torch.device | str) -> dict[str, Any] | None:
    """Return what `write_checked` wrote, or None where it is missing, incomplete or damaged."""
    try:
        expected = storage.read_bytes(uri + ".sha256").decode(errors="replace").strip()
        data = storage.read_bytes(uri)
    except FileNotFoundError:
        return None
    if hashlib.sha256(data).hexdigest() != expected:
        print(f"{uri} is damaged (its checksum differs): ignored", file=sys.stderr)
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    return state


def delete_checked(uri: str) -> None:
    """Delete a file and its checksum, that first: what is left of a kill in between is not believed."""
    for name in (uri + ".sha256", uri):
        storage.delete(name)
