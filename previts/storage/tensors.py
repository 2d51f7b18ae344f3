"""Files of tensors: weights from any source, and the project's own files, each with a checksum next to it.

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
CHECKSUM = ".sha256"  # appended to the file name
# Errors of torch.load and load_state_dict for files that are truncated, damaged, or contain more than tensors.
DAMAGED = (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, LookupError, AttributeError, zipfile.BadZipFile)


def weights_path(uri: str, field: str) -> str:
    """Return the weights file of a URI: the URI itself, or the encoder in a finished folder of `pretrain`.

    Raises:
        InputError: If the URI is a finished folder of another stage.
    """
    if not folders.is_committed(uri):
        return uri
    if (stage := folders.read_manifest(uri).stage) != "checkpoints":
        raise InputError(
            f"{field} = {uri} is an output of stage {stage!r}, not weights; "
            "give a state dict, or the finished folder of a checkpoint"
        )
    return files.join(uri, ENCODER)


def load(path: str, field: str) -> tuple[Any, str]:
    """Return the content of a torch file, on the CPU, and the SHA-256 of its bytes.

    Args:
        path: From `weights_path`.
        field: The setting that names the file, for messages.

    Raises:
        InputError: If the file is missing, cannot be read, or contains more than data.
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
    except Exception as error:  # on arbitrary bytes, torch's unpickler may raise any error
        raise InputError(
            f"{field}: {path} holds no weights that can be read ({reason(error)}); "
            "give a state dict, or the finished folder of a checkpoint"
        ) from None


def reason(error: Exception) -> str:
    """Return the type of an error and its first sentence.

    The text of a refused pickle is left out, because it explains how to load the file unsafely.
    """
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

    A file without its checksum is treated as incomplete.
    """
    if uri.endswith(".npz"):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **state)
        data = buffer.getvalue()
    else:
        data = to_bytes(state)
    files.delete(uri + CHECKSUM)  # the checksum of the file that this one replaces
    files.write_bytes(uri, data)
    files.write_bytes(uri + CHECKSUM, hashlib.sha256(data).hexdigest().encode() + b"\n")


def read_checked(
    uri: str, device: torch.device | str = "cpu", *, names: Sequence[str] = (), unchecked: bool = False
) -> dict[str, Any] | None:
    """Return the content of a file of `write_checked`, or None if it is missing, incomplete or damaged.

    Args:
        uri: The file.
        device: Device for the tensors of a .pt file.
        names: Arrays of an .npz file to return; by default all.
        unchecked: Whether to read a file without a checksum too, if its own format shows no damage.
    """
    try:
        data = files.read_bytes(uri)
    except FileNotFoundError:
        return None
    expected: str | None = None
    try:
        expected = files.read_bytes(uri + CHECKSUM).decode(errors="replace").strip()
    except FileNotFoundError:
        if not unchecked:
            print(f"{uri}{CHECKSUM} is missing, so {uri} is incomplete and is ignored", file=sys.stderr)
            return None
    if expected is not None and hashlib.sha256(data).hexdigest() != expected:
        print(f"{uri} is damaged (its checksum differs) and is ignored", file=sys.stderr)
        return None
    try:
        if uri.endswith(".npz"):
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                return {name: file[name] for name in names or file.files}
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except DAMAGED as error:
        if expected is not None:
            raise
        print(f"{uri} is damaged ({reason(error)}) and is ignored", file=sys.stderr)
        return None
    return state


def delete_checked(uri: str) -> None:
    """Delete a file and its checksum.

    The checksum is deleted first. If the process is killed in between, the file counts as incomplete.
    """
    for name in (uri + CHECKSUM, uri):
        files.delete(name)
