import os
from dataclasses import replace

import pytest
import torch
import torchvision
from moving_squares import small_experiment, small_video_experiment

from previts.errors import InputError
from previts.models.moco import MoCo
from previts.pretraining import checkpoint
from previts.pretraining.optim import build_optimizer
from previts.storage import files, tensors

CPU = torch.device("cpu")


def trained_model(experiment):
    torch.manual_seed(0)
    model = MoCo(experiment)
    optimizer = build_optimizer(model.parameters(), model.experiment.optim)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return model, optimizer


@pytest.fixture
def trained():
    return trained_model(small_video_experiment())  # a seventieth of the bytes of a ResNet


def fresh():
    model = MoCo(small_video_experiment())
    return model, build_optimizer(model.parameters(), model.experiment.optim)


def save(uri, step, model, optimizer):
    with checkpoint.Saver(uri, max(checkpoint.steps(uri), default=0)) as saver:
        saver.save(step, model, optimizer, {"v7": "no frame decoded"})


def test_a_state_is_restored_completely(trained, tmp_path):
    uri = str(tmp_path)
    save(uri, 7, *trained)
    model, optimizer = fresh()
    assert checkpoint.restore(uri, model, optimizer, CPU) == (7, {"v7": "no frame decoded"})
    for name, value in trained[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    momenta = [state["momentum_buffer"] for state in optimizer.state_dict()["state"].values()]
    expected = [state["momentum_buffer"] for state in trained[1].state_dict()["state"].values()]
    assert momenta
    assert all(torch.equal(*both) for both in zip(momenta, expected, strict=True))


def test_the_last_two_states_are_kept(trained, tmp_path):
    for step in (1, 2, 3):
        save(str(tmp_path), step, *trained)
    assert sorted(os.listdir(tmp_path)) == [
        "step-00000002.pt",
        "step-00000002.pt.sha256",
        "step-00000003.pt",
        "step-00000003.pt.sha256",
    ]


def test_training_after_a_save_does_not_change_the_state(tmp_path):
    model, optimizer = trained_model(small_experiment())  # large, so that its writing takes a while
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with checkpoint.Saver(str(tmp_path)) as saver:
        saver.save(3, model, optimizer)
        with torch.no_grad():  # while the state is being written
            for parameter in model.parameters():
                parameter.fill_(7.0)
            model.queue.zero_()
    restored = MoCo(small_experiment())
    checkpoint.restore(str(tmp_path), restored, build_optimizer(restored.parameters(), restored.experiment.optim), CPU)
    for name, value in before.items():
        assert torch.equal(restored.state_dict()[name], value), name


def test_a_state_that_cannot_be_written_stops_the_run(trained, tmp_path):
    (tmp_path / "full").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="cannot write"), checkpoint.Saver(str(tmp_path / "full")) as saver:
        saver.save(1, *trained)


@pytest.mark.parametrize("damage", ["flip", "truncate", "no checksum"])
def test_a_damaged_state_is_skipped(trained, tmp_path, damage):
    for step in (1, 2):
        save(str(tmp_path), step, *trained)
    path = tmp_path / "step-00000002.pt"
    data = bytearray(path.read_bytes())
    match damage:
        case "flip":
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        case "truncate":
            path.write_bytes(data[:-100])
        case "no checksum":
            (tmp_path / "step-00000002.pt.sha256").unlink()
    assert checkpoint.restore(str(tmp_path), *fresh(), CPU)[0] == 1


def test_an_empty_folder_restores_step_0(tmp_path):
    assert checkpoint.restore(str(tmp_path / "nothing"), *fresh(), CPU) == (0, {})


def test_damaged_states_do_not_count_as_kept_ones(trained, tmp_path):
    for step in (20, 23):
        save(str(tmp_path), step, *trained)
        (tmp_path / f"step-{step:08d}.pt.sha256").unlink()
    with checkpoint.Saver(str(tmp_path), checkpoint.restore(str(tmp_path), *fresh(), CPU)[0]) as saver:
        for step in (5, 10):
            saver.save(step, *trained)
    assert checkpoint.steps(str(tmp_path)) == [5, 10]


def test_weights_that_are_not_finite_are_never_saved(trained, tmp_path):
    with torch.no_grad():
        trained[0].encoder_q.conv_1a.spatial.conv.weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="after step 4 are not finite"):
        save(str(tmp_path), 4, *trained)
    assert checkpoint.steps(str(tmp_path)) == []


def test_settings_that_training_does_not_read_may_change(trained, tmp_path):
    save(str(tmp_path), 1, *trained)
    experiment = small_video_experiment()
    moved = replace(
        experiment, fit=replace(experiment.fit, seed=5), model=replace(experiment.model, weights="gs://other/place.pt")
    )
    model = MoCo(moved)
    optimizer = build_optimizer(model.parameters(), model.experiment.optim)
    assert checkpoint.restore(str(tmp_path), model, optimizer, CPU)[0] == 1


def test_states_of_another_experiment_are_refused(trained, tmp_path):
    save(str(tmp_path), 1, *trained)
    model = MoCo(small_video_experiment(lr=0.5))
    with pytest.raises(InputError, match="another experiment"):
        checkpoint.restore(str(tmp_path), model, build_optimizer(model.parameters(), model.experiment.optim), CPU)


@pytest.mark.parametrize("changes", [{"experiment": "[]"}, {"model": {}}, {"damaged": [1]}], ids=str)
def test_a_state_with_other_content_is_named_with_what_to_do(trained, tmp_path, changes):
    save(str(tmp_path), 1, *trained)
    path = str(tmp_path / "step-00000001.pt")
    tensors.write_checked(path, {**tensors.read_checked(path), **changes})
    with pytest.raises(InputError, match=r"step-00000001\.pt is not a state of this training \(.*\); delete it"):
        checkpoint.restore(str(tmp_path), *fresh(), CPU)


def test_a_finished_folder_contains_the_model_and_a_torchvision_encoder(tmp_path):
    trained = trained_model(small_experiment())
    uri = str(tmp_path)
    save(uri, 5, *trained)
    for _ in range(2):  # a second call changes nothing
        checkpoint.finish(uri, small_experiment())
        assert checkpoint.steps(uri) == []
        assert checkpoint.finished_steps(uri) == 5
    model = checkpoint.load_model(uri, CPU)
    assert not model.training
    assert model.experiment == small_experiment()
    images = torch.randn(2, 3, 64, 64)
    oracle = torchvision.models.resnet18()
    loaded = oracle.load_state_dict(torch.load(tmp_path / "encoder.pt", weights_only=True), strict=False)
    assert sorted(loaded.missing_keys) == ["fc.bias", "fc.weight"]
    assert not loaded.unexpected_keys
    oracle.fc = torch.nn.Identity()
    with torch.no_grad():
        # the two have other memory layouts: rounding differs
        torch.testing.assert_close(oracle.double().eval()(images.double()), model.double().encoder(images.double()))
        model.float()
        torch.testing.assert_close(model.encoder(images), trained[0].eval().encoder_q(images))


def test_an_empty_or_damaged_folder_has_no_model(trained, tmp_path):
    with pytest.raises(InputError, match="no sound checkpoint to finish"):
        checkpoint.finish(str(tmp_path), small_video_experiment())
    save(str(tmp_path), 5, *trained)
    checkpoint.finish(str(tmp_path), small_video_experiment())
    path = tmp_path / "model.pt"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"no sound model\.pt"):
        checkpoint.load_model(str(tmp_path), CPU)


def test_the_log_is_cut_at_the_restored_step(tmp_path):
    lines = [{"step": step, "loss": 1 / step} for step in range(1, 6)]
    checkpoint.write_log(str(tmp_path), lines)
    assert checkpoint.read_log(str(tmp_path), 3) == lines[:3]
    assert checkpoint.read_log(str(tmp_path / "nothing"), 3) == []


def test_damaged_lines_of_the_log_are_skipped(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1, "loss": 2.0}\n\n\xff\xfe\nnull\n{"loss": 1}\n{"step": 2, "lo')
    assert checkpoint.read_log(str(tmp_path), 9) == [{"step": 1, "loss": 2.0}]


def test_an_older_state_does_not_become_the_result(trained, tmp_path):
    for step in (2, 3):
        save(str(tmp_path), step, *trained)
    (tmp_path / "step-00000003.pt.sha256").write_bytes(b"\xff")
    with pytest.raises(InputError, match="no sound checkpoint of step 3 to finish: it is damaged, or another run"):
        checkpoint.finish(str(tmp_path), small_video_experiment(), 3)
    assert checkpoint.steps(str(tmp_path)) == [2, 3]
    save(str(tmp_path), 3, *trained)
    checkpoint.finish(str(tmp_path), small_video_experiment(), 3)
    assert checkpoint.finished_steps(str(tmp_path)) == 3


def test_a_store_that_fails_once_loses_one_state_only(trained, tmp_path, capsys):
    folder = tmp_path / "states"
    with checkpoint.Saver(str(folder)) as saver:
        folder.write_text("a file where the folder should be")
        saver.save(1, *trained)
        with pytest.raises(InputError):
            saver._writing.result()
        folder.unlink()
        saver.save(2, *trained)
    assert "the state before step 2 could not be written, this one is tried" in capsys.readouterr().err
    assert checkpoint.steps(str(folder)) == [2]
    (tmp_path / "full").write_text("a file")
    saver = checkpoint.Saver(str(tmp_path / "full"))
    for step in (1, 2):
        saver.save(step, *trained)
    with pytest.raises(InputError):
        saver.save(3, *trained)


def test_leftovers_of_a_killed_write_are_deleted(trained, tmp_path):
    left = tmp_path / f"step-00000007.pt.{files._machine()}-{32 * '0'}.tmp"
    left.write_bytes(b"half a state")
    save(str(tmp_path), 8, *trained)
    assert not left.exists()


def test_a_finished_model_without_its_step_is_refused(tmp_path):
    for state in ({"model": {}}, {"step": "x"}):
        tensors.write_checked(str(tmp_path / "model.pt"), state)
        with pytest.raises(InputError, match=r"model\.pt is not a model of previts; delete it"):
            checkpoint.finished_steps(str(tmp_path))
