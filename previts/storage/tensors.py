"""Files of tensors: weights from any source, and the project's own files, each with a checksum next to it.

All are loaded by `parse` with `weights_only=True`, so no file can run code. Messages name the file that cannot be read.
"""

import hashlib
import io
import os
import pickle
import re
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from previts.errors import InputError
from previts.storage import contents, files, folders

ENCODER = "encoder.pt"  # in a finished folder of `pretrain`
CHECKSUM = ".sha256"  # appended to the file name


class DamagedError(ValueError):
    """Bytes that are no torch file or NumPy archive, are incomplete, or contain more than data."""


WRAPPERS = ("module", "_orig_mod")  # what DataParallel, DistributedDataParallel and torch.compile add to names
REMEDY = "give a state dict, or the finished folder of a checkpoint"


class _NumpyType:
    """Stands in for `numpy.dtype` in a pickle: the code of a type and its byte order, both unchecked."""

    def __init__(self, code: object, *flags: object) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


def _number(kind: _NumpyType, data: bytes) -> complex:
    """Stand in for NumPy's function that reads a scalar in a pickle: return a Python number.

    Raises:
        UnpicklingError: If it is not a number.
    """
    text = f"{kind.order}{kind.code}"
    if not re.fullmatch(r"[<>|=][biufc]\d\d?", text):
        raise pickle.UnpicklingError("a NumPy scalar that is no number")
    numbers: list[complex] = np.frombuffer(data, np.dtype(text)).tolist()
    (number,) = numbers
    return number


# Training scripts save their best accuracy as a NumPy scalar. NumPy's own code does not read it.
_NUMPY: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_number, "numpy._core.multiarray.scalar"),
    (_number, "numpy.core.multiarray.scalar"),
    (_NumpyType, "numpy.dtype"),
]


def weights_path(uri: str, field: str) -> str:
    """Return the weights file of a URI: the URI itself, or the encoder in a finished folder of `pretrain`.

    Raises:
        InputError: If the URI is a finished folder of another stage, or its manifest is damaged.
    """
    if not files.exists(files.join(uri, folders.MANIFEST)):
        return uri
    if (stage := folders.read_manifest(uri).stage) != "checkpoints":
        raise InputError(f"{field} = {uri} is an output of stage {stage!r}, not weights; {REMEDY}")
    return files.join(uri, ENCODER)


def load(path: str, field: str, remedy: str = REMEDY) -> tuple[Any, str]:
    """Return the content of a torch file, on the CPU, and the SHA-256 of its bytes.

    Numbers of NumPy are returned as Python's.

    Args:
        path: From `weights_path`.
        field: The setting that names the file, for messages.
        remedy: What to give instead of a file that is missing or unknown, for messages.

    Raises:
        InputError: If the file is missing, cannot be read, contains more than data, or is in a finished folder and is
            not the file that the stage wrote. The message says what it is.
    """
    path = files.absolute(path)  # the name of a file alone has no folder
    try:
        if files.local_path(path) is None or not os.path.isdir(path):
            files.check_regular(path, remedy)
        data = files.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        what = "it is a folder without a finished checkpoint" if files.exists(path) else "there is no such file"
        raise InputError(f"{field} names {path}, and {what}; {remedy}") from None
    folder, _, name = path.rpartition("/")
    if folders.is_committed(folder):
        folders.check_file(folder, name, data)
    try:
        _check_size(data)
        with torch.serialization.safe_globals(_NUMPY):
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # on arbitrary bytes, torch's unpickler may raise any error
        raise InputError(f"{field}: {path} {_refusal(data, error, remedy)}") from None
    return state, hashlib.sha256(data).hexdigest()


def _refusal(data: bytes, error: Exception, remedy: str) -> str:
    """Return why torch cannot read the bytes of a file, and what to do, as the end of a sentence."""
    if what := contents.describe(data):
        return f"is {what}"
    if unknown := re.search(r"GLOBAL (\S+) was not an allowed", str(error)):
        return (
            f"contains more than tensors: {unknown[1]}, and reading that could run code; where you trust the file, "
            "save its tensors alone: torch.save(checkpoint['state_dict'], FILE) or torch.save(model.state_dict(), FILE)"
        )
    if data.startswith(b"PK") and "Unsupported operand" not in str(error):
        return _zip_refusal(data, error)
    if isinstance(error, EOFError) or "EOF" in str(error) or "truncated" in str(error):
        return "is cut short; copy or download it again"
    if data.startswith((b"PK", b"\x80")):
        return (
            "is a pickle, and not one that torch.save writes by default; save the tensors of a state dict again: "
            "torch.save(state_dict, FILE)"
        )
    return f"holds no weights that can be read ({reason(error)}); {remedy}"


def _zip_refusal(data: bytes, error: Exception) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "is cut short: its end is missing; copy or download it again"
    if any("/code/" in name for name in names):
        return "is a TorchScript model; save its tensors: torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
    if any(name.endswith("/data.pkl") for name in names):
        return f"is damaged ({reason(error)}); copy or download it again"
    return f"is a zip archive of {', '.join(names[:3])}; unpack it and give the file of weights in it"


def unwrapped(state: Mapping[Any, Any], source: str) -> dict[str, Any]:
    """Return tensors by names without the parts that torch's wrappers add, such as `module.` and `_orig_mod.`.

    Raises:
        InputError: If two names become one.
    """
    found: dict[str, Any] = {}
    for name, value in state.items():
        plain = ".".join(part for part in str(name).split(".") if part not in WRAPPERS)
        if plain in found:
            raise InputError(f"{source} has several tensors {plain}, such as {name}; save those of one model")
        found[plain] = value
    return found


def check_plain(state: Mapping[str, torch.Tensor], source: str) -> None:
    """Raise an InputError if a tensor is not a block of real numbers in memory, which is what weights are."""
    odd = [
        name
        for name, value in state.items()
        if value.is_meta or value.is_nested or value.is_quantized or value.is_complex() or value.layout != torch.strided
    ]
    if odd:
        raise InputError(
            f"{source} has {len(odd)} tensors that are not plain numbers (such as {odd[0]}), but complex, quantised, "
            "sparse, nested or without values; save the weights as dense tensors of real numbers"
        )


def check_finite(state: Mapping[str, torch.Tensor], source: str) -> None:
    """Raise an InputError if a tensor has values that are not finite."""
    if spoilt := [name for name, value in state.items() if not torch.isfinite(value).all()]:
        raise InputError(
            f"{source} has values that are NaN or infinite in {len(spoilt)} of {len(state)} tensors (such as "
            f"{spoilt[0]}): the training that wrote it diverged; give weights of an earlier step or of another training"
        )


def parse(data: bytes, device: torch.device | str = "cpu") -> Any:
    """Return the content of a torch file, which can only be data, never code.

    Raises:
        DamagedError: If the bytes cannot be read, or would need more memory than they have bytes.
    """
    try:
        _check_size(data)
        return torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except Exception as error:  # on arbitrary bytes, torch's unpickler may raise any error
        raise DamagedError(reason(error)) from None


def _check_size(data: bytes) -> None:
    """Raise a ValueError if the bytes are a zip archive that grows when it is unpacked: torch compresses nothing."""
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > len(data):
            raise ValueError(f"it would unpack to {size} bytes, more than its own {len(data)}")


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
    """Write tensors as a .pt file, or arrays as an .npz file, then its checksum next to it.

    The checksum is the file's SHA-256 and its place (`folders.place`), so that a copy of another file is not taken for
    it. A file without its checksum is treated as incomplete.
    """
    if uri.endswith(".npz"):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **state)
        data = buffer.getvalue()
    else:
        data = to_bytes(state)
    # Until both are written, the checksum does not fit. If the disk is full, the earlier file and its checksum stay.
    files.write_bytes(uri, data)
    files.write_bytes(uri + CHECKSUM, f"{hashlib.sha256(data).hexdigest()}  {folders.place(uri)}\n".encode())


def read_checked(uri: str, device: torch.device | str = "cpu", *, names: Sequence[str] = ()) -> dict[str, Any] | None:
    """Return the content of a file of `write_checked`, or None if it is missing, incomplete or damaged.

    Args:
        uri: The file.
        device: Device for the tensors of a .pt file.
        names: Arrays of an .npz file to return; by default all.

    Raises:
        InputError: If the checksum is right, but the file contains no dictionary of data or not all `names`; or if its
            folder is finished, and the file is not the one that the stage wrote.
    """
    try:
        data = folders.read_file(*uri.rsplit("/", 1))
    except FileNotFoundError:
        return None
    try:
        files.check_regular(uri + CHECKSUM)
        digest, _, place = files.read_bytes(uri + CHECKSUM).decode(errors="replace").strip().partition("  ")
    except FileNotFoundError:
        print(f"{uri}{CHECKSUM} is missing, so {uri} is incomplete and is ignored", file=sys.stderr)
        return None
    if hashlib.sha256(data).hexdigest() != digest:
        print(f"{uri} is damaged (its checksum differs) and is ignored", file=sys.stderr)
        return None
    if not folders.is_at(place, uri):
        print(f"{uri} is a copy of {place or 'another file'} and is ignored", file=sys.stderr)
        return None
    try:
        content = _arrays(data, names) if uri.endswith(".npz") else parse(data, device)
    except DamagedError as error:
        raise InputError(
            f"{uri} has the right checksum, but cannot be read ({error}); delete it and run the same command again"
        ) from None
    if not isinstance(content, dict):
        raise InputError(
            f"{uri} contains {type(content).__name__}, expected a dictionary; delete it and run the same command again"
        )
    return content


def _arrays(data: bytes, names: Sequence[str]) -> dict[str, Any]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in names or file.files}
    except Exception as error:  # on arbitrary bytes, the readers of zip and npy files may raise any error
        raise DamagedError(reason(error)) from None


def delete_checked(uri: str) -> None:
    """Delete a file and its checksum.

    The checksum is deleted first. If the process is killed in between, the file counts as incomplete.
    """
    for name in (uri + CHECKSUM, uri):
        files.delete(name)
