"""Oracles: the values that were saved, and files that are truncated, changed or incomplete."""

import hashlib

import numpy as np
import pytest
import torch

from previts.errors import InputError
from previts.storage import files
from previts.storage.states import States

NAME = "state-{:08d}.pt"


def saved(folder, numbers, name=NAME, **settings):
    states = States(str(folder), name, **settings)
    for number in numbers:
        states.save(number, {"weights": torch.full((3,), float(number)), "of": "us"})
    return states


def newest(folder, name=NAME, **settings):
    return States(str(folder), name, **settings).newest()


def test_the_newest_state_is_restored_and_only_the_newest_few_are_kept(tmp_path):
    saved(tmp_path, [1, 2, 3, 10], keep=2)
    number, state = newest(tmp_path)
    assert number == 10
    assert torch.equal(state["weights"], torch.full((3,), 10.0))
    assert state["of"] == "us"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "state-00000003.pt",
        "state-00000003.pt.sha256",
        "state-00000010.pt",
        "state-00000010.pt.sha256",
    ]
    checksum = (tmp_path / "state-00000010.pt.sha256").read_text().strip()
    digest = hashlib.sha256((tmp_path / "state-00000010.pt").read_bytes()).hexdigest()
    assert checksum == f"{digest}  state-00000010.pt"


def test_an_empty_or_missing_folder_has_no_state(tmp_path):
    assert newest(tmp_path) is None
    assert newest(tmp_path / "nothing") is None


@pytest.mark.parametrize("damage", ["cut", "changed", "no checksum"])
def test_the_state_before_a_damaged_one_is_restored(tmp_path, capsys, damage):
    saved(tmp_path, [4, 5], keep=2)
    path = tmp_path / "state-00000005.pt"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-7])
    elif damage == "changed":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        (tmp_path / "state-00000005.pt.sha256").unlink()
    number, state = newest(tmp_path)
    assert number == 4
    assert torch.equal(state["weights"], torch.full((3,), 4.0))
    assert str(path) in capsys.readouterr().err


def test_a_damaged_state_does_not_count_as_kept(tmp_path):
    saved(tmp_path, [4, 5], keep=2)
    (tmp_path / "state-00000005.pt").write_bytes(b"damaged")
    states = States(str(tmp_path), NAME, keep=2)
    assert states.newest()[0] == 4
    states.save(6, {"weights": torch.zeros(1)})
    assert states.numbers() == [4, 6]
    (tmp_path / "state-00000006.pt").write_bytes(b"damaged")
    assert newest(tmp_path)[0] == 4


class Killed(BaseException):
    pass


@pytest.fixture
def killed_before_the_checksum(monkeypatch):
    """Let a process be killed after it wrote a state and before it writes the checksum."""
    written = files.write_bytes

    def write(uri, data):
        if uri.endswith(".sha256"):
            raise Killed
        written(uri, data)

    def run(save):
        with monkeypatch.context() as patch:
            patch.setattr(files, "write_bytes", write)
            with pytest.raises(Killed):
                save()

    return run


def test_an_interrupted_write_is_ignored_and_deleted_later(tmp_path, killed_before_the_checksum):
    saved(tmp_path, [1], keep=2)
    half = tmp_path / f"state-00000002.pt.{files._machine()}-{32 * '0'}.tmp"
    half.write_bytes(b"half a state")
    assert newest(tmp_path)[0] == 1
    killed_before_the_checksum(lambda: saved(tmp_path, [3], keep=2))
    assert not half.exists()
    assert (tmp_path / "state-00000003.pt").exists()
    assert newest(tmp_path)[0] == 1


def test_the_states_of_another_experiment_are_refused(tmp_path):
    saved(tmp_path, [7])
    states = States(str(tmp_path), NAME)
    with pytest.raises(InputError, match=r"another experiment \(state-00000007\.pt\); delete the folder"):
        states.newest("cpu", lambda state: state["of"] == "them")
    assert states.newest("cpu", lambda state: state["of"] == "us")[0] == 7


def test_two_trainings_in_one_folder_keep_their_own_states(tmp_path):
    saved(tmp_path, [1], "round-mc-{}.npz")
    saved(tmp_path, [2], "round-rbd-{}.npz").sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-mc-1.npz", "round-mc-1.npz.sha256"]


def test_arrays_are_restored(tmp_path):
    maps = np.random.default_rng(0).integers(0, 256, (4, 5, 6), dtype=np.uint8)
    States(str(tmp_path), "round-{}.npz").save(2, {"maps": maps})
    number, state = newest(tmp_path, "round-{}.npz")
    assert number == 2
    np.testing.assert_array_equal(state["maps"], maps)


def test_a_name_without_a_number_has_one_state(tmp_path):
    states = saved(tmp_path, [0], "fusion.pt")
    states.save(0, {"weights": torch.ones(2)})
    assert torch.equal(newest(tmp_path, "fusion.pt")[1]["weights"], torch.ones(2))
    states.sweep()
    assert list(tmp_path.iterdir()) == []


def test_a_replaced_state_is_not_compared_with_the_old_checksum(tmp_path, killed_before_the_checksum, capsys):
    states = saved(tmp_path, [0], "fusion.pt")
    killed_before_the_checksum(lambda: states.save(0, {"weights": torch.ones(2)}))
    assert newest(tmp_path, "fusion.pt") is None
    assert "fusion.pt is damaged (its checksum differs)" in capsys.readouterr().err


def test_a_state_of_another_result_is_ignored_even_with_its_checksum(tmp_path, capsys):
    mine, other = (tmp_path / "checkpoints" / f"x-{digit * 12}" for digit in "ab")
    for folder in (mine, other):
        saved(folder, [3])
    for name in ("state-00000003.pt", "state-00000003.pt.sha256"):
        (mine / name).write_bytes((other / name).read_bytes())
    assert newest(mine) is None
    assert f"is a copy of {'b' * 12}/state-00000003.pt" in capsys.readouterr().err
    moved = other.rename(tmp_path / f"renamed-{'b' * 12}")
    assert newest(moved)[0] == 3
    assert newest(moved.rename(tmp_path / "mine"))[0] == 3
