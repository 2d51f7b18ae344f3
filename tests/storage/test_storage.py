import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from previts.errors import InputError
from previts.storage import files, fingerprints, folders


@dataclass(frozen=True)
class Config:
    rate: float
    names: tuple[str, ...]


@pytest.fixture(params=["file", "memory"])
def root(request, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "file" else f"memory://{tmp_path.name}"


def test_a_fingerprint_is_the_same_in_another_process_and_in_any_key_order():
    value = {"b": [1, 2.5, None, True], "a": {"x": "é"}}
    program = (
        "from previts.storage import fingerprints\n"
        "print(fingerprints.fingerprint({'a': {'x': 'é'}, 'b': (1, 2.5, None, True)}))"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == fingerprints.fingerprint(value)
    assert len(fingerprints.fingerprint(value)) == 12


def test_a_dataclass_is_fingerprinted_as_its_fields():
    assert fingerprints.fingerprint(Config(0.5, ("a",))) == fingerprints.fingerprint({"rate": 0.5, "names": ["a"]})
    assert fingerprints.fingerprint(Config(0.5, ("a",))) != fingerprints.fingerprint(Config(0.25, ("a",)))


@pytest.mark.parametrize("value", [{1, 2}, object(), b"x", {1: "a"}])
def test_a_value_without_one_json_form_is_refused(value):
    with pytest.raises(TypeError, match="fingerprint"):
        fingerprints.fingerprint(value)


def test_a_number_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="finite"):
        fingerprints.fingerprint({"a": float("nan")})


def test_a_folder_is_believed_only_with_its_manifest(root: str):
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


def test_inputs_of_a_root_that_moved_are_found_again(tmp_path: Path):
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


def test_a_file_is_written_whole_or_not_at_all(root: str):
    uri = files.join(root, "folder", "name.json")
    files.write_json(uri, {"a": 1})
    files.write_json(uri, {"a": 2})
    assert files.read_json(uri) == {"a": 2}
    assert files.read_bytes(uri, 1, 4) == json.dumps({"a": 2}, indent=1).encode()[1:4]
    assert files.names(files.join(root, "folder")) == ["name.json"]
    assert files.names(files.join(root, "nowhere")) == []


def test_an_upload_leaves_no_temporary_file(root: str, tmp_path: Path):
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)
    files.upload(str(source), files.join(root, "up", "target"))
    assert files.read_bytes(files.join(root, "up", "target")) == b"x" * 1000
    assert files.names(files.join(root, "up")) == ["target"]


def test_identity_follows_content_and_not_the_path(tmp_path: Path):
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


@pytest.mark.parametrize("uri", ["", "nope://x/y"])
def test_a_uri_that_cannot_be_opened_says_what_is_allowed(uri: str):
    with pytest.raises(InputError, match="gs://"):
        files.open_fs(uri)


def test_nothing_there_is_an_input_error(tmp_path: Path):
    with pytest.raises(InputError, match="nothing at"):
        folders.identity(str(tmp_path / "missing"))
    with pytest.raises(InputError, match="not an output of stage"):
        folders.fingerprint_of(str(tmp_path), "index")


def test_a_manifest_of_something_else_is_refused(tmp_path: Path):
    (tmp_path / "manifest.json").write_text('{"foo": 1}')
    with pytest.raises(InputError, match="not a manifest of previts"):
        folders.read_manifest(str(tmp_path))


def test_a_damaged_manifest_is_no_manifest(tmp_path: Path):
    uri = folders.address(str(tmp_path), "videos", "x", {})
    folders.commit(uri, {})
    manifest = Path(uri) / "manifest.json"
    for text in (manifest.read_text()[:40], "", "[]"):
        manifest.write_text(text)
        assert not folders.is_committed(uri)
        with pytest.raises(InputError, match="run the stage that writes it again"):
            folders.read_manifest(uri)


def test_a_fingerprint_is_read_off_a_relative_address_too(tmp_path: Path, monkeypatch):
    uri = folders.address(str(tmp_path), "index", "x", {})
    monkeypatch.chdir(tmp_path)
    assert folders.fingerprint_of("index/" + uri.rsplit("/", 1)[1], "index") == folders.fingerprint_of(uri, "index")
