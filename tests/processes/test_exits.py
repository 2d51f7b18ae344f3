"""Oracles: the exit code and the text on standard error for each kind of error."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import aiohttp
import botocore.exceptions
import gcsfs.retry
import google.auth.exceptions
import pytest
import requests

from previts.errors import InputError, PeerLostError, TemporaryError
from previts.processes import exits, workers


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "PREVITS_TRACEBACK", workers.STARTED_BY):
        monkeypatch.delenv(name, raising=False)


def raise_inside(error: BaseException) -> None:
    with exits.readable_errors():
        raise error


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InputError("seed must be 0 or more"), 2, "previts: seed must be 0 or more\n"),
        (
            FileNotFoundError(2, "No such file", "a.csv"),
            1,
            "previts: FileNotFoundError: [Errno 2] No such file: 'a.csv'\n",
        ),
        (FloatingPointError("the loss is not finite"), 1, "previts: FloatingPointError: the loss is not finite\n"),
        (KeyboardInterrupt(), 130, "previts: interrupted; run the same command again to resume\n"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch.nn"),
            2,
            "previts: the package torch is not installed; this command needs the extra 'train': "
            "pip install 'previts[train]'\n",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_each_error_has_its_exit_code_and_one_line(capsys, error: BaseException, code: int, text: str):
    with pytest.raises(SystemExit) as ended:
        raise_inside(error)
    assert ended.value.code == code
    assert capsys.readouterr().err == text


def aws(status: int) -> Exception:
    return botocore.exceptions.ClientError({"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {}}, "GetObject")


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError(104, "reset"), True),
        (TimeoutError("slow"), True),
        (OSError(errno.EIO, "i/o error"), True),
        (socket.gaierror(-3, "Temporary failure in name resolution"), True),
        (requests.ConnectionError("refused"), True),
        (aws(503), True),
        (aws(429), True),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="http://x"), True),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="http://x"), True),
        (gcsfs.retry.HttpError({"code": 502, "message": "bad gateway"}), True),
        (google.auth.exceptions.TransportError("no answer"), True),
        (aiohttp.ServerDisconnectedError(), True),
        (TemporaryError("an outage in another process"), True),
        (InputError("no crawl at x"), False),
        (FileNotFoundError(2, "No such file", "a.csv"), False),
        (PermissionError(13, "denied"), False),
        (PeerLostError("another process was lost"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (aws(403), False),
        (botocore.exceptions.NoCredentialsError(), False),
        (gcsfs.retry.HttpError({"code": 401, "message": "no"}), False),
        (google.auth.exceptions.RefreshError("revoked"), False),
        (FloatingPointError("the loss is not finite"), False),
        (ValueError("a bug"), False),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_only_outages_may_pass(monkeypatch, error: Exception, passes: bool):
    assert exits.may_pass(error) is passes
    if isinstance(error, ValueError) and not isinstance(error, InputError):
        return
    monkeypatch.setenv("RANK", "1")  # a process of torchrun
    with pytest.raises(SystemExit) as ended:
        raise_inside(error)
    assert (ended.value.code == exits.TEMPORARY) is passes


@pytest.mark.parametrize("error", [ZeroDivisionError(), ValueError("x"), ModuleNotFoundError(name="previts.gone")])
def test_any_other_error_passes_unchanged(capsys, error: Exception):
    with pytest.raises(type(error)) as raised:
        raise_inside(error)
    assert raised.value is error
    assert capsys.readouterr().err == ""


def test_a_block_without_an_error_ends_silently(capsys):
    with exits.readable_errors():
        pass
    assert capsys.readouterr().err == ""


def test_a_training_process_names_its_rank(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SystemExit):
        raise_inside(InputError("no GPU"))
    assert capsys.readouterr().err == "previts: process 3: no GPU\n"


@pytest.mark.parametrize("error", [InputError("wrong"), OSError("full"), ModuleNotFoundError(name="torch")])
def test_the_traceback_is_printed_on_request(capsys, monkeypatch: pytest.MonkeyPatch, error: Exception):
    monkeypatch.setenv("PREVITS_TRACEBACK", "1")
    with pytest.raises(SystemExit):
        raise_inside(error)
    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert text.splitlines()[-1].startswith("previts: ")


def test_an_error_of_an_object_store_names_what_to_check(capsys, monkeypatch: pytest.MonkeyPatch):
    # A library of a store that need not be installed: the handler knows it by module and name.
    library = types.ModuleType("gcsfs.retry")
    library.HttpError = type("HttpError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "gcsfs.retry", library)
    with pytest.raises(SystemExit) as ended:
        raise_inside(library.HttpError("403 forbidden"))
    assert ended.value.code == 1
    text = capsys.readouterr().err
    assert text.startswith("previts: the object store request failed (HttpError: 403 forbidden); check the URI")


def test_every_extra_that_a_message_names_exists():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    table = project[project.index("[project.optional-dependencies]") :]
    assert set(exits.EXTRAS) <= set(re.findall(r"^(\w+) = \[", table, re.MULTILINE))


STEP = """
import sys, time
from previts.processes import exits
with exits.readable_errors():
    open(sys.argv[1], "w").close()
    time.sleep(60)
"""


def test_a_step_is_killed_when_its_engine_ends(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as engine:
        environment = {**os.environ, workers.STARTED_BY: str(engine.pid)}
        step = subprocess.Popen([sys.executable, "-c", STEP, str(tmp_path / "begun")], env=environment)
        deadline = time.monotonic() + 60
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert step.poll() is None
        engine.kill()
    assert step.wait(30) == -signal.SIGKILL


@pytest.mark.parametrize("lines", [1, 100_000], ids=["at the end", "while it prints"])
def test_a_command_whose_output_nobody_reads_ends_without_a_message(lines: int):
    code = f"from previts.processes import exits\nwith exits.readable_errors():\n    print('a line\\n' * {lines})"
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_a_broken_pipe_of_something_else_is_an_error():
    code = "from previts.processes import exits\nwith exits.readable_errors():\n    raise BrokenPipeError(32, 'gone')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (1, "previts: BrokenPipeError: [Errno 32] gone\n")
