"""Oracle: the next verb refuses a changed file with a message, and no output appears at the address that it would have.

Each test changes one file in a copy of a finished root. The copy shares the files by hard links, so a changed file is
replaced, never written to.
"""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_verbs import SMALL

from previts import stages
from previts.errors import InputError
from previts.storage import folders

ROW = "1/vgg/previts"
EVERY = [*SMALL, "saliency.every=5"]  # settings with which a verb has not run yet
AGE = [*SMALL, "track.max_age=3"]
SHORT = [*SMALL, "filter.min_tube_seconds=0.01"]


@pytest.fixture
def copy(made: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The outputs of all verbs in another root."""
    shutil.copytree(made["root"], tmp_path / "root", copy_function=os.link)
    return {name: uri.replace(made["root"], str(tmp_path / "root")) for name, uri in made.items()}


def replace_file(path: str | Path, data: bytes) -> None:
    Path(path).unlink()
    Path(path).write_bytes(data)


def committed(root: str) -> set[Path]:
    return set(Path(root).rglob("manifest.json"))


def refuses(at: dict[str, str], verb: Callable[[], str], message: str) -> None:
    before = committed(at["root"])
    with pytest.raises(InputError, match=message):
        verb()
    assert committed(at["root"]) == before


def saliency(at: dict[str, str]) -> str:
    return stages.saliency(at["videos"], at["model"], at["root"], "demo", EVERY)


def track(at: dict[str, str]) -> str:
    return stages.track(at["videos"], at["saliency"], at["root"], "demo", AGE)


def index(at: dict[str, str]) -> str:
    return stages.index(at["videos"], at["tubes"], at["root"], "demo", SHORT)


def pretrain(at: dict[str, str], *more: str) -> str:
    return stages.pretrain("1/vgg/moco", at["index"], at["root"], "demo", [*SMALL, *more])


def evaluate(at: dict[str, str]) -> str:
    return stages.evaluate(
        ROW, "davis", at["checkpoint"], at["data"], at["root"], "demo", [*SMALL, "evaluation.seed=9"]
    )


def report(at: dict[str, str]) -> str:
    return stages.report([ROW], at["index"], [at["result"]], at["root"], "demo", SMALL)


@pytest.mark.parametrize(
    ("stage", "verb"),
    [("videos", saliency), ("videos", track), ("videos", index), ("saliency", track), ("tubes", index)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_table_of_another_shard_is_refused(copy, stage, verb):
    folder = Path(copy[stage])
    replace_file(folder / "shard-00000.parquet", (folder / "shard-00001.parquet").read_bytes())
    refuses(copy, lambda: verb(copy), r"shard-00000\.parquet was changed after manifest\.json was written; delete both")
    # Also before the folder is finished.
    (folder / "manifest.json").unlink()
    if (stage, verb) == ("saliency", track):  # it may start before saliency is finished
        refuses(copy, lambda: verb(copy), r"shard-00000\.parquet is a copy of \w+/shard-00001\.parquet; delete it")


def test_the_tar_of_another_shard_is_refused(copy):
    folder = Path(copy["videos"])
    replace_file(folder / "shard-00000.tar", (folder / "shard-00001.tar").read_bytes())
    refuses(copy, lambda: saliency(copy), r"shard-00000\.tar .* the bytes differ from those that were stored")


def test_a_folder_in_place_of_a_tar_is_refused(copy):
    path = Path(copy["videos"]) / "shard-00000.tar"
    path.unlink()
    path.mkdir()
    refuses(copy, lambda: saliency(copy), r"shard-00000\.tar is a folder, expected a file; .*`previts download` again")


def test_training_stops_at_the_tubes_of_other_shards(copy):
    folder = Path(copy["tubes"])
    blobs = sorted(folder.glob("*.tubes"))
    data = [blob.read_bytes() for blob in blobs]
    for blob, other in zip(blobs, [*data[1:], data[0]], strict=True):
        replace_file(blob, other)
    refuses(
        copy,
        lambda: stages.pretrain("6b/mu=0.2", copy["index"], copy["root"], "demo", SMALL),
        "videos of the corpus are damaged",
    )


def edit(uri: str, sealed: bool, **changes: object) -> None:
    """Change fields of a manifest, with or without its checksum."""
    path = Path(uri) / "manifest.json"
    document = {**json.loads(path.read_text()), **changes}
    if sealed:
        rest = {key: value for key, value in document.items() if key != "checksum"}
        canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
        document["checksum"] = hashlib.sha256(canonical.encode()).hexdigest()[:12]
    replace_file(path, json.dumps(document).encode())


@pytest.mark.parametrize("sealed", [False, True], ids=["edited", "sealed"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": {"shards": 0}}, r"counts\.shards must be the number of tables that it lists"),
        ({"counts": {"shards": "x"}}, r"counts\.shards must be a whole number or a number, got 'x'"),
        ({"counts": None}, r"counts must be an object, got None"),
        ({"inputs": []}, r"inputs must be an object, got \[\]"),
        ({"decided": {}}, "belongs to another folder"),
        ({"fingerprint": "0123456789ab"}, "belongs to another folder"),
        ({"stage": "tubes"}, "is an output of stage 'tubes'|belongs to another folder"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_edited_manifest_is_refused_and_its_own_stage_writes_it_again(copy, capsys, sealed, changes, message):
    edit(copy["videos"], sealed, **changes)
    refuses(copy, lambda: saliency(copy), message if sealed else f"{message}|was changed after it was written")
    if not sealed or "counts" not in changes:
        assert stages.download(copy["crawl"], copy["root"], "demo", SMALL) == copy["videos"]
        assert "it is made again" in capsys.readouterr().err
        folders.read_manifest(copy["videos"])


def test_empty_tubes_at_the_true_address_are_refused(copy):
    manifest = folders.read_manifest(copy["tubes"])
    folders.commit(copy["tubes"], manifest.decided, inputs=manifest.inputs, counts={"shards": 0})
    refuses(copy, lambda: index(copy), r"counts\.shards must be the number of tables that it lists, 0, and at least 1")


@pytest.mark.parametrize("kind", ["another model", "a pickle"])
def test_a_model_that_is_replaced_together_with_its_checksum_is_refused(copy, kind):
    folder = Path(copy["checkpoint"])
    data = pickle.dumps({"a": 1}) if kind == "a pickle" else (folder / "encoder.pt").read_bytes()
    name, place = "model.pt", (folder / "model.pt.sha256").read_text().split()[1:]
    replace_file(folder / name, data)
    replace_file(folder / f"{name}.sha256", "  ".join([hashlib.sha256(data).hexdigest(), *place]).encode())
    refuses(copy, lambda: evaluate(copy), r"model\.pt was changed after manifest\.json was written; delete both")


def test_another_encoder_is_refused_as_weights(copy):
    folder = Path(copy["checkpoint"])
    replace_file(folder / "encoder.pt", (folder / "model.pt").read_bytes())
    refuses(
        copy, lambda: pretrain(copy, f"model.weights={folder}"), r"encoder\.pt was changed after manifest\.json was"
    )


def test_another_index_is_refused(copy):
    other = index(copy)
    replace_file(Path(copy["index"]) / "index.parquet", (Path(other) / "index.parquet").read_bytes())
    refuses(copy, lambda: pretrain(copy), r"index\.parquet was changed after manifest\.json was written; delete both")


@pytest.mark.parametrize(("stage", "name"), [("result", "result.json"), ("checkpoint", "log.jsonl")])
def test_numbers_that_were_edited_are_not_reported(copy, stage, name):
    path = Path(copy[stage]) / name
    replace_file(path, path.read_bytes().replace(b"0.", b"0.9", 1))
    refuses(copy, lambda: report(copy), rf"{name} was changed after manifest\.json was written; delete both")
