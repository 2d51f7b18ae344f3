"""Oracles: the values that were written, SHA-256 of the bytes, and files that are not weights."""

import hashlib
import pickle
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


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>", tensors.to_bytes(STATE)[:-40], pickle.dumps(Attack(), protocol=2)],
    ids=["empty", "web page", "truncated", "code"],
)
def test_files_without_weights_are_refused_and_run_no_code(tmp_path: Path, capsys, data: bytes):
    path = tmp_path / "weights.pt"
    path.write_bytes(data)
    with pytest.raises(
        InputError, match=r"model\.weights: .*weights\.pt holds no weights.*; give a state dict"
    ) as raised:
        tensors.load(str(path), "model.weights")
    assert "weights_only=False" not in str(raised.value)
    assert "code ran" not in capsys.readouterr().out


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
    assert tensors.read_checked(uri, unchecked=True) is None
    assert f"{uri} is damaged" in capsys.readouterr().err
