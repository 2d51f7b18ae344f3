"""The temporary folder of a command. Oracle: the entries of the folder for temporary files, after the command."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from previts.processes import command_folder

WORK = """
import os, sys, tempfile, time
from previts.processes import command_folder
with command_folder.temporary_folder():
    open(os.path.join(tempfile.mkdtemp(), "large"), "w").close()
    print(tempfile.gettempdir(), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def start() -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", WORK], stdin=-1, stdout=-1, text=True)
    assert process.stdout
    assert process.stdout.readline()
    return process


def test_a_command_leaves_no_temporary_file(place: Path):
    with command_folder.temporary_folder():
        inner = tempfile.mkdtemp()
        assert Path(inner).parent.parent == place
        assert os.environ["TMPDIR"] == str(Path(inner).parent)
        assert command_folder.lasting_folder() == str(place)
        with command_folder.temporary_folder():
            assert os.environ["TMPDIR"] == str(Path(inner).parent)
    assert list(place.iterdir()) == []
    assert os.environ["TMPDIR"] == str(place)
    assert command_folder.lasting_folder() == tempfile.gettempdir() == str(place)


def test_the_next_command_deletes_what_a_killed_one_left_and_nothing_of_a_living_one(place: Path):
    living, killed = start(), start()
    (place / "previts-run-abcdefgh").mkdir()  # killed before it had a lock
    (place / "previts-others").mkdir()
    assert len(list(place.iterdir())) == 4
    killed.kill()
    killed.wait()
    with command_folder.temporary_folder():
        pass
    assert len(list(place.iterdir())) == 2
    assert len(list(place.rglob("large"))) == 1
    living.communicate("end\n")
    assert [path.name for path in place.iterdir()] == ["previts-others"]


def test_a_command_works_without_a_disk_for_temporary_files(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    with command_folder.temporary_folder():
        assert tempfile.gettempdir() == "/dev/null"


@pytest.mark.parametrize("length", [0, 100])  # of a name; Linux allows 107 bytes for the path of a socket
def test_a_command_that_started_worker_processes_ends_without_a_message(monkeypatch: pytest.MonkeyPatch, length: int):
    """Oracle: the messages of Python at the end of the process, after the folder was deleted."""
    program = """
import multiprocessing, sys
from previts.processes import command_folder
command_folder.SHORT = sys.argv[1]
with command_folder.temporary_folder(), multiprocessing.get_context("forkserver").Pool(1) as pool:
    print(pool.map(abs, [-7]))
"""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        short, place = Path(folder, "s"), Path(folder, "t" + length * "x")
        short.mkdir()
        place.mkdir()
        monkeypatch.setenv("TMPDIR", str(place))
        (place / "program.py").write_text(f"if __name__ == '__main__':\n    exec({program!r})\n")
        arguments = [sys.executable, str(place / "program.py"), str(short)]
        done = subprocess.run(arguments, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "[7]\n", "")
        assert [path.name for path in [*place.iterdir(), *short.iterdir()]] == ["program.py"]
