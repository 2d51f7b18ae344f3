"""Oracles: attention equal to the truth, autograd, a square whose place is known."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_images import image_model
from item_checks import check_items
from PIL import Image
from torch.nn import functional as F

from previts.config.evaluation import EvaluationConfig
from previts.errors import InputError
from previts.evals import frozen
from previts.evals.davis import attention_tracking, measure
from previts.evals.outcome import Population
from previts.evals.run import evaluate
from previts.models.gradcam import channel_weights_by_autograd
from previts.models.moco import MoCo

SMALL = EvaluationConfig(resize=96, crop=96, batch_size=4)
MEAN_COLOUR = (124, 116, 104)  # nearly zero after normalisation
WIDTH, HEIGHT, SIDE = 160, 96, 32


@pytest.fixture(scope="module")
def model() -> MoCo:
    return image_model()


def write_davis(root: Path, lengths: dict[str, int]) -> Path:
    """Write DAVIS-2016 with one textured square that crosses a plain frame from left to right."""
    base, lines = root / "davis", []
    for name, length in lengths.items():
        texture = np.random.default_rng(length).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        for n in range(length):
            left = round((WIDTH - SIDE) * n / max(1, length - 1))
            frame, mask = np.full((HEIGHT, WIDTH, 3), MEAN_COLOUR, np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)
            frame[32:64, left : left + SIDE], mask[32:64, left : left + SIDE] = texture, 255
            for folder, suffix, pixels in (("JPEGImages", "jpg", frame), ("Annotations", "png", mask)):
                path = base / folder / "480p" / name / f"{n:05d}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
            lines.append(f"/JPEGImages/480p/{name}/{n:05d}.jpg /Annotations/480p/{name}/{n:05d}.png\n")
    (base / "ImageSets" / "480p").mkdir(parents=True)
    (base / "ImageSets" / "480p" / "val.txt").write_text("".join(lines))
    return root


def perfect(num_frames: int) -> attention_tracking.Followed:
    """Return attention equal to the truth: blocks of 16 pixels that move over a 3 x 5 grid."""
    cells = np.zeros((num_frames, 3, 5), bool)
    for n in range(num_frames):
        cells[n, 1:, n % 4 : n % 4 + 2] = True
    truth = cells.repeat(16, axis=1).repeat(16, axis=2)
    return attention_tracking.Followed(cells.astype(np.float32), cells, cells[0], truth)


def test_attention_equal_to_the_mask_scores_one():
    score = attention_tracking._score(perfect(12), threshold=0.5)
    assert score["grid"] == measure.SequenceScore(1.0, 1.0, 0.0)
    assert all(score[f"grid {value}"].mean == 1 for value in attention_tracking.SWEEP)
    assert 0.6 < score["upsampled"].mean < 1  # bilinear enlargement rounds the corners
    assert score["static"].mean < 0.7
    inverted = replace(perfect(12), cam=1 - perfect(12).cam)
    assert attention_tracking._score(inverted, threshold=0.5)["grid"].mean == 0


def test_last_frame_is_not_scored():
    followed = perfect(12)
    followed.cam[-1] = 0
    assert attention_tracking._score(followed, threshold=0.5)["grid"].mean == 1
    followed.cam[-2] = 0
    assert attention_tracking._score(followed, threshold=0.5)["grid"].mean == pytest.approx(10 / 11)


def test_each_map_is_scaled_to_unit_range_and_a_constant_map_is_zero():
    maps = np.array([[[1.0, 3.0]], [[5.0, 5.0]], [[0.0, 0.0]]], np.float32)
    assert attention_tracking.unit_scaled(maps).tolist() == [[[0, 1]], [[0, 0]], [[0, 0]]]


def test_outcome_equals_autograd_and_literal_loops(model: MoCo, tmp_path: Path):
    write_davis(tmp_path, {"alpha": 7, "beta": 5})
    outcome = evaluate("davis", model, str(tmp_path), SMALL)
    means = []
    for name, length in (("alpha", 7), ("beta", 5)):
        folder = tmp_path / "davis"
        frames = [Image.open(folder / "JPEGImages/480p" / name / f"{n:05d}.jpg") for n in range(length)]
        masks = [np.asarray(Image.open(folder / "Annotations/480p" / name / f"{n:05d}.png")) > 0 for n in range(length)]
        pixels = torch.stack([torch.from_numpy(np.array(f.resize((96, 96), 2))).permute(2, 0, 1) for f in frames])
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        images = (pixels / 255 - mean[:, None, None]) / deviation[:, None, None]
        small = np.stack([np.asarray(Image.fromarray(mask).resize((96, 96), 0)) for mask in masks])
        with torch.no_grad():
            hidden = images[:1] * torch.from_numpy(small[0])
            key = F.normalize(model.head_k(model.encoder_k.features(hidden).mean((2, 3))), dim=1)
        similarities = []
        for n in range(1, length - 1):
            maps = model.encoder_q.features(images[n : n + 1])
            query = F.normalize(model.head_q(maps.mean((2, 3))), dim=1)
            weights = channel_weights_by_autograd(maps, (query * key).sum(1))
            cam = torch.relu((maps * weights[:, :, None, None]).sum(1))[0].detach().numpy()
            attended = (cam - cam.min()) / (cam.max() - cam.min()) >= 0.5
            # 96 pixels on 3 cells: 32 each.
            share = np.array([[small[n, y : y + 32, x : x + 32].mean() for x in (0, 32, 64)] for y in (0, 32, 64)])
            covered = share > 0.5 if (share > 0.5).any() else share == share.max()
            similarities.append((attended & covered).sum() / max(1, (attended | covered).sum()))
        means.append(np.mean(similarities))
        row = next(row for row in outcome.protocol["sequences"] if row["name"] == name)
        assert row["j_mean"] == pytest.approx(means[-1], abs=1e-4)
        assert row["frames"] == length
    assert outcome.metrics["davis/j_mean"] == pytest.approx(np.mean(means), abs=1e-6)
    assert outcome.metrics["davis/j_mean_at_0.5"] == outcome.metrics["davis/j_mean"]
    check_items(outcome, {"davis/j_mean", "davis/j_recall", "davis/j_decay"})
    assert outcome.populations == dict.fromkeys(outcome.metrics, Population(len(means), "sequences", None))
    assert outcome.protocol["weights_before"] == outcome.protocol["weights_after"]


def test_attention_is_near_the_only_object(model: MoCo, tmp_path: Path):
    # The plain background is zero after normalisation, and an untrained network without biases keeps zero: attention
    # can only be within reach of the square (its receptive field spans a few cells).
    write_davis(tmp_path, {"alpha": 6})
    sequence = attention_tracking.read_sequences(str(tmp_path / "davis"))[0]
    followed = attention_tracking.follow(model, sequence, EvaluationConfig(resize=224, crop=224))
    assert followed.cam.shape == (5, 7, 7)
    assert (followed.cam.max(axis=(1, 2)) == 1).all()
    assert followed.truth_cells.any(axis=(1, 2)).all()
    middle = (followed.cam * np.arange(7)).sum(axis=(1, 2)) / followed.cam.sum(axis=(1, 2))
    truth = [np.nonzero(cells)[1].mean() for cells in followed.truth_cells]
    assert np.corrcoef(middle, truth)[0, 1] > 0.9


def test_figure_shows_the_same_frames_for_every_model(model: MoCo, tmp_path: Path):
    write_davis(tmp_path, {f"s{n}": 4 + n for n in range(8)})
    figures = []
    for tested in (model, image_model(1)):
        data = evaluate("davis", tested, str(tmp_path), SMALL).figures["attention.npz"]
        figures.append(dict(np.load(io.BytesIO(data), allow_pickle=False)))
    first, second = figures
    assert first["names"].tolist() == ["s0", "s1", "s3", "s4", "s6", "s7"]
    shapes = {name: values.shape for name, values in first.items()}
    assert shapes == {
        "names": (6,), "frames": (6, 3, 77, 128, 3), "cams": (6, 3, 3, 3), "masks": (6, 3, 77, 128),
        "key_frames": (6, 77, 128, 3), "key_masks": (6, 77, 128),
    }  # fmt: skip
    for name in ("names", "frames", "masks", "key_frames", "key_masks"):
        assert (first[name] == second[name]).all()
    assert (first["cams"] != second["cams"]).any()
    assert first["frames"].dtype == np.uint8
    assert first["cams"].dtype == np.float16
    assert first["masks"].dtype == np.bool_
    # Thumbnail and mask belong together: the square is where the mask is.
    away = np.abs(first["frames"].astype(int) - np.array(MEAN_COLOUR)).max(axis=-1) > 40
    assert (away & first["masks"]).sum() > 0.7 * away.sum()
    assert first["key_masks"][0, :, :40].any()
    assert not first["key_masks"][0, :, 40:].any()


def test_the_figure_shows_a_first_mask_of_any_colour(model: MoCo, tmp_path: Path):
    write_davis(tmp_path, {"alpha": 4})
    path = tmp_path / "davis" / "Annotations" / "480p" / "alpha" / "00000.png"
    mask = np.asarray(Image.open(path)) // 255
    Image.fromarray(np.stack([0 * mask, 0 * mask, mask], axis=2)).save(path)  # (0, 0, 1) is 0 as a shade of grey
    data = evaluate("davis", model, str(tmp_path), SMALL).figures["attention.npz"]
    key_mask = np.load(io.BytesIO(data), allow_pickle=False)["key_masks"][0]
    assert key_mask[:, : 128 * SIDE // WIDTH].any()


def test_limit_keeps_first_and_last_frame(model: MoCo, tmp_path: Path):
    write_davis(tmp_path, {"alpha": 9})
    outcome = evaluate("davis", model, str(tmp_path), replace(SMALL, limit=1))
    assert outcome.protocol["scored_frames"] == 1
    kept = attention_tracking._shortened(attention_tracking.read_sequences(str(tmp_path / "davis"))[0], 3)
    assert [Path(uri).stem for uri in kept.frames] == ["00000", "00004", "00008"]


def test_layout_errors_name_the_file(model: MoCo, tmp_path: Path):
    with pytest.raises(InputError, match=r"ImageSets/480p/val\.txt is missing"):
        evaluate("davis", model, str(tmp_path), SMALL)
    base = write_davis(tmp_path, {"alpha": 4}) / "davis"
    listing = base / "ImageSets" / "480p" / "val.txt"
    lines = listing.read_text()
    listing.write_text("alpha\n")
    with pytest.raises(InputError, match=r"val\.txt, line 1"):
        evaluate("davis", model, str(tmp_path), SMALL)
    listing.write_text("".join(lines.splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match="at least 3"):
        evaluate("davis", model, str(tmp_path), SMALL)
    for odd, message in (
        (lines + lines.splitlines(keepends=True)[1], r"val\.txt, line 5: .*alpha/00001\.jpg is listed twice"),
        (lines.replace("00002.png", "00003.png"), r"val\.txt, line 3: the frame and its mask must have one name"),
    ):
        listing.write_text(odd)
        with pytest.raises(InputError, match=message):
            evaluate("davis", model, str(tmp_path), SMALL)
    listing.write_text(lines)
    frame = base / "JPEGImages" / "480p" / "alpha" / "00000.jpg"
    whole = frame.read_bytes()
    Image.open(frame).resize((HEIGHT, WIDTH)).save(frame)
    with pytest.raises(InputError, match=f"00000.png has {WIDTH} x {HEIGHT} pixels, its frame .* {HEIGHT} x {WIDTH}"):
        evaluate("davis", model, str(tmp_path), SMALL)
    frame.write_bytes(whole)
    first = base / "Annotations" / "480p" / "alpha" / "00000.png"
    Image.new("L", (WIDTH, HEIGHT)).save(first)
    with pytest.raises(InputError, match=r"alpha/00000\.png is empty"):
        evaluate("davis", model, str(tmp_path), SMALL)
    first.unlink()
    with pytest.raises(InputError, match=r"alpha/00000\.png is missing"):
        evaluate("davis", model, str(tmp_path), SMALL)


def test_palette_masks_count_every_object_number(tmp_path: Path):
    base = write_davis(tmp_path, {"alpha": 3}) / "davis"
    for path in sorted((base / "Annotations" / "480p" / "alpha").iterdir()):
        mask = Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).convert("P")
        mask.putpalette([0, 0, 0, 128, 0, 0])
        mask.save(path)
    sequence = attention_tracking.read_sequences(str(base))[0]
    assert attention_tracking._read_masks(sequence).sum(axis=(1, 2)).tolist() == [SIDE * SIDE] * 3


@pytest.mark.slow
def test_real_sequences(model: MoCo, real_data: Path):
    config = EvaluationConfig(limit=4)
    assert len(attention_tracking.read_sequences(str(real_data / "davis"))) == 20
    outcome = evaluate("davis", model, str(real_data), config)
    assert 0 <= outcome.metrics["davis/j_mean"] < outcome.metrics["davis/static_j_mean"] < 1
    assert frozen.weights_digest(model) == outcome.protocol["weights_after"]


def test_frames_are_in_the_order_of_the_numbers_in_their_names(tmp_path: Path):
    listed = [f"/JPEGImages/480p/a/{number}.jpg /Annotations/480p/a/{number}.png" for number in range(8, 13)]
    path = tmp_path / "ImageSets" / "480p" / "val.txt"
    path.parent.mkdir(parents=True)
    path.write_text("\ufeff" + "\n".join(reversed(listed)))  # with the byte order mark of an editor
    (sequence,) = attention_tracking.read_sequences(str(tmp_path))
    assert [Path(uri).stem for uri in sequence.frames] == ["8", "9", "10", "11", "12"]
    assert sequence.frames[-1] == str(tmp_path / "JPEGImages/480p/a/12.jpg")
    assert [Path(uri).stem for uri in sequence.masks] == ["8", "9", "10", "11", "12"]
