"""Weights that the user gives. Oracles: the tensors that were saved, and files that are no weights."""

import hashlib

import pytest
import torch

from previts.errors import InputError
from previts.saliency.weights import read_weights
from previts.storage import files, folders


def test_weights_are_the_saved_tensors_and_their_labels_are_unknown(tmp_path):
    state = {"conv.weight": torch.randn(4, 3, 1, 1), "bn.num_batches_tracked": torch.tensor(7)}
    path = str(tmp_path / "weights.pt")
    for stored in (state, {"state_dict": state}, {"model": state}):
        torch.save(stored, path)
        found = read_weights(path)
        assert found.sha256 == hashlib.sha256((tmp_path / "weights.pt").read_bytes()).hexdigest()
        assert found.labels == f"unknown: the weights at {path} may have been trained with labels"
        assert list(found.tensors) == list(state)
        for name, tensor in state.items():
            assert torch.equal(found.tensors[name], tensor)


def test_an_encoder_of_this_project_has_the_labels_of_its_tubes(tmp_path):
    root, uri, above = str(tmp_path / "root"), "", ""
    for stage, role in (
        ("saliency_model", ""), ("saliency", "model"), ("tubes", "saliency"), ("index", "tubes"),
        ("checkpoints", "index"),
    ):  # fmt: skip
        above, uri = uri, folders.address(root, stage, "x", {"stage": stage})
        if stage == "checkpoints":
            torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "encoder.pt")
            files.upload(str(tmp_path / "encoder.pt"), files.join(uri, "encoder.pt"))
        inputs, written = {role: above} if role else {}, ["encoder.pt"] if stage == "checkpoints" else []
        folders.commit(uri, {"stage": stage}, inputs=inputs, info={"labels": "none: by hand"}, files=written)
    assert read_weights(uri).labels == (
        "none: an encoder that this project pretrained, on tubes of a model with labels none: by hand"
    )


def test_an_encoder_whose_tubes_are_not_recorded_has_unknown_labels(tmp_path):
    torch.manual_seed(4)
    encoder = {"conv1.weight": torch.randn(64, 3, 7, 7), "layer1.0.conv1.weight": torch.randn(64, 64, 3, 3)}
    torch.save(encoder, tmp_path / "encoder.pt")
    root, decided = str(tmp_path / "root"), {"row": "x"}
    uri = folders.address(root, "checkpoints", "x", decided)
    files.upload(str(tmp_path / "encoder.pt"), files.join(uri, "encoder.pt"))
    folders.commit(uri, decided, files=["encoder.pt"])
    found = read_weights(uri)
    assert found.labels.startswith("unknown: an encoder that this project pretrained")
    assert set(found.tensors) == set(encoder)


def test_weights_of_half_precision_become_single_precision(tmp_path):
    weight, count = torch.randn(16, 3, 7, 7), torch.tensor(3)
    state = {"layer0.0.weight": weight.bfloat16(), "layer0.1.num_batches_tracked": count}
    torch.save(state, tmp_path / "half.pt")
    found = read_weights(str(tmp_path / "half.pt")).tensors
    assert found["layer0.0.weight"].dtype == torch.float32
    assert found["layer0.1.num_batches_tracked"].dtype == torch.int64
    torch.testing.assert_close(found["layer0.0.weight"], weight, atol=0.02, rtol=0.01)


def test_weights_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(InputError, match=r"fit\.weights .*missing\.pt"):
        read_weights(str(tmp_path / "missing.pt"))
    (tmp_path / "text.pt").write_text("not weights")
    with pytest.raises(InputError, match=r"fit\.weights .*folder"):
        read_weights(str(tmp_path))
    with pytest.raises(InputError, match=r"text\.pt .*\(\w+\)"):
        read_weights(str(tmp_path / "text.pt"))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="contains list, expected tensors by name"):
        read_weights(str(tmp_path / "list.pt"))
    videos = folders.address(str(tmp_path / "root"), "videos", "crawl", {})
    folders.commit(videos, {})
    with pytest.raises(InputError, match=r"fit\.weights .*stage 'videos'"):
        read_weights(videos)


def test_names_are_without_wrappers_and_values_that_are_not_finite_are_refused(tmp_path):
    path = str(tmp_path / "weights.pt")
    torch.save({"_orig_mod.module.conv.weight": torch.ones(2)}, path)
    assert list(read_weights(path).tensors) == ["conv.weight"]
    torch.save({"conv.weight": torch.tensor([1.0, float("nan")])}, path)
    with pytest.raises(InputError, match=r"fit\.weights: .* NaN or infinite in 1 of 1 tensors"):
        read_weights(path)
