"""Oracles: the bytes that were written, on the local disk and in memory."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
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
    with pytest.raises(InputError, match="Not a directory; choose another root"):
        files.check_writable(str(tmp_path / "file" / "folder"))


def test_a_path_is_taken_literally(tmp_path: Path):
    for name in ("a?b#c%20d", "é '\"&", "a::b", "memory::x", "a://b", "*[x]", "file"):
        folder = tmp_path / name
        uri = files.join(files.absolute(str(folder)), "file.txt")
        files.check_writable(str(folder))
        files.write_bytes(uri, name.encode())
        assert (folder / "file.txt").read_bytes() == name.encode()
        assert files.read_bytes(f"file://{uri}") == name.encode()
        assert files.names(str(folder)) == ["file.txt"]
    assert [files.protocol(uri) for uri in ("s3://a::b", "file:///x", "/a/s3://b", "x", "é://x", "gs:x")] == [
        "s3", "file", "", "", "", "",
    ]  # fmt: skip


@pytest.mark.parametrize("uri", ["memory://a::b", "s3://bucket/a::b/c", "http://example.org/a::b"])
def test_a_uri_of_a_store_that_would_open_another_place_is_refused(uri: str):
    with pytest.raises(InputError, match=r"contains '::'.*choose a name without it"):
        files.open_fs(uri)


def test_deleting_a_folder_leaves_those_that_match_its_name_as_a_pattern(root: str):
    odd, neighbour = files.join(root, "quest?[x]*"), files.join(root, "questAx1")
    for folder in (odd, neighbour):
        files.write_bytes(files.join(folder, "deep/file"), b"x")
    files.delete_folder(odd)
    assert not files.exists(files.join(odd, "deep/file"))
    assert files.exists(files.join(neighbour, "deep/file"))


def test_two_processes_may_delete_one_folder(tmp_path):
    for number in range(300):
        (tmp_path / "work" / str(number)).mkdir(parents=True)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: files.delete_folder(str(tmp_path / "work")), range(4)))
    assert list(tmp_path.iterdir()) == []
