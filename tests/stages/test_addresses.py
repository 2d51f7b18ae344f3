"""Oracles: addresses written down by hand, since results that are already stored must be found again."""

from pathlib import Path

import pytest

from previts.config import paper
from previts.corpus import members
from previts.errors import InputError
from previts.stages import addresses
from previts.storage import folders


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def index(tmp_path: Path) -> str:
    uri = folders.address(str(tmp_path), "index", "corpus", {"videos": "a"})
    folders.commit(uri, {"videos": "a"})
    return uri


@pytest.fixture
def checkpoint(index: str, tmp_path: Path) -> str:
    plan = paper.resolve("1/vgg/previts", "paper", [])
    uri = addresses.checkpoint_address(plan, index, str(tmp_path))
    folders.commit(uri, addresses.checkpoint_decided(plan, index))
    return uri


# If one of these changes, all checkpoints that are already stored are trained again.
@pytest.mark.parametrize(
    ("row", "profile", "expected"),
    [
        ("1/vgg/moco", "paper", "resnet50-moco-93e7e8b3b906"),
        ("1/vgg/sampling", "paper", "resnet50-sampling-4fb551c5a638"),
        ("1/vgg/previts", "paper", "resnet50-previts-bbb86a6469ea"),
        ("2/vgg/previts", "paper", "s3dg-previts-0f6a6ac66e55"),
        ("1/random", "paper", "resnet50-frozen-c5a28a93eae0"),
        ("1/vgg/previts", "demo", "resnet18-previts-1a67e199d56c"),
    ],
)
def test_a_checkpoint_has_the_address_of_earlier_versions(row, profile, expected, index, tmp_path):
    uri = addresses.checkpoint_address(paper.resolve(row, profile, []), index, str(tmp_path))
    assert uri == f"{tmp_path}/checkpoints/{expected}"


@pytest.mark.parametrize(
    ("benchmark", "folder", "expected"),
    [
        ("voc07", "voc", "voc07-bbb86a6469ea-e956c7ef5950"),
        ("davis", "davis", "davis-bbb86a6469ea-5b47092d73e0"),
        ("coco", "coco", "coco-bbb86a6469ea-09febf96f73f"),
    ],
)
def test_a_result_has_the_address_of_earlier_versions(benchmark, folder, expected, checkpoint, tmp_path):
    write(tmp_path / "data" / folder / "a.txt", folder)
    plan = paper.resolve("1/vgg/previts", "paper", [])
    uri = addresses.result_address(benchmark, checkpoint, str(tmp_path / "data"), plan, str(tmp_path))
    assert uri == f"{tmp_path}/results/{expected}"


def test_only_the_settings_that_a_benchmark_reads_decide_its_result(checkpoint, tmp_path):
    data = str(write(tmp_path / "davis" / "a.txt", "a").parents[1])

    def address(assignment: str) -> str:
        plan = paper.resolve("1/vgg/previts", "paper", [assignment])
        return addresses.result_address("davis", checkpoint, data, plan, str(tmp_path))

    default = address("seed=0")
    assert address("evaluation.linear.recipe=virtex") == default
    assert address("evaluation.davis.threshold=0.4") != default
    assert address("evaluation.crop=200") != default


def test_the_weights_decide_a_checkpoint_by_their_content(index, tmp_path):
    def address(path: Path) -> str:
        plan = paper.resolve("1/supervised", "paper", [f"model.weights={path}"])
        return addresses.checkpoint_address(plan, index, str(tmp_path))

    first = address(write(tmp_path / "a.pt", "weights"))
    assert address(write(tmp_path / "elsewhere" / "b.pt", "weights")) == first
    assert address(write(tmp_path / "a.pt", "other weights")) != first
    with pytest.raises(InputError, match=r"model\.weights: .*gone\.pt"):
        address(tmp_path / "gone.pt")


def test_a_missing_dataset_is_reported_with_its_folder(tmp_path):
    write(tmp_path / "jhmdb" / "a.txt", "a")
    with pytest.raises(InputError, match=r"benchmark jhmdb needs a labelled dataset at .*ucf101, which does not exist"):
        addresses.data_folders("jhmdb", str(tmp_path))
    write(tmp_path / "ucf101" / "a.txt", "a")
    assert addresses.data_folders("jhmdb", str(tmp_path)) == [f"{tmp_path}/jhmdb", f"{tmp_path}/ucf101"]


def test_the_image_challenge_reads_imagenet_only_with_a_class_map(tmp_path):
    write(tmp_path / "in9" / "a.txt", "a")
    assert addresses.data_folders("in9", str(tmp_path)) == [f"{tmp_path}/in9"]
    write(tmp_path / "in9" / "in_to_in9.json", "{}")
    with pytest.raises(InputError, match=r"benchmark in9 needs a labelled dataset at .*imagenet"):
        addresses.data_folders("in9", str(tmp_path))


def grown(root: str, method: str, *crawls: str) -> str:
    """Commit the manifests of an index of some crawls, whose tubes follow the saliency of a method."""
    parts = [folders.address(root, "videos", name, {"crawl": name}) for name in crawls]
    decided = {"crawls": crawls, "saliency": {"method": method}}
    videos, saliency, tubes, uri = (
        folders.address(root, stage, "corpus", decided) for stage in ("videos", "saliency", "tubes", "index")
    )
    members.write(videos, [members.Member(part, 1) for part in parts])
    folders.commit(saliency, decided)
    folders.commit(tubes, decided, inputs={"saliency": saliency})
    folders.commit(uri, decided, inputs={"videos": videos, "tubes": tubes})
    return uri


def trained(root: str, index: str, *settings: str, steps: int = 10, start: str = "scratch") -> str:
    """Commit the manifest of a checkpoint of a row on an index."""
    plan = paper.resolve("1/vgg/previts", "paper", [*settings, f"model.start={start}"])
    previous = addresses.previous_checkpoint(plan, index, root)
    decided, uri = addresses.checkpoint_decided(plan, index, previous), addresses.checkpoint_address(plan, index, root)
    folders.commit(uri, decided, inputs={"index": index}, counts={"steps": steps})
    return uri


def test_a_training_continues_the_newest_checkpoint_of_its_own_row_only(tmp_path, monkeypatch):
    root, weights = str(tmp_path), write(tmp_path / "given.pt", "weights")
    small, larger, whole, other = (grown(root, "rbd", *names) for names in ("a", "ab", "abc", "ad"))
    of_labels, of_other_maps = grown(root, "supervised", "a", "b"), grown(root, "mc", "a", "b")

    def found(*settings: str, index: str = whole) -> str:
        plan = paper.resolve("1/vgg/previts", "paper", ["model.start=previous", *settings])
        return addresses.previous_checkpoint(plan, index, root)

    assert found() == ""
    oldest = trained(root, small, steps=90)
    for index, *settings in ([other], [larger, "seed=1"], [of_labels], [of_other_maps], [whole]):
        trained(root, index, *settings)
    of_weights = trained(root, larger, f"model.weights={weights}")
    assert found() == oldest
    assert found(f"model.weights={weights}") == of_weights
    few = trained(root, larger, "optim.epochs=2", steps=20)
    assert found() == found("optim.lr=0.1") == few
    many = trained(root, larger, steps=30, start="previous")
    assert (found(), found(index=small)) == (many, "")
    assert found("model.start=scratch") == found("model.frozen=true") == ""
    assert folders.read_manifest(many).decided["previous"] == folders.fingerprint_of(oldest, "checkpoints")
    last = trained(root, whole, f"model.weights={weights}", start="previous")
    decided = folders.read_manifest(last).decided
    assert decided["previous"] == folders.fingerprint_of(of_weights, "checkpoints")
    assert decided["weights"] == folders.identity(str(weights))
    monkeypatch.setitem(addresses.FORMATS, "checkpoints", 99)
    assert found() == ""
