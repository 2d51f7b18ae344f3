"""The chain behind a result. Oracle: the manifests as they lie in the root, read here without the code under test."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import fsspec
import pytest
from small_corpus import ROW, perceive, two_crawls
from small_verbs import SMALL

from previts import lineage, origin, stages
from previts.config import paper
from previts.evals.result import Result, write_result
from previts.stages import addresses
from previts.storage import files, folders


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Outputs from two crawls to a result, and the root."""
    folder = tmp_path_factory.mktemp("made")
    root = str(folder / "root")
    at = {"root": root, "crawls": two_crawls(folder)}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(origin.RUN, "run-1")
        environment.setenv(origin.IMAGE, "registry/previts-data@sha256:12ab")
        at |= perceive(at["crawls"], root)
        environment.setenv(origin.REVISION, "0badc0de")
        plan = paper.resolve(ROW, "demo", SMALL)
        at["checkpoint"] = addresses.checkpoint_address(plan, at["index"], root)
        files.write_bytes(files.join(at["checkpoint"], "encoder.pt"), b"weights")
        info = {"row": ROW, "profile": "demo"}
        decided = addresses.checkpoint_decided(plan, at["index"], "")
        folders.commit(at["checkpoint"], decided, inputs={"index": at["index"]}, info=info, files=["encoder.pt"])
        decided = {"checkpoint": folders.read_manifest(at["checkpoint"]).fingerprint, "benchmark": "voc07",
                   "data": ["d1"], "evaluation": {"crop": 64}, "format": 4}  # fmt: skip
        at["result"] = folders.address(root, "results", "voc07", decided)
        found = Result(row=ROW, benchmark="voc07", checkpoint=decided["checkpoint"], metrics={"voc07/map": 12.5},
                       protocol={"test images": 40, "train": ["2007 trainval", "2012 trainval"],
                                 "ap50_by_class": {f"c{number:02}": number / 2 for number in range(20)},
                                 "sequences": [{"name": "bear", "frames": 82}, {"name": "boat", "frames": 75}]},
                       )  # fmt: skip
        write_result(at["result"], found)
        inputs = {"checkpoint": at["checkpoint"], "data": "/data"}
        folders.commit(at["result"], decided, inputs=inputs, counts={"voc07/map": 12.5}, files=["result.json"])
    return at


def why(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "previts", "why", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def chain(uri: str) -> list[lineage.Output]:
    return lineage.read_chain(lineage.find(uri).folder)


def test_the_chain_of_a_number_ends_at_the_crawls_and_has_each_output_once(made: dict[str, str]):
    said = why(f"{made['result']}/result.json")
    assert said.returncode == 0, said.stderr
    text = said.stdout
    assert text.startswith(f"result.json of {made['result']}: as the stage wrote it")
    facts = [
        "numbers: voc07/map 12.5", "protocol: test images 40, train 2007 trainval, 2012 trainval, ap50_by_class.c00 0,",
        "ap50_by_class.c09 4.5 and 10 more, sequences 2\n", "data: /data (digest d1)",
        "evaluation.crop = 64 (paper: 224)", f"row: {ROW}, profile: demo", "optim.epochs = 1 (paper: 200)",
        "saliency.method = rbd (paper: deepusps)", f"fitted on: {made['crawls']}/1.csv",
        "crawls: 2; rows 4, ok 4, failed 0",
        f"crawl: {made['crawls']}/2.csv (digest ", "2 made by: previts ", "revision 0badc0de",
        "image registry/previts-data@sha256:12ab, run run-1",
    ]  # fmt: skip
    assert [fact for fact in facts if fact not in text] == []
    assert "[{" not in text
    places = [text.index(f"\n{stage}  ") for stage in lineage.SECTIONS if stage != "report"]
    assert places == sorted(places)
    outputs = json.loads(why(made["result"], "--json").stdout)["outputs"]
    on_disk = {str(path.parent) for path in Path(made["root"]).glob("*/*/manifest.json")}
    crawls = {str(path.parent) for path in Path(made["root"]).glob("crawls/*/manifest.json")}
    assert Counter(output["uri"] for output in outputs) == Counter(on_disk - crawls)
    by_uri = {output["uri"]: output for output in outputs}
    assert by_uri[made["checkpoint"]]["made_by"]["revision"] == "0badc0de"
    assert by_uri[made["result"]]["protocol"]["sequences"][1] == {"name": "boat", "frames": 75}
    assert by_uri[made["checkpoint"]]["not_the_papers"]["optim.batch_size"] == {"value": 4, "paper": 256}


def test_where_an_output_was_made_is_no_part_of_its_identity(made: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    before = files.read_bytes(files.join(made["videos"], folders.MANIFEST))
    monkeypatch.setenv(origin.RUN, "another")
    assert stages.download(made["crawls"], made["root"], "demo", SMALL) == made["videos"]
    assert files.read_bytes(files.join(made["videos"], folders.MANIFEST)) == before


def test_a_manifest_without_an_origin_is_still_read(tmp_path: Path):
    uri = folders.address(str(tmp_path), "videos", "x", {"k": 1})
    folders.commit(uri, {"k": 1})
    path = Path(uri, folders.MANIFEST)
    document = json.loads(path.read_text())
    del document["made_by"]
    document["checksum"] = folders._checksum(document)
    path.write_text(json.dumps(document))
    assert folders.read_manifest(uri).made_by == {}
    assert "made by: previts " in lineage.describe(lineage.find(uri), chain(uri))


def test_deleted_and_damaged_ancestors_are_said(made: dict[str, str], tmp_path: Path):
    root = tmp_path / "root"
    shutil.copytree(made["root"], root)
    at = {name: uri.replace(made["root"], str(root)) for name, uri in made.items()}
    shutil.rmtree(at["model"])
    shutil.rmtree(at["tubes"])
    Path(at["videos"], folders.MANIFEST).write_text("{")
    said = why(at["result"])
    assert said.returncode == 0, said.stderr
    assert f"tubes  {at['tubes']}\n  MISSING: it was deleted" in said.stdout
    assert f"videos  {at['videos']}\n  DAMAGED: " in said.stdout
    assert "saliency  " not in said.stdout  # only the tubes know it
    states = {output["uri"]: output["state"] for output in json.loads(why(at["result"], "--json").stdout)["outputs"]}
    assert (states[at["tubes"]], states[at["videos"]], states[at["index"]]) == ("missing", "damaged", "finished")
    member = Path(json.loads(Path(made["videos"], "members.json").read_text())["members"][0]["uri"]).name
    shutil.copytree(made["tubes"], at["tubes"])
    shutil.copy(Path(made["videos"], folders.MANIFEST), at["videos"])
    shutil.rmtree(root / "videos" / member)
    text = lineage.describe(lineage.find(at["result"]), chain(at["result"]))
    assert f"{root}/videos/{member}: MISSING" in text
    assert "missing: 1" in text
    assert f"saliency_model  {at['model']}\n  MISSING" in text


def test_a_changed_file_and_a_uri_of_nothing_are_said(made: dict[str, str], tmp_path: Path):
    checkpoint = tmp_path / "checkpoints" / Path(made["checkpoint"]).name
    shutil.copytree(made["checkpoint"], checkpoint)
    (checkpoint / "encoder.pt").write_bytes(b"other")
    assert lineage.find(str(checkpoint / "encoder.pt")).state.startswith("CHANGED")
    for uri, message in ((checkpoint / "nothing.pt", "there is no file nothing.pt in"), (tmp_path / "x", "neither ")):
        said = why(str(uri))
        assert said.returncode == 2
        assert message in said.stderr
        assert "Traceback" not in said.stderr


def test_of_thousands_of_crawls_the_text_shows_the_first_few_and_every_manifest_is_read_once():
    root, number = "memory://lineage", 500
    single = []
    for crawl in range(number):
        decided = {"crawl": str(crawl)}
        uri = folders.address(root, "videos", "crawl", decided)
        if crawl != 7:
            folders.commit(uri, decided, inputs={"crawl": f"gs://crawls/{crawl}.csv"}, counts={"videos": 2, "ok": 1})
        single.append({"uri": uri, "shards": 1})
    uri = folders.address(root, "videos", "corpus", {"crawls": number})
    files.write_json(files.join(uri, "members.json"), {"members": single})
    folders.commit(uri, {"crawls": number}, inputs={"crawl0": "gs://crawls/0.csv"}, files=["members.json"])
    index = folders.address(root, "index", "corpus", {"videos": 1})
    folders.commit(index, {"videos": 1}, inputs={"videos": uri, "again": uri})
    store, read = fsspec.filesystem("memory"), Counter[str]()
    whole = store.cat_file

    def counted(path: str, *arguments: object, **more: object) -> bytes:
        read[path] += path.endswith(folders.MANIFEST)
        return whole(path, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(store), "cat_file", lambda self, path, *rest, **more: counted(path, *rest, **more))
        outputs = lineage.read_chain(index)
    assert len(outputs) == number + 2
    assert max(count for path, count in read.items() if "/crawl-" in path) == 1
    asked = lineage.find(index)
    text = lineage.describe(asked, outputs)
    assert len(text.splitlines()) < 30
    assert f"videos of single crawls: {number}" in text
    assert f"... and {number - lineage.SHOWN} more; --json lists all" in text
    assert "missing: 1" in text
    assert len(json.loads(lineage.to_json(asked, outputs))["outputs"]) == number + 2


def test_the_revision_is_that_of_the_checkout_or_unknown(tmp_path: Path):
    (tmp_path / "previts").mkdir()
    shutil.copy(origin.__file__, tmp_path / "previts" / "origin.py")
    (tmp_path / "previts" / "__init__.py").touch()
    code = "from previts import origin; print(origin.made_by().get('revision', ''))"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PREVITS_"))}

    def revision(**more: str) -> str:
        environment = {**clean, "PYTHONPATH": str(tmp_path), **more}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
        return done.stdout.strip()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=clean).stdout.strip()

    assert revision() == ""
    (tmp_path / ".git").mkdir()  # no repository
    assert revision() == ""
    git("init", "-q")
    assert revision() == ""  # no commit
    git("add", ".")
    git("commit", "-qm", "x")
    assert revision() == git("rev-parse", "HEAD")
    assert revision(PATH="/nowhere") == ""
    assert revision(GIT_DIR="/nowhere") == git("rev-parse", "HEAD")
    (tmp_path / "previts" / "__init__.py").write_text("# changed\n")
    assert revision() == git("rev-parse", "HEAD") + "-dirty"
    assert revision(PREVITS_REVISION="unknown") == ""
    assert revision(PREVITS_REVISION="of the image") == "of the image"
