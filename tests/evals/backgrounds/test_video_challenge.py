"""Planted signals: if only the background shows the class, exchanging it must lose accuracy, and the reverse."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import puppet_clips
import pytest
import torch
from item_checks import check_items

from previts.config.evaluation import ActionsConfig, BackgroundsConfig, EvaluationConfig
from previts.demo import TINY
from previts.demo.sets import world_videos
from previts.errors import InputError
from previts.evals import frozen
from previts.evals.actions import classifier, video_sets
from previts.evals.backgrounds import jhmdb, video_challenge
from previts.evals.outcome import Outcome, Population
from previts.evals.run import evaluate
from previts.media.variants import MIXED, VARIANTS
from previts.models.moco import MoCo
from previts.storage import files

FAST = ActionsConfig(epochs=20, lr=0.02, batch_size=4, frames=8, size=64, test_clips=1)
CAMS = ("cam_energy", "cam_pointing")
# One training step with three clips, and three test clips: takes seconds.
BRIEF = EvaluationConfig(actions=replace(FAST, epochs=1), limit=3)


@pytest.fixture(scope="module")
def model() -> MoCo:
    return puppet_clips.small_model()


def percent(outcome: Outcome) -> dict[str, float]:
    return {key.removeprefix("jhmdb/"): value for key, value in outcome.metrics.items()}


@pytest.fixture(scope="module")
def root(model: MoCo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips whose background shows the class, and a classifier to start from."""
    root = tmp_path_factory.mktemp("sets")
    puppet_clips.write_jhmdb(root / "jhmdb", "background")
    puppet_clips.write_classifier(root / "classifier.pt", model)
    return root


@pytest.mark.slow
def test_a_classifier_of_backgrounds_loses_accuracy_without_them(model: MoCo, root: Path):
    config = EvaluationConfig(actions=FAST)
    outcome = evaluate("jhmdb", model, str(root), config, folder="", classifier_uri=str(root / "classifier.pt"))
    found = percent(outcome)
    assert set(found) == {*VARIANTS, *CAMS}
    assert min(found["original"], found["mixed_same"]) > 85
    assert found["only_bg_t"] > 60
    assert found["only_fg"] < 50
    assert found["mixed_next"] < 15
    rows = list(csv.DictReader(io.StringIO(outcome.files["manifest.csv"].decode())))
    assert len(rows) == 3 * 9
    # The classifier sees the class of the background: in mixed_rand it is right where both classes are equal by chance.
    lucky = np.mean([row["class"] == row["background_class"] for row in rows if row["variant"] == "mixed_rand"])
    assert found["mixed_rand"] == pytest.approx(100 * lucky, abs=23)
    protocol = outcome.protocol
    assert protocol["weights_before"] == protocol["weights_after"] == frozen.weights_digest(model)
    assert protocol["clips"] == {"1": {"train": 12, "test": 9}}
    assert outcome.populations.keys() == outcome.metrics.keys()
    assert outcome.populations["jhmdb/mixed_rand"] == Population(9, "clips", pytest.approx(100 / 3))
    assert outcome.populations["jhmdb/cam_energy"].chance == protocol["cam_energy_of_an_even_map"]
    assert protocol["start"] == "the classifier that ucf101 left"
    check_items(outcome, set(outcome.metrics))
    assert protocol["masks"] == {"1 test": {"frames": 3 * (10 + 7 + 10), "empty": 0, "spanned": 0}}


@pytest.mark.slow
def test_a_classifier_of_persons_keeps_its_accuracy_on_other_backgrounds(model: MoCo, root: Path, tmp_path: Path):
    puppet_clips.write_jhmdb(tmp_path / "jhmdb", "person")
    config = EvaluationConfig(actions=FAST)
    outcome = evaluate("jhmdb", model, str(tmp_path), config, folder="", classifier_uri=str(root / "classifier.pt"))
    found = percent(outcome)
    assert min(found[name] for name in ("original", *MIXED)) > 85
    assert max(found[name] for name in ("no_fg", "only_bg_b", "only_bg_t")) < 50


def test_attention_is_compared_with_the_person_at_the_same_place_and_time(model: MoCo, root: Path):
    _, test = jhmdb.read_jhmdb(str(root / "jhmdb"), "1")
    videos, made = jhmdb.varied(test, "original", 0), classifier.new_classifier(model, test.classes, seed=3).eval()
    expected = []
    for clip in test.clips:
        # Eight frames in the middle, or a clip of seven and its first again; the middle 64 of 72 columns, unscaled.
        numbers = [1 + t for t in range(8)] if len(clip.frames) == 10 else [t % 7 for t in range(8)]
        frames, masks = (array[numbers][:, :, 4:68] for array in puppet_clips.whole(clip))
        pixels = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))[None]
        cam = classifier.class_attention(
            made, classifier.normalised(pixels, torch.device("cpu")), torch.tensor([clip.label])
        )[0].numpy()
        assert cam.shape == (1, 2, 2)
        shares = masks.reshape(8, 2, 32, 2, 32).mean((0, 2, 4))
        peak = np.unravel_index(cam[0].argmax(), (2, 2))
        energy = (cam[0] * shares).sum() / cam.sum() if cam.sum() else 0.0
        hit = float(cam.max() > 0 and shares[peak] >= 0.5)
        expected.append((energy, hit, shares.mean(), (shares >= 0.5).mean()))
    config = EvaluationConfig(actions=FAST)
    found = video_challenge._grounding(made, test, videos, config=config, what="attention")
    assert list(found) == ["cam_energy", "cam_pointing", "cam_chance", "cam_pointing_chance"]
    np.testing.assert_allclose(list(found.values()), np.transpose(expected), atol=1e-5)
    # The share of a square of 26 pixels, of which the crop may remove a part.
    assert found["cam_chance"].mean() == pytest.approx((26 / 64) ** 2, abs=0.03)


def test_the_covered_share_of_a_cell_is_the_mean_of_its_pixels():
    masks = np.random.default_rng(0).integers(0, 2, (8, 1, 96, 96), dtype=np.uint8).repeat(3, 1) * 255
    found = video_challenge.covered(masks, (2, 3, 3))
    for t, y, x in np.ndindex(2, 3, 3):
        block = masks[4 * t : 4 * t + 4, 0, 32 * y : 32 * y + 32, 32 * x : 32 * x + 32]
        assert found[t, y, x] == pytest.approx(block.mean() / 255, abs=1e-6)


def test_one_clip_of_a_short_video_gives_the_same_logits_as_several(model: MoCo, root: Path):
    _, test = jhmdb.read_jhmdb(str(root / "jhmdb"), "1")
    for frames, once in ((8, False), (16, True)):
        config = EvaluationConfig(actions=replace(FAST, test_clips=3, frames=frames))
        fewer = video_challenge._once_where_all_are_short(test, config)
        assert (fewer == replace(config, actions=replace(config.actions, test_clips=1))) == once
        assert (fewer == config) != once
    videos = video_sets.limited(jhmdb.varied(test, "original", 0), 2)
    made = classifier.new_classifier(model, test.classes, seed=3)
    logits = [classifier.test_classifier(made, videos, settings, "short") for settings in (config, fewer)]
    np.testing.assert_allclose(*logits, atol=1e-5)


@pytest.mark.slow
def test_without_a_classifier_one_is_trained_on_ucf101_and_a_stopped_call_resumes(model: MoCo, tmp_path: Path):
    """The whole benchmark on the demo world."""
    world = tmp_path / "world"
    world_videos.write_jhmdb(str(world / "jhmdb"), TINY)
    world_videos.write_ucf101(str(world / "ucf101"), TINY)
    first = evaluate("jhmdb", model, str(world), BRIEF, folder=str(tmp_path / "work"))
    assert first.protocol["start"] == "a classifier trained on UCF-101 here"
    assert set(percent(first)) == {*VARIANTS, *CAMS}
    states = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("state-*.pt")}
    assert {path.parent.relative_to(tmp_path / "work").as_posix() for path in states} == {"ucf101", "split-1/original"}
    again = evaluate("jhmdb", model, str(world), BRIEF, folder=str(tmp_path / "work"))
    assert again.metrics == first.metrics
    assert again.files == first.files
    assert {path: path.stat().st_mtime_ns for path in states} == states


@pytest.mark.slow
def test_numbers_of_classifiers_trained_on_variants_have_other_names(model: MoCo, root: Path, tmp_path: Path):
    config = replace(BRIEF, backgrounds=BackgroundsConfig(train_on="variant"))
    start = str(root / "classifier.pt")
    outcome = evaluate("jhmdb", model, str(root), config, folder=str(tmp_path), classifier_uri=start)
    assert set(outcome.metrics) == {f"jhmdb_by_variant/{name}" for name in (*VARIANTS, *CAMS)}
    assert {path.name for path in (tmp_path / "split-1").iterdir()} == set(VARIANTS)
    rows = list(csv.DictReader(io.StringIO(outcome.files["manifest.csv"].decode())))
    assert {row["part"] for row in rows} == {"train", "test"}
    # The classifier of only_fg was trained on clips of that variant: the same training by hand gives its weights.
    train, _ = jhmdb.read_jhmdb(str(root / "jhmdb"), "1")
    chosen = video_sets.limited(jhmdb.varied(train, "only_fg", 0), 3)
    made = classifier.train_classifier(
        classifier.load_classifier(start, model), chosen, config, folder="", what="only_fg"
    )
    state = torch.load(next((tmp_path / "split-1" / "only_fg").glob("*.pt")), weights_only=True)
    torch.testing.assert_close(state["module"]["head.weight"], made.head.weight.detach())


@pytest.mark.slow
def test_all_splits_give_their_mean(model: MoCo, root: Path):
    config = replace(BRIEF, actions=replace(BRIEF.actions, split="all"))
    outcome = evaluate("jhmdb", model, str(root), config, folder="", classifier_uri=str(root / "classifier.pt"))
    by_split = outcome.protocol["by_split"]
    assert list(by_split) == ["1", "2", "3"]
    for name in VARIANTS:
        values = [found[f"jhmdb/{name}"] for found in by_split.values()]
        assert outcome.metrics[f"jhmdb/{name}"] == pytest.approx(np.mean(values))
    assert b"\n0,3,test,mixed_next,wave," in outcome.files["manifest.csv"]


def test_errors_are_reported_before_any_training(model: MoCo, tmp_path: Path):
    puppet_clips.write_jhmdb(tmp_path / "jhmdb", test=1)
    with pytest.raises(InputError, match="is alone in its class, and mixed_same"):
        evaluate("jhmdb", model, str(tmp_path), BRIEF)
    puppet_clips.write_jhmdb(tmp_path / "other" / "jhmdb")
    with pytest.raises(InputError, match=r"classifier names .*nowhere\.pt"):
        evaluate("jhmdb", model, str(tmp_path / "other"), BRIEF, folder="", classifier_uri=str(tmp_path / "nowhere.pt"))
    with pytest.raises(InputError, match=r"ucf101/ucfTrainTestlist/classInd\.txt is missing"):
        evaluate("jhmdb", model, str(tmp_path / "other"), BRIEF)
    assert not files.exists(str(tmp_path / "ucf101"))
