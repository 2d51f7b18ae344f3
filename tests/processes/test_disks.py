"""Oracles: small disks that are really full, and the limits of a process."""

import errno
import os
import resource
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from moving_squares import frame_image
from small_verbs import SMALL

from previts import stages
from previts.media import normalisation
from previts.processes import disks, exits
from previts.runlog.entries import Identity
from previts.runlog.spool import Spool
from previts.storage import files, tensors

SIZE = 128 << 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 128 KiB."""
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", path], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.decode().strip()}; it needs the rights of root")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def message(capsys: pytest.CaptureFixture[str], work: Callable[[], object]) -> str:
    """Return the message with which a command ends, in one line without a traceback."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended, exits.readable_errors():
        work()
    assert ended.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("previts: ")]
    return line


def upload(uri: str, data: bytes) -> None:
    source = Path(uri).parents[1] / "source"
    source.write_bytes(data)
    files.upload(str(source), uri)


@pytest.mark.parametrize("write", [files.write_bytes, upload], ids=["write", "upload"])
def test_a_full_disk_is_reported_with_its_space_and_nothing_is_left_of_the_file(small_disk, capsys, write):
    files.write_bytes(str(small_disk / "old"), b"x" * (64 << 10))
    text = message(capsys, lambda: write(str(small_disk / "new"), b"x" * SIZE))
    assert text.startswith(f"previts: {small_disk}/new: the disk is full (64 KiB of 128 KiB free on {small_disk}); ")
    assert text.endswith("and run the same command again: finished work is kept")
    assert [path.name for path in small_disk.iterdir()] == ["old"]
    write(str(small_disk / "new"), b"y" * (32 << 10))
    assert (small_disk / "new").read_bytes() == b"y" * (32 << 10)


def test_a_full_disk_keeps_the_last_state_and_the_entries_of_the_run_log(small_disk, capsys):
    uri = str(small_disk / "state.pt")
    tensors.write_checked(uri, {"step": 1})
    spool = Spool.create(str(small_disk), Identity("arm", "previts", fingerprint="f1"))
    left = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "filler").write_bytes(b"x" * left)
    large = {"step": list(range(9000))}
    assert "the disk is full (0 B of 128 KiB free" in message(capsys, lambda: tensors.write_checked(uri, large))
    tag = {"kind": "tag", "key": "a", "value": "b" * 9000}
    assert f"{spool.path}: the disk is full" in message(capsys, lambda: spool.write([tag]))
    assert not list(small_disk.glob("*.tmp"))
    assert tensors.read_checked(uri) == {"step": 1}


@pytest.mark.parametrize("full", ["root", "TMPDIR"])
def test_a_download_to_a_full_disk_resumes_once_there_is_space(small_disk, tmp_path, capsys, monkeypatch, full):
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    for number in range(3):
        normalisation.encode_video(
            (frame_image(number, frame) for frame in range(30)), 10.0, str(crawl / f"v{number}.mp4")
        )
    size = max(path.stat().st_size for path in crawl.iterdir())
    root = tmp_path / "root"
    (tmp_path / "temporary").mkdir()
    at = {"root": root, "TMPDIR": tmp_path / "temporary", full: small_disk}
    monkeypatch.setenv("TMPDIR", str(at["TMPDIR"]))
    monkeypatch.setattr("tempfile.tempdir", None)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (SIZE - size))
    text = message(capsys, lambda: stages.download(str(crawl), str(at["root"]), "demo", SMALL))
    assert f"{small_disk}/" in text
    assert "the disk is full (" in text
    assert f"of 128 KiB free on {small_disk})" in text
    assert ("set TMPDIR to another disk" if full == "TMPDIR" else "another folder or --root") in text
    assert [path for path in small_disk.rglob("*") if path.is_file()] == [filler]
    filler.unlink()
    if full == "TMPDIR":
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    uri = stages.download(str(crawl), str(at["root"]), "demo", SMALL)
    assert sorted(path.name for path in Path(uri).iterdir()) == [
        "manifest.json", "shard-00000.parquet", "shard-00000.tar",
    ]  # fmt: skip


def test_a_read_only_disk_is_reported(small_disk, capsys):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    text = message(capsys, lambda: (small_disk / "file").write_bytes(b"x"))
    assert text == (
        f"previts: {small_disk}/file: the disk is read-only; change its permissions, or choose another folder or --root"
    )
    with pytest.raises(SystemExit) as ended, exits.readable_errors():
        stages.world(str(small_disk))
    assert ended.value.code == 2
    assert "Read-only file system; choose another root" in capsys.readouterr().err


def test_the_limit_of_a_file_is_reported(tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, limits[1]))
    try:
        text = message(capsys, lambda: files.write_bytes(str(tmp_path / "file"), b"x" * (1 << 20)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert text.startswith(f"previts: {tmp_path}/file: the file is larger than this process may write (ulimit -f)")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_an_error_that_names_no_file_is_reported_with_the_space_of_both_disks(tmp_path, monkeypatch, number):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    text = disks.explain(OSError(number, os.strerror(number)))
    assert text.startswith("the disk is full (" if number == errno.ENOSPC else "the quota of this user on the disk is")
    assert " free on /" in text
    assert "set TMPDIR or --root to another disk" in text


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_a_failing_disk_and_missing_rights_are_reported(tmp_path, number):
    text = disks.explain(OSError(number, os.strerror(number), str(tmp_path / "a")))
    assert text.startswith(f"{tmp_path}/a: {disks.REASONS[number]}; ")


def test_another_error_has_no_explanation():
    assert disks.explain(FileNotFoundError(errno.ENOENT, "No such file", "a")) == ""
    assert disks.explain(OSError("the connection broke")) == ""


def test_without_a_folder_for_temporary_files_the_variable_is_named(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    with pytest.raises(FileNotFoundError) as found:
        tempfile.gettempdir()
    assert disks.explain(found.value) == (
        "no folder for temporary files can be written to (TMPDIR is /nowhere); "
        "free some space, or set TMPDIR to a folder that you may write to"
    )


def test_a_folder_or_a_loop_of_links_in_place_of_a_file_is_named_with_what_to_do(tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for name, what in (("folder", "a folder, expected a file"), ("loop", "a symbolic link that leads back to itself")):
        text = message(capsys, (tmp_path / name).read_bytes)
        assert text == f"previts: {tmp_path}/{name}: this is {what}; move it away, and run the same command again"
