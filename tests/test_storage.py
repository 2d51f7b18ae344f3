import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from previts import storage
from previts.errors import InputError


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
        "from previts.storage import fingerprint; print(fingerprint({'a': {'x': 'é'}, 'b': (1, 2.5, None, True)}))"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == storage.fingerprint(value)
    assert len(storage.fingerprint(value)) == 12


def test_a_dataclass_is_fingerprinted_as_its_fields():
    assert storage.fingerprint(Config(0.5, ("a",))) == storage.fingerprint({"rate": 0.5, "names": ["a"]})
    assert storage.fingerprint(Config(0.5, ("a",))) != storage.fingerprint(Config(0.25, ("a",)))


@pytest.mark.parametrize("value", [{1, 2}, object(), b"x", {1: "a"}])
def test_a_value_without_one_json_form_is_refused(value):
    with pytest.raises(TypeError, match="fingerprint"):
        storage.fingerprint(value)


def test_a_number_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="finite"):
        storage.fingerprint({"a": float("nan")})


def test_a_folder_is_believed_only_with_its_manifest(root: str):
    uri = storage.address(root, "videos", "My Crawl", {"crawl": "abc"})
    storage.write_bytes(storage.join(uri, "shard"), b"1")
    assert not storage.is_committed(uri)
    with pytest.raises(InputError, match="has not finished"):
        storage.read_manifest(uri)
    storage.commit(uri, {"crawl": "abc"}, counts={"ok": 3}, info={"why": ["x"]})
    manifest = storage.read_manifest(uri)
    assert storage.is_committed(uri)
    assert (manifest.stage, manifest.counts, manifest.info) == ("videos", {"ok": 3}, {"why": ["x"]})
    assert uri.endswith(f"videos/my-crawl-{manifest.fingerprint}")
    assert storage.fingerprint_of(uri, "videos") == manifest.fingerprint == storage.identity(uri)


def test_an_address_depends_on_what_was_decided_and_not_on_the_root(tmp_path: Path):
    one = storage.address(str(tmp_path / "a"), "index", "x", {"k": 1})
    other = storage.address(str(tmp_path / "b"), "index", "x", {"k": 1})
    assert one.rsplit("/", 1)[1] == other.rsplit("/", 1)[1]
    assert storage.address(str(tmp_path), "index", "x", {"k": 2}).rsplit("-", 1)[1] not in one


def test_inputs_of_a_root_that_moved_are_found_again(tmp_path: Path):
    first = tmp_path / "first"
    videos = storage.address(str(first), "videos", "v", {})
    tubes = storage.address(str(first), "tubes", "t", {})
    storage.commit(videos, {})
    storage.commit(tubes, {}, inputs={"videos": videos, "crawl": "gs://bucket/crawl.csv"})
    assert storage.read_manifest(tubes).inputs == {"videos": videos, "crawl": "gs://bucket/crawl.csv"}
    first.rename(tmp_path / "second")
    moved = storage.read_manifest(tubes.replace("/first/", "/second/")).inputs["videos"]
    assert moved == videos.replace("/first/", "/second/")
    assert storage.is_committed(moved)


def test_a_file_is_written_whole_or_not_at_all(root: str):
    uri = storage.join(root, "folder", "name.json")
    storage.write_json(uri, {"a": 1})
    storage.write_json(uri, {"a": 2})
    assert storage.read_json(uri) == {"a": 2}
    assert storage.read_bytes(uri, 1, 4) == json.dumps({"a": 2}, indent=1).encode()[1:4]
    assert storage.names(storage.join(root, "folder")) == ["name.json"]
    assert storage.names(storage.join(root, "nowhere")) == []


def test_an_upload_leaves_no_temporary_file(root: str, tmp_path: Path):
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)
    storage.upload(str(source), storage.join(root, "up", "target"))
    assert storage.read_bytes(storage.join(root, "up", "target")) == b"x" * 1000
    assert storage.names(storage.join(root, "up")) == ["target"]


def test_identity_follows_content_and_not_the_path(tmp_path: Path):
    for name, text in (("a", "same"), ("b", "same"), ("c", "else")):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "file").write_text(text)
    a, b, c = (storage.identity(str(tmp_path / name)) for name in "abc")
    assert a == b != c
    assert storage.identity(str(tmp_path / "a/deep/file")) == storage.identity(str(tmp_path / "b/deep/file"))


def test_large_folders_are_identified_by_names_and_sizes(tmp_path: Path, monkeypatch):
    (tmp_path / "x").write_text("abc")
    by_content = storage.identity(str(tmp_path))
    monkeypatch.setattr(storage, "HASHED_FILES", 0)
    by_size = storage.identity(str(tmp_path))
    (tmp_path / "x").write_text("abd")
    assert storage.identity(str(tmp_path)) == by_size != by_content
    (tmp_path / "x").write_text("abcd")
    assert storage.identity(str(tmp_path)) != by_size


@pytest.mark.parametrize("uri", ["", "nope://x/y"])
def test_a_uri_that_cannot_be_opened_says_what_is_allowed(uri: str):
    with pytest.raises(InputError, match="gs://"):
        storage.open_fs(uri)


def test_nothing_there_is_an_input_error(tmp_path: Path):
    with pytest.raises(InputError, match="nothing at"):
        storage.identity(str(tmp_path / "missing"))
    with pytest.raises(InputError, match="not an output of stage"):
        storage.fingerprint_of(str(tmp_path), "index")


def test_a_manifest_of_something_else_is_refused(tmp_path: Path):
    (tmp_path / "manifest.json").write_text('{"foo": 1}')
    with pytest.raises(InputError, match="not a manifest of previts"):
        storage.read_manifest(str(tmp_path))


def test_a_damaged_manifest_is_no_manifest(tmp_path: Path):
    uri = storage.address(str(tmp_path), "videos", "x", {})
    storage.commit(uri, {})
    manifest = Path(uri) / "manifest.json"
    for text in (manifest.read_text()[:40], "", "[]"):
        manifest.write_text(text)
        assert not storage.is_committed(uri)
        with pytest.raises(InputError, match="run the stage that writes it again"):
            storage.read_manifest(uri)


def test_a_fingerprint_is_read_off_a_relative_address_too(tmp_path: Path, monkeypatch):
    uri = storage.address(str(tmp_path), "index", "x", {})
    monkeypatch.chdir(tmp_path)
    assert storage.fingerprint_of("index/" + uri.rsplit("/", 1)[1], "index") == storage.fingerprint_of(uri, "index")
