"""Oracles: the values that were written, SHA-256 of the bytes, and files that are not weights."""

import argparse
import hashlib
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from previts.errors import InputError
from previts.storage import folders, tensors

STATE = {"weights": torch.arange(6.0).reshape(2, 3), "step": 4}


def test_loaded_weights_equal_the_saved_ones_and_come_with_their_digest(tmp_path: Path):
    path = tmp_path / "weights.pt"
    path.write_bytes(tensors.to_bytes(STATE))
    state, digest = tensors.load(str(path), "model.weights")
    assert torch.equal(state["weights"], STATE["weights"])
    assert state["step"] == 4
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


class Attack:
    def __reduce__(self):
        return print, ("code ran",)


def saved(state: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


def zipped(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


ARGUMENTS = {"state_dict": STATE, "args": argparse.Namespace(lr=0.1)}
OLD = {"_use_new_zipfile_serialization": False}
REFUSED = {
    "nothing": (b"", r"is empty \(0 bytes\); copy or download it again"),
    "web page": (b"<html>", r"is a web page \(HTML\).*; download the file itself"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS.*git lfs pull"),
    "cut": (saved(STATE)[:-40], "is cut short: its end is missing; copy or download it again"),
    "cut, old format": (saved(STATE, **OLD)[:-7], "is cut short; copy or download it again"),
    "cut early": (saved(STATE, **OLD)[:60], "is cut short; copy or download it again"),
    "arguments": (
        saved(ARGUMENTS),
        r"contains more than tensors: argparse\.Namespace, .*torch\.save\(checkpoint\['state_dict'\]",
    ),
    "arguments, old format": (saved(ARGUMENTS, **OLD), r"contains more than tensors: argparse\.Namespace, "),
    "whole model": (saved(torch.nn.Linear(1, 1)), r"contains more than tensors: torch\.nn\.modules\.linear\.Linear, "),
    "array": (saved({"a": np.eye(2)}), r"contains more than tensors: numpy\..*_reconstruct, "),
    "code": (pickle.dumps(Attack(), protocol=2), r"contains more than tensors: print, "),
    "pickle": (pickle.dumps({"a": 1}, protocol=4), "is a pickle, and not one that torch.save writes by default; save"),
    "other protocol": (saved(ARGUMENTS, pickle_protocol=4), "is a pickle, and not one that torch.save writes"),
    "zip of weights": (zipped("w/net.pth", saved(STATE)), r"is a zip archive of w/net\.pth; unpack it"),
    "script": (zipped("net/code/net.py", b""), "is a TorchScript model; save its tensors"),
    "text": (b"no weights", "holds no weights that can be read .*; give a state dict, or the finished folder"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_files_without_weights_are_refused_with_their_content_and_run_no_code(
    tmp_path: Path, capsys, data: bytes, message: str
):
    path = tmp_path / "weights.pt"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"model\.weights: .*weights\.pt {message}") as raised:
        tensors.load(str(path), "model.weights")
    assert "weights_only=False" not in str(raised.value)
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "old format"])
@pytest.mark.parametrize(
    "number", [np.float64(0.1), np.float32(2.5), np.int64(-3), np.bool_(True), np.dtype(">f8").type(7)]
)
def test_numbers_of_numpy_are_read_as_numbers(tmp_path: Path, number: np.generic, options: dict[str, bool]):
    path = tmp_path / "weights.pt"
    path.write_bytes(saved({"state_dict": STATE, "best": number}, **options))
    state, _ = tensors.load(str(path), "model.weights")
    assert state["best"] == number
    assert type(state["best"]) is type(number.item())


@pytest.mark.parametrize("scalar", [np.str_("x"), np.datetime64("2026-01-01"), np.void(b"ab")])
def test_other_scalars_of_numpy_are_refused(tmp_path: Path, scalar: np.generic):
    path = tmp_path / "weights.pt"
    path.write_bytes(saved({"best": scalar}))
    with pytest.raises(InputError, match=r"weights\.pt "):
        tensors.load(str(path), "model.weights")


def test_missing_files_and_folders_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="there is no such file"):
        tensors.load(str(tmp_path / "gone.pt"), "model.weights")
    with pytest.raises(InputError, match="it is a folder"):
        tensors.load(str(tmp_path), "model.weights")


def test_the_weights_of_a_checkpoint_are_its_encoder_and_other_stages_are_refused(tmp_path: Path):
    checkpoint, videos = (folders.address(str(tmp_path), stage, "x", {}) for stage in ("checkpoints", "videos"))
    assert tensors.weights_path(checkpoint, "f") == checkpoint  # not finished
    folders.commit(checkpoint, {})
    folders.commit(videos, {})
    assert tensors.weights_path(checkpoint, "f") == f"{checkpoint}/encoder.pt"
    with pytest.raises(InputError, match=r"f = .* is an output of stage 'videos', not weights; give"):
        tensors.weights_path(videos, "f")


def test_checked_arrays_are_read_by_name(tmp_path: Path):
    uri = str(tmp_path / "maps.npz")
    maps = {"a": np.arange(5), "b": np.eye(2)}
    tensors.write_checked(uri, maps)
    read = tensors.read_checked(uri)
    assert read is not None
    assert read.keys() == maps.keys()
    only = tensors.read_checked(uri, names=["b"])
    assert only is not None
    assert list(only) == ["b"]
    np.testing.assert_array_equal(only["b"], maps["b"])
    tensors.delete_checked(uri)
    assert list(tmp_path.iterdir()) == []
    assert tensors.read_checked(uri) is None


@pytest.mark.parametrize("position", [0, 100, -1])
def test_one_changed_byte_is_damage(tmp_path: Path, capsys, position: int):
    uri = str(tmp_path / "state.pt")
    tensors.write_checked(uri, STATE)
    data = bytearray(Path(uri).read_bytes())
    data[position] ^= 1
    Path(uri).write_bytes(data)
    assert tensors.read_checked(uri) is None
    assert f"{uri} is damaged" in capsys.readouterr().err


def test_an_empty_checksum_is_damage(tmp_path: Path, capsys):
    uri = str(tmp_path / "state.pt")
    tensors.write_checked(uri, STATE)
    Path(f"{uri}.sha256").write_bytes(b"")
    assert tensors.read_checked(uri) is None
    assert f"{uri} is damaged" in capsys.readouterr().err


def test_a_copy_of_another_file_with_its_checksum_is_ignored(tmp_path: Path, capsys):
    one, other = (str(tmp_path / f"x-{digit * 12}" / "model.pt") for digit in "ab")
    tensors.write_checked(one, {"step": 1})
    tensors.write_checked(other, {"step": 2})
    for name in ("", ".sha256"):
        Path(one + name).write_bytes(Path(other + name).read_bytes())
    assert tensors.read_checked(one) is None
    assert f"{one} is a copy of {'b' * 12}/model.pt and is ignored" in capsys.readouterr().err


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(50_000_000))
    assert len(buffer.getvalue()) < 100_000
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps({"step": 1}), "cannot be read"),
        (pickle.dumps(Attack()), "cannot be read"),
        (tensors.to_bytes({"step": Attack()}), "cannot be read \\(UnpicklingError\\)"),
        (bomb(), "cannot be read .*would unpack to 500000"),
        (b"", "cannot be read"),
        (b"PK\x03\x04", "cannot be read"),
        (tensors.to_bytes([1, 2]), "contains list, expected a dictionary"),
    ],
    ids=["pickle", "code", "code in a torch file", "bomb", "empty", "zip", "list"],
)
def test_a_file_that_is_no_state_is_an_input_error_although_its_checksum_is_right(tmp_path, capsys, data, message):
    uri = str(tmp_path / "model.pt")
    Path(uri).write_bytes(data)
    Path(f"{uri}.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  model.pt\n")
    with pytest.raises(InputError, match=f"{uri} .*{message}.*delete it and run the same command again"):
        tensors.read_checked(uri)
    if "list" not in message:
        with pytest.raises(InputError, match=f"model.weights: {uri} (is|contains) .*(again|save its tensors)"):
            tensors.load(uri, "model.weights")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"no zip", pickle.dumps({"a": 1})])
def test_an_archive_that_is_none_is_an_input_error(tmp_path: Path, content: bytes):
    uri = str(tmp_path / "maps.npz")
    Path(uri).write_bytes(content)
    Path(f"{uri}.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  maps.npz\n")
    with pytest.raises(InputError, match=f"{uri} .*cannot be read"):
        tensors.read_checked(uri)
    Path(uri).unlink()
    Path(uri).mkdir()
    with pytest.raises(InputError, match="is a folder, expected a file"):
        tensors.read_checked(uri)


def test_a_file_of_a_finished_folder_must_be_the_one_that_was_committed(tmp_path: Path):
    folder = folders.address(str(tmp_path), "checkpoints", "x", {})
    uri = f"{folder}/encoder.pt"
    tensors.write_checked(uri, {"weight": torch.ones(2)})
    folders.commit(folder, {}, files=["encoder.pt"])
    assert tensors.read_checked(uri) is not None
    tensors.load(uri, "model.weights")
    tensors.write_checked(uri, {"weight": torch.zeros(2)})
    for read in (lambda: tensors.read_checked(uri), lambda: tensors.load(uri, "model.weights")):
        with pytest.raises(InputError, match=r"encoder\.pt was changed after manifest\.json was written"):
            read()
    assert tensors.load(str(Path(uri).rename(tmp_path / "mine.pt")), "model.weights")[0]["weight"].sum() == 0


def test_weights_are_found_by_the_name_of_their_file_alone_and_beside_their_own_manifest(tmp_path, monkeypatch):
    folder = Path(folders.address(str(tmp_path), "checkpoints", "x", {}))
    tensors.write_checked(f"{folder}/encoder.pt", {"weight": torch.ones(2)})
    folders.commit(str(folder), {}, files=["encoder.pt"])
    monkeypatch.chdir(folder)
    assert tensors.load("encoder.pt", "model.weights")[0]["weight"].sum() == 2
    tensors.write_checked(f"{folder}/encoder.pt", {"weight": torch.zeros(2)})
    with pytest.raises(InputError, match=r"encoder\.pt was changed after manifest\.json was written"):
        tensors.load("encoder.pt", "model.weights")


@pytest.mark.parametrize("name", ["/dev/zero", "pipe"])
def test_a_device_or_a_pipe_is_not_read_as_weights(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=f"{name} is a pipe or a device, expected a file; give a state dict"):
        tensors.load(str(tmp_path / name), "model.weights")  # an absolute name replaces the folder
