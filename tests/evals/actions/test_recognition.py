"""Oracle: classes with a visible difference."""

import io
from dataclasses import replace
from pathlib import Path

import clip_sets
import numpy as np
import pytest
from item_checks import check_items

from previts.demo.config import TINY
from previts.demo.sets.world_videos import write_ucf101
from previts.errors import InputError
from previts.evals.actions import classifier, recognition, video_sets
from previts.evals.outcome import Population
from previts.evals.run import evaluate
from previts.models.moco import MoCo
from previts.storage import files


@pytest.fixture(scope="module")
def model() -> MoCo:
    return clip_sets.small_model()


@pytest.mark.slow
def test_ucf101_classes_are_recognised_from_its_files(model: MoCo, tmp_path: Path):
    clip_sets.write_ucf101(tmp_path / "ucf101", videos=5)
    outcome = evaluate("ucf101", model, str(tmp_path), clip_sets.small_settings(epochs=25))
    assert outcome.metrics == {"ucf101/top1": 100.0, "ucf101/top5": 100.0}
    assert outcome.protocol["videos"] == {"1": {"train": 12, "test": 3}}
    assert outcome.protocol["weights_before"] == outcome.protocol["weights_after"]
    path = tmp_path / "classifier.pt"
    path.write_bytes(outcome.files["classifier.pt"])
    made = classifier.load_classifier(str(path), model)
    assert made.classes == ("Blue", "Green", "Red")
    test = video_sets.read_ucf101(str(tmp_path / "ucf101"), "1")[1]
    logits = classifier.test_classifier(made, test, clip_sets.small_settings(), "test")
    assert logits.argmax(1).tolist() == list(test.labels)
    figure = np.load(io.BytesIO(outcome.figures["class_attention.npz"]), allow_pickle=False)
    assert figure["names"].tolist() == [f"v_{name}_g05_c01.avi" for name in ("Blue", "Green", "Red")]
    assert figure["predicted"].tolist() == figure["classes"].tolist() == ["Blue", "Green", "Red"]
    assert figure["frames"].shape == (3, 4, 64, 64, 3)
    assert figure["cams"].shape == (3, 4, 2, 2)


@pytest.mark.slow
def test_all_splits_are_averaged(model: MoCo, tmp_path: Path):
    clip_sets.write_hmdb51(tmp_path / "hmdb51", frames=8)
    outcome = evaluate("hmdb51", model, str(tmp_path), clip_sets.small_settings(epochs=1, split="all"))
    assert outcome.protocol["videos"] == {split: {"train": 6, "test": 3} for split in ("1", "2", "3")}
    for name, value in outcome.metrics.items():
        assert value == pytest.approx(np.mean([found[name] for found in outcome.protocol["by_split"].values()]))
    assert outcome.metrics.keys() == {"hmdb51/top1", "hmdb51/top5"}
    check_items(outcome, set(outcome.metrics))
    assert outcome.populations["hmdb51/top1"].items == 9


def test_ucf101_runs_on_the_demo_world(model: MoCo, tmp_path: Path):
    write_ucf101(str(tmp_path / "ucf101"), TINY)
    outcome = evaluate(
        "ucf101", model, str(tmp_path), clip_sets.small_settings(epochs=1), folder=str(tmp_path / "work")
    )
    assert outcome.protocol["videos"] == {"1": {"train": 2, "test": 4}}
    assert outcome.protocol["classes"] == 2
    assert outcome.populations == {
        "ucf101/top1": Population(4, "videos", 50.0), "ucf101/top5": Population(4, "videos", 100.0),
    }  # fmt: skip
    assert outcome.metrics["ucf101/top1"] in (0, 25, 50, 75, 100)
    assert files.names(str(tmp_path / "work" / "split-1"))


@pytest.mark.slow
def test_repetitions_keep_files_and_figures(model: MoCo, tmp_path: Path):
    clip_sets.write_ucf101(tmp_path / "ucf101", videos=2, frames=8)
    config = replace(clip_sets.small_settings(epochs=1), runs=2)
    first, again = (evaluate("ucf101", model, str(tmp_path), config, folder=str(tmp_path / "work")) for _ in range(2))
    assert first.files == again.files
    assert first.figures == again.figures
    assert list(again.files) == ["classifier.pt", "items.npz"]


def test_a_damaged_video_stops_the_evaluation_with_its_name(model: MoCo, tmp_path: Path):
    root = clip_sets.write_ucf101(tmp_path / "ucf101", videos=2, frames=8)
    path = root / "UCF-101" / "Green" / "v_Green_g01_c01.avi"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"v_Green_g01_c01\.avi cannot be read as a video"):
        recognition.ucf101(model, str(root), clip_sets.small_settings(), "")
    assert not files.exists(str(tmp_path / "work"))


@pytest.mark.slow
def test_real_videos(model: MoCo, real_data: Path):
    config = replace(clip_sets.small_settings(epochs=1), limit=8)
    outcome = evaluate("ucf101", model, str(real_data), config)
    assert outcome.protocol["videos"] == {"1": {"train": 8, "test": 8}}
    assert outcome.protocol["classes"] == 11
