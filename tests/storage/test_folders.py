"""Oracles: what was committed, and folders that differ only in their path or only in their content."""

import hashlib
import json
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


def committed(root: str, stage: str = "videos") -> str:
    uri = folders.address(root, stage, "x", {"k": 1.5})
    for name in ("a", "deep/b"):
        files.write_bytes(files.join(uri, name), name.encode())
    folders.commit(uri, {"k": 1.5}, counts={"shards": 2}, files=["a", "deep/b"])
    return uri


def test_a_file_of_a_finished_folder_is_the_one_that_was_committed(root: str):
    uri = committed(root)
    manifest = json.loads(files.read_bytes(files.join(uri, "manifest.json")))
    assert manifest["files"] == {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a", "deep/b")}
    assert [folders.read_file(uri, name) for name in ("a", "deep/b")] == [b"a", b"deep/b"]
    files.write_bytes(files.join(uri, "deep/b"), b"other")
    files.write_bytes(files.join(uri, "c"), b"c")
    with pytest.raises(InputError, match=r"deep/b was changed after manifest\.json was written; delete both"):
        folders.read_file(uri, "deep/b")
    with pytest.raises(InputError, match=r"c was added after manifest\.json was written; delete both"):
        folders.read_file(uri, "c")
    with pytest.raises(FileNotFoundError):
        folders.read_file(uri, "d")


def test_a_folder_that_is_made_again_in_the_same_process_is_read_again(root: str):
    uri = committed(root)
    assert folders.read_file(uri, "a") == b"a"
    document = files.read_bytes(files.join(uri, "manifest.json"))
    files.write_bytes(files.join(uri, "a"), b"second")
    files.delete(files.join(uri, "manifest.json"))
    assert folders.read_file(uri, "a") == b"second"  # not finished: nothing to compare with
    folders.commit(uri, {"k": 1.5}, files=["a"])
    assert folders.read_file(uri, "a") == b"second"
    files.write_bytes(files.join(uri, "manifest.json"), document)  # by another process
    files.write_bytes(files.join(uri, "a"), b"a")
    assert folders.read_file(uri, "a") == b"a"


@pytest.mark.parametrize("key", ["stage", "fingerprint", "decided", "inputs", "counts", "files", "info", "checksum"])
def test_a_manifest_with_a_changed_field_is_not_accepted(tmp_path: Path, key: str):
    uri = committed(str(tmp_path))
    path = Path(uri) / "manifest.json"
    document = json.loads(path.read_text())
    for value in ({"x": 1}, {}, "x", None, [], 3):
        if document[key] == value:
            continue
        path.write_text(json.dumps({**document, key: value}))
        assert not folders.is_committed(uri)
        assert folders.damage(uri).startswith(str(path))
        with pytest.raises(InputError, match=r"manifest\.json.*delete manifest\.json and run the stage"):
            folders.read_manifest(uri)


def test_the_manifest_of_another_folder_is_not_accepted(tmp_path: Path):
    uri = committed(str(tmp_path))
    other = folders.address(str(tmp_path), "videos", "x", {"k": 2})
    elsewhere = str(tmp_path / "tubes" / uri.rsplit("/", 1)[1])
    for place in (other, elsewhere):
        files.upload(f"{uri}/manifest.json", f"{place}/manifest.json")
        with pytest.raises(InputError, match="belongs to another folder"):
            folders.read_manifest(place)
    renamed = Path(uri).rename(tmp_path / "mine")
    assert folders.read_manifest(str(renamed)).fingerprint == uri.rsplit("-", 1)[1]
    with pytest.raises(ValueError, match="was not computed from these decisions"):
        folders.commit(other, {"k": 3})


def test_the_manifest_of_an_earlier_version_says_so(tmp_path: Path):
    path = tmp_path / "videos" / "x-0123456789ab" / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"stage": "videos", "fingerprint": "0123456789ab", "decided": {}, "inputs": {},
                                "counts": {"shards": 1}, "info": {}, "code_version": "0.2.0"}))  # fmt: skip
    assert not folders.is_committed(str(path.parent))
    with pytest.raises(InputError, match="written by an earlier version of previts; run the stage that writes it"):
        folders.read_manifest(str(path.parent))


def test_a_folder_in_place_of_the_manifest_is_an_error_because_it_cannot_be_replaced(tmp_path: Path):
    uri = folders.address(str(tmp_path), "videos", "x", {})
    (Path(uri) / "manifest.json").mkdir(parents=True)
    for check in (folders.is_committed, folders.read_manifest):
        with pytest.raises(InputError, match=r"manifest\.json is a folder, expected a file; delete manifest\.json"):
            check(uri)


def test_a_number_that_is_not_finite_is_refused_before_anything_is_written(tmp_path: Path):
    uri = folders.address(str(tmp_path), "results", "x", {})
    with pytest.raises(ValueError, match="finite"):
        folders.commit(uri, {}, counts={"ap": float("nan")})
    assert not folders.is_committed(uri)
