"""Oracles: folders of a process that was killed, of one that lives, and of other programs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from previts.errors import InputError
from previts.storage import files, scratch

HOLD = """
import sys
from previts.storage import scratch
with scratch.folder() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""
WRITE = """
import sys
from previts.storage import files
with files._replacing(sys.argv[1]) as file:
    file.write(b"half")
    print(flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture
def start() -> Iterator[object]:
    """Start programs that wait for the end of their input after their first line."""
    running: list[subprocess.Popen[str]] = []

    def run(program: str, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-c", program, *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout
        return process, process.stdout.readline().strip()

    yield run
    for process in running:
        process.kill()
        process.communicate()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_folder_is_deleted_at_the_end_and_on_an_error(temporary: Path) -> None:
    with scratch.folder() as path:
        assert Path(path).parent == temporary
        (Path(path) / "file").write_text("x")
    with pytest.raises(ZeroDivisionError), scratch.folder():
        raise ZeroDivisionError
    assert list(temporary.iterdir()) == []


def test_the_next_process_deletes_the_folder_of_a_killed_one_and_no_other(temporary: Path, start) -> None:
    (temporary / "previts-scratch-notours").touch()  # a file
    (temporary / "previts-results").mkdir()
    dead, left = start(HOLD)
    living, kept = start(HOLD)
    assert sorted(map(str, temporary.glob("previts-scratch-????????"))) == sorted([left, kept])
    (Path(left) / "deep").mkdir()
    (Path(left) / "deep" / "video.mp4").write_bytes(b"x" * 1000)
    with scratch.folder():
        assert Path(left).exists()
    kill(dead)
    with scratch.folder() as mine:
        assert {path.name for path in temporary.iterdir()} == {
            "previts-scratch-notours", "previts-results", Path(kept).name, Path(mine).name,
        }  # fmt: skip
    assert living.poll() is None


def test_temporary_files_of_killed_writers_are_swept_and_those_of_living_ones_stay(tmp_path: Path, start) -> None:
    root = tmp_path / "root"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "done.tmp").write_text("of the user")
    dead, _ = start(WRITE, str(root / "deep" / "a.tar"))
    living, _ = start(WRITE, str(root / "b.tar"))
    assert files.sweep(str(root)) == 0
    kill(dead)
    assert files.sweep(str(root), deep=False) == 0
    assert files.sweep(str(root)) == 1
    assert [path.name for path in (root / "deep").iterdir()] == ["done.tmp"]
    living.communicate()
    assert (root / "b.tar").read_bytes() == b"half"
    assert [path.name for path in root.iterdir() if path.is_file()] == ["b.tar"]
    assert files.sweep("memory://root") == files.sweep(str(tmp_path / "missing")) == 0


def test_a_temporary_file_of_another_machine_is_swept_after_a_day(tmp_path: Path) -> None:
    left = tmp_path / f"a.tar.{'0' * 8}-{'1' * 32}.tmp"
    left.write_text("x")
    assert files.sweep(str(tmp_path)) == 0
    os.utime(left, (0, 0))
    assert files.sweep(str(tmp_path)) == 1
    assert not left.exists()


def test_without_a_folder_for_temporary_files_the_message_names_tmpdir(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", none)
    with pytest.raises(InputError, match=r"no folder for temporary files .*TMPDIR is .*/temporary\); free some space"):
        scratch.parent()
