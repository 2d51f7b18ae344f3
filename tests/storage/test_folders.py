"""Oracles: what was committed, and folders that differ only in their path or only in their content."""

from pathlib import Path

import pytest

from previts.errors import InputError
from previts.storage import files, folders


@pytest.fixture(params=["file", "memory"])
def root(request, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "file" else f"memory://{tmp_path.name}"


def test_a_folder_is_finished_only_with_a_manifest(root: str):
    uri = folders.address(root, "videos", "My Crawl", {"crawl": "abc"})
    files.write_bytes(files.join(uri, "shard"), b"1")
    assert not folders.is_committed(uri)
    with pytest.raises(InputError, match="has not finished"):
        folders.read_manifest(uri)
    folders.commit(uri, {"crawl": "abc"}, counts={"ok": 3}, info={"why": ["x"]})
    manifest = folders.read_manifest(uri)
    assert folders.is_committed(uri)
    assert (manifest.stage, manifest.counts, manifest.info) == ("videos", {"ok": 3}, {"why": ["x"]})
    assert uri.endswith(f"videos/my-crawl-{manifest.fingerprint}")
    assert folders.fingerprint_of(uri, "videos") == manifest.fingerprint == folders.identity(uri)


def test_an_address_depends_on_what_was_decided_and_not_on_the_root(tmp_path: Path):
    one = folders.address(str(tmp_path / "a"), "index", "x", {"k": 1})
    other = folders.address(str(tmp_path / "b"), "index", "x", {"k": 1})
    assert one.rsplit("/", 1)[1] == other.rsplit("/", 1)[1]
    assert folders.address(str(tmp_path), "index", "x", {"k": 2}).rsplit("-", 1)[1] not in one


def test_inputs_are_found_after_their_root_is_moved(tmp_path: Path):
    first = tmp_path / "first"
    videos = folders.address(str(first), "videos", "v", {})
    tubes = folders.address(str(first), "tubes", "t", {})
    folders.commit(videos, {})
    folders.commit(tubes, {}, inputs={"videos": videos, "crawl": "gs://bucket/crawl.csv"})
    assert folders.read_manifest(tubes).inputs == {"videos": videos, "crawl": "gs://bucket/crawl.csv"}
    first.rename(tmp_path / "second")
    moved = folders.read_manifest(tubes.replace("/first/", "/second/")).inputs["videos"]
    assert moved == videos.replace("/first/", "/second/")
    assert folders.is_committed(moved)


def test_identity_depends_on_the_content_and_not_on_the_path(tmp_path: Path):
    for name, text in (("a", "same"), ("b", "same"), ("c", "else")):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "file").write_text(text)
    a, b, c = (folders.identity(str(tmp_path / name)) for name in "abc")
    assert a == b != c
    assert folders.identity(str(tmp_path / "a/deep/file")) == folders.identity(str(tmp_path / "b/deep/file"))


def test_large_folders_are_identified_by_names_and_sizes(tmp_path: Path, monkeypatch):
    (tmp_path / "x").write_text("abc")
    by_content = folders.identity(str(tmp_path))
    monkeypatch.setattr(folders, "HASHED_FILES", 0)
    by_size = folders.identity(str(tmp_path))
    (tmp_path / "x").write_text("abd")
    assert folders.identity(str(tmp_path)) == by_size != by_content
    (tmp_path / "x").write_text("abcd")
    assert folders.identity(str(tmp_path)) != by_size


def test_a_missing_path_and_a_path_of_no_stage_are_input_errors(tmp_path: Path):
    with pytest.raises(InputError, match="nothing at"):
        folders.identity(str(tmp_path / "missing"))
    with pytest.raises(InputError, match="not an output of stage"):
        folders.fingerprint_of(str(tmp_path), "index")


def test_a_manifest_of_another_program_is_refused(tmp_path: Path):
    (tmp_path / "manifest.json").write_text('{"foo": 1}')
    with pytest.raises(InputError, match="not a manifest of previts"):
        folders.read_manifest(str(tmp_path))


def test_a_folder_with_a_damaged_manifest_is_unfinished(tmp_path: Path):
    uri = folders.address(str(tmp_path), "videos", "x", {})
    folders.commit(uri, {})
    manifest = Path(uri) / "manifest.json"
    for text in (manifest.read_text()[:40], "", "[]"):
        manifest.write_text(text)
        assert not folders.is_committed(uri)
        with pytest.raises(InputError, match="run the stage that writes it again"):
            folders.read_manifest(uri)


def test_a_fingerprint_is_read_from_a_relative_address(tmp_path: Path, monkeypatch):
    uri = folders.address(str(tmp_path), "index", "x", {})
    monkeypatch.chdir(tmp_path)
    assert folders.fingerprint_of("index/" + uri.rsplit("/", 1)[1], "index") == folders.fingerprint_of(uri, "index")


def test_an_ancestor_is_the_input_of_an_input(tmp_path: Path):
    videos, tubes, index = (folders.address(str(tmp_path), stage, "x", {}) for stage in ("videos", "tubes", "index"))
    folders.commit(videos, {})
    folders.commit(tubes, {}, inputs={"videos": videos})
    folders.commit(index, {}, inputs={"tubes": tubes})
    assert folders.ancestor(index) == index
    assert folders.ancestor(index, "tubes", "videos") == videos
    with pytest.raises(KeyError):
        folders.ancestor(index, "videos")
