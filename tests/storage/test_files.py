"""Oracles: the bytes that were written, on the local disk and in memory."""

import json
import os
from pathlib import Path

import pytest

from previts.errors import InputError
from previts.storage import files


@pytest.fixture(params=["file", "memory"])
def root(request, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "file" else f"memory://{tmp_path.name}"


def test_a_written_file_replaces_the_old_one_and_leaves_no_temporary_file(root: str):
    uri = files.join(root, "folder", "name.json")
    files.write_json(uri, {"a": 1})
    files.write_json(uri, {"a": 2})
    assert json.loads(files.read_bytes(uri)) == {"a": 2}
    assert files.read_bytes(uri, 1, 4) == json.dumps({"a": 2}, indent=1).encode()[1:4]
    assert files.names(files.join(root, "folder")) == ["name.json"]
    assert files.names(files.join(root, "nowhere")) == []


def test_an_upload_leaves_no_temporary_file(root: str, tmp_path: Path):
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)
    files.upload(str(source), files.join(root, "up", "target"))
    assert files.read_bytes(files.join(root, "up", "target")) == b"x" * 1000
    assert files.names(files.join(root, "up")) == ["target"]


@pytest.mark.parametrize("uri", ["", "nope://x/y"])
def test_the_error_for_an_unusable_uri_lists_the_allowed_protocols(uri: str):
    with pytest.raises(InputError, match="gs://"):
        files.open_fs(uri)


def test_ranges_of_a_file_equal_its_slices(root: str):
    data = bytes(range(200))
    uri = files.join(root, "data")
    files.write_bytes(uri, data)
    assert files.read_ranges(uri, [0, 150, 7], [3, 200, 7]) == [data[0:3], data[150:200], b""]
    with pytest.raises(FileNotFoundError):
        files.read_ranges(files.join(root, "missing"), [0], [1])


def test_deleted_files_and_folders_are_gone_and_missing_ones_are_ignored(root: str):
    for name in ("a", "folder/b", "folder/deep/c"):
        files.write_bytes(files.join(root, name), b"x")
    files.delete(files.join(root, "a"))
    files.delete(files.join(root, "a"))
    assert not files.exists(files.join(root, "a"))
    files.delete_folder(files.join(root, "folder"))
    files.delete_folder(files.join(root, "folder"))
    assert not files.exists(files.join(root, "folder/deep/c"))


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary_file(tmp_path: Path, monkeypatch):
    uri = str(tmp_path / "name")
    files.write_bytes(uri, b"old")

    def full(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        files.write_bytes(uri, b"new")
    assert files.read_bytes(uri) == b"old"
    assert files.names(str(tmp_path)) == ["name"]


def test_local_uris_become_absolute_paths_and_remote_ones_stay(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert files.absolute("a/b/") == files.local_path("a/b") == str(tmp_path / "a" / "b")
    assert files.absolute(f"file://{tmp_path}/a") == str(tmp_path / "a")
    assert files.absolute("gs://bucket/a/") == "gs://bucket/a"
    assert files.local_path("memory://a") is None


def test_a_folder_below_a_file_is_not_writable(tmp_path: Path):
    files.check_writable(str(tmp_path / "new" / "deep"))
    assert (tmp_path / "new" / "deep").is_dir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="choose a root that you may write to"):
        files.check_writable(str(tmp_path / "file" / "folder"))
