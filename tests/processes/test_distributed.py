"""Oracles: sums and means computed by hand from the values of both processes, and one process as the identity."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
import torch

from previts.processes import distributed

PROGRAM = """
import json, os, signal, sys
import torch
from previts.processes import distributed

torch.set_num_threads(1)
with distributed.process_group() as device:
    rank = distributed.rank()
    first, second = torch.tensor([1.0, 2.0]) * (rank + 1), torch.tensor([[10.0 * rank]])
    distributed.average_([first, second])
    layer = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.ones_(layer.weight)
    learner = distributed.shared(layer)
    learner(torch.tensor([[1.0 + rank, 10.0]])).sum().backward()
    found = {
        "device": str(device),
        "size": distributed.world_size(),
        "main": distributed.is_main(),
        "average": [first.tolist(), second.tolist()],
        "gather": distributed.gather(torch.tensor([[rank, 7]])).tolist(),
        "any": distributed.any_of(rank == 1, False, True),
        "lists": distributed.gather_lists(["a", "b"] if rank == 0 else ["c"]),
        "gradient": layer.weight.grad.tolist(),
    }
    with open(sys.argv[1] + str(rank), "w") as file:
        json.dump(found, file)
    distributed.barrier()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.barrier()
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, object], int, str]]:
    """Run the program in two processes as torchrun does: what each wrote, its exit code and its standard error."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": ""}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, f"{folder}/"],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=240)[1] for process in started]
    return [
        (json.loads((folder / str(rank)).read_text()), process.returncode, errors[rank])
        for rank, process in enumerate(started)
    ]


def test_two_processes_exchange_tensors_flags_lists_and_gradients(two):
    (first, _, _), (second, _, _) = two
    assert (first["main"], second["main"]) == (True, False)
    assert first | {"main": False} == second
    assert second == {
        "main": False,
        "device": "cpu",
        "size": 2,
        "average": [[1.5, 3.0], [[5.0]]],
        "gather": [[0, 7], [1, 7]],
        "any": [True, False, True],
        "lists": ["a", "b", "c"],
        "gradient": [[1.5, 10.0]],
    }


def test_the_end_of_a_process_is_an_error_of_its_own_in_the_other(two):
    (_, code, error), (_, killed, _) = two
    assert killed == -signal.SIGKILL
    assert code == 1
    assert "PeerLostError: another process was lost (" in error


def test_one_process_is_the_identity(monkeypatch: pytest.MonkeyPatch):
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    tensor, layer = torch.arange(3.0), torch.nn.Linear(1, 1)
    with distributed.process_group() as device:
        assert device == distributed.best_device()
        assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
        assert distributed.gather(tensor) is tensor
        assert distributed.shared(layer) is layer
        assert distributed.any_of(True, False) == [True, False]
        assert distributed.gather_lists([1, 2]) == [1, 2]
        distributed.average_([tensor])
        distributed.barrier()
    assert tensor.tolist() == [0, 1, 2]


def test_sigterm_sets_a_flag_and_the_old_handler_returns():
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        with distributed.sigterm() as flag:
            assert not flag.is_set()
            os.kill(os.getpid(), signal.SIGTERM)
            assert flag.wait(5)
        assert received == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_thread_gets_a_flag_without_a_handler():
    flags = []

    def work() -> None:
        with distributed.sigterm() as flag:
            flags.append(flag.is_set())

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert flags == [False]
    assert signal.getsignal(signal.SIGTERM) is before
