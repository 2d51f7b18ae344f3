"""Files of tensors: weights that may come from elsewhere, and this project's own files, which have a checksum.

All are loaded with `weights_only=True`, so no file can run code. Messages name the file that cannot be read.
"""

import hashlib
import io
import pickle
import sys
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from previts.errors import InputError
from previts.storage import files, folders

ENCODER = "encoder.pt"  # in a finished folder of `pretrain`
CHECKSUM = ".sha256"  # after the name of the file
# What torch.load and load_state_dict raise for files that are cut short, damaged, or hold more than tensors.
DAMAGED = (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, LookupError, AttributeError, zipfile.BadZipFile)


def weights_path(uri: str, field: str) -> str:
    """Return the file behind a URI of weights: itself, or the encoder in a finished folder of `pretrain`.

    Raises:
        InputError: If it is a finished folder of another stage.
    """
    if not folders.is_committed(uri):
        return uri
    if (stage := folders.read_manifest(uri).stage) != "checkpoints":
        raise InputError(f"{field} = {uri} is an output of stage {stage!r}, not weights")
    return files.join(uri, ENCODER)


def load(path: str, field: str) -> tuple[Any, str]:
    """Return what a file of torch holds, on the CPU, and the SHA-256 of its bytes.

    Args:
        path: From `weights_path`.
        field: The setting that names it, for messages.

    Raises:
        InputError: If there is no such file, or it cannot be read, or holds more than data.
    """
    try:
        data = files.read_bytes(path)
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


def to_bytes(state: Any) -> bytes:
    """Return a state as the bytes of a .pt file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def write_checked(uri: str, state: dict[str, Any]) -> None:
    """Write tensors as a .pt file, or arrays as an .npz file, then its SHA-256 next to it.

    Without the checksum the file counts as incomplete.
    """
    if uri.endswith(".npz"):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **state)
        data = buffer.getvalue()
    else:
        data = to_bytes(state)
    files.delete(uri + CHECKSUM)  # of a file that this one replaces
    files.write_bytes(uri, data)
    files.write_bytes(uri + CHECKSUM, hashlib.sha256(data).hexdigest().encode() + b"\n")


def read_checked(
    uri: str, device: torch.device | str = "cpu", *, names: Sequence[str] = (), unchecked: bool = False
) -> dict[str, Any] | None:
    """Return the content of a file of `write_checked`, or None where it is missing, incomplete or damaged.

    Args:
        uri: The file.
        device: Where the tensors of a .pt file are wanted.
        names: Which arrays of an .npz file to return; all by default.
        unchecked: Whether a file without a checksum is read too, if its own format shows no damage.
    """
    try:
        data = files.read_bytes(uri)
    except FileNotFoundError:
        return None
    try:
        expected = files.read_bytes(uri + CHECKSUM).decode(errors="replace").strip()
    except FileNotFoundError:
        if not unchecked:
            print(f"{uri} has no {CHECKSUM}, so it is incomplete: ignored", file=sys.stderr)
            return None
        expected = ""
    if expected and hashlib.sha256(data).hexdigest() != expected:
        print(f"{uri} is damaged (its checksum differs): ignored", file=sys.stderr)
        return None
    try:
        if uri.endswith(".npz"):
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                return {name: file[name] for name in names or file.files}
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except DAMAGED as error:
        if expected:
            raise
        print(f"{uri} is damaged ({reason(error)}): ignored", file=sys.stderr)
        return None
    return state


def delete_checked(uri: str) -> None:
    """Delete a file and its checksum; the checksum first, so that after a kill in between the file is incomplete."""
    for name in (uri + CHECKSUM, uri):
        files.delete(name)
