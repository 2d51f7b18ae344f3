"""The images of one video. Oracle: a drawn disc whose mask is known in every frame."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from odd_videos import OddVideo
from PIL import Image
from source_videos import decode_file, read_number

from previts import look, stages
from previts.config import paper
from previts.corpus import index_table
from previts.corpus.quality import Quality
from previts.errors import InputError
from previts.media import drawing, normalisation
from previts.storage import files, folders, tables

SET = ["saliency.method=rbd", "saliency.every=2"]
HEIGHT, WIDTH, FPS, FRAMES, LEAVES = 96, 128, 12, 24, 18


def disc(frame: int, radius: int = 17) -> np.ndarray:
    """Return the mask of a disc that moves to the right and is gone after three quarters of the video."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = (rows - 48) ** 2 + (columns - 45 - 1.5 * frame) ** 2 < radius**2
    return inside if frame < LEAVES else np.zeros_like(inside)


def drawn(frame: int) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([40 + rows // 4, 110 + columns // 4, 60 + rows // 8], axis=2).astype(np.uint8)
    image[disc(frame)] = [210, 40, 50]
    return image


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("crawl") / "disc.mp4"
    normalisation.encode_video((drawn(frame) for frame in range(FRAMES)), FPS, str(path), crf=10)
    return path


@pytest.fixture(scope="module")
def looked(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("looked") / "out"
    experiment = paper.resolve(None, "demo", SET).experiment
    return out, look.look_at_file(str(clip), str(out), experiment, "", start=None, end=None, frames=5)


def test_the_overlay_tints_the_object_and_is_grey_after_it_is_lost(looked):
    shown = decode_file(str(looked[0] / look.OVERLAY)).astype(float)
    assert shown.shape == (FRAMES, HEIGHT, WIDTH, 3)
    for frame in range(0, LEAVES - 1):
        changed = np.abs(shown[frame] - drawn(frame)).mean(axis=2)
        tint = 0.6 * np.array([210, 40, 50]) + 0.4 * np.array(drawing.TUBE)
        assert np.abs(shown[frame][disc(frame, 11)].mean(axis=0) - tint).max() < 25
        assert changed[~disc(frame, 24)].mean() < 6
    for frame in range(LEAVES + 1, FRAMES):
        corner = shown[frame][:20, :20]
        assert np.abs(corner - corner.mean(axis=2, keepdims=True)).max() < 8  # grey, within the error of the codec


def test_the_contact_sheet_has_one_row_a_frame_and_the_tube_in_its_last_column(looked):
    sheet = np.asarray(Image.open(looked[0] / look.SHEET)).astype(int)
    height, width = drawing.fit(HEIGHT, WIDTH)
    columns = 7  # frame, four priors, salient, tube
    assert sheet.shape == (24 + 5 * height + 6 * drawing.GAP, 64 + columns * (width + drawing.GAP), 3)
    for place, frame in enumerate((0, 6, 12, 16, 22)):  # five of the twelve key frames, evenly
        top = 24 + drawing.GAP + place * (height + drawing.GAP)
        row = sheet[top : top + height]
        parts = [row[:, 64 + drawing.GAP + n * (width + drawing.GAP) :][:, :width] for n in range(columns)]
        exact = drawing.resize_mask(disc(frame), parts[0].astype(np.uint8))
        if frame < LEAVES:
            for number in (1, 2, 3, 4):  # every prior is brighter on the object
                assert parts[number][exact].mean() > 2 * parts[number][~exact].mean()
            assert parts[5][exact].mean() > 3 * parts[5][~exact].mean()
            assert np.abs(parts[6] - parts[0])[exact].mean() > 20 > np.abs(parts[6] - parts[0])[~exact].mean()
        else:
            assert (parts[6].max(axis=2) == parts[6].min(axis=2)).all()


def test_the_description_has_the_numbers_of_the_video(looked, clip):
    lines = dict(line.split(maxsplit=1) for line in looked[1].splitlines() if not line.startswith("contact"))
    assert lines["video"] == f"{clip}: 2.0 s, 24 frames of 128 x 96 at 12 a second"
    # The last key frame with the disc is 16; it is lost from 17 on.
    assert lines["tube"] == "visible 1.4 of 2.0 s (71%), in 1 span; lost for good at 1.4 s"
    area = float(lines["area"].split("%")[0]) / 100
    assert area == pytest.approx(disc(0).mean(), rel=0.1)
    assert 0 < float(lines["agreement"].split()[0]) <= 1


def test_a_stored_video_has_the_same_images_as_its_file(looked, clip, tmp_path):
    root = str(tmp_path / "root")
    videos = stages.download(str(clip.parent), root, "demo", SET)
    model = stages.fit_saliency(videos, root, "demo", SET)
    regions = stages.saliency(videos, model, root, "demo", SET)
    index = stages.index(videos, stages.track(videos, regions, root, "demo", SET), root, "demo", SET)
    (row,) = index_table.read_index(index)
    description = look.look_at_stored(index, row.video_id, str(tmp_path / "out"), 5)
    for name in (look.SHEET, look.OVERLAY):
        assert (tmp_path / "out" / name).read_bytes() == (looked[0] / name).read_bytes()
    assert description.splitlines()[3:] == looked[1].splitlines()[3:]


def test_a_window_selects_a_part_of_the_video(clip, tmp_path):
    experiment = paper.resolve(None, "demo", SET).experiment
    description = look.look_at_file(str(clip), str(tmp_path), experiment, "", start=0.5, end=1.5, frames=3)
    assert f"{clip} from 0.5 s to 1.5 s: 1.0 s, 12 frames" in description
    shown = decode_file(str(tmp_path / look.OVERLAY))
    np.testing.assert_allclose(shown[0][:10].mean(axis=(0, 1)), drawn(6)[:10].mean(axis=(0, 1)), atol=4)
    for start, end in ((1.0, 1.0), (-1.0, 2.0), (float("nan"), None), (None, float("nan"))):
        with pytest.raises(InputError, match="less than --end-seconds"):
            look.look_at_file(str(clip), str(tmp_path), experiment, "", start=start, end=end, frames=3)


def test_a_file_that_is_not_a_video_is_reported_and_nothing_is_written(tmp_path):
    experiment = paper.resolve(None, "demo", SET).experiment
    (tmp_path / "page.mp4").write_text("<html>not a video</html>")
    for name, why in (("page.mp4", "a web page, not a video"), ("gone.mp4", "no such file; to look at a stored video")):
        with pytest.raises(InputError, match=why):
            look.look_at_file(
                str(tmp_path / name), str(tmp_path / "out"), experiment, "", start=None, end=None, frames=3
            )
    assert not (tmp_path / "out").exists()


def test_the_images_can_be_written_to_any_store(clip):
    experiment = paper.resolve(None, "demo", [*SET, "saliency.method=none"]).experiment
    description = look.look_at_file(str(clip), "memory://looked", experiment, "", start=None, end=None, frames=3)
    assert "none: with saliency.method=none no region is salient" in description
    assert files.names("memory://looked") == [look.OVERLAY, look.SHEET]


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("a/b/dog.run.mp4", "look-dog.run"),
        ("gs://b/Eine Katze!.webm", "look-Eine-Katze"),
        ("v014_cat", "look-v014_cat"),
        ("..", "look-video"),
    ],
)
def test_the_folder_is_named_after_the_video(name, folder):
    assert look.folder_for(name) == folder


def test_titles_of_narrow_images_are_complete():
    cell = np.full((40, 20, 3), 7, np.uint8)
    narrow = drawing.sheet(["deepusps (chosen)", "tube"], [("0.00 s", [cell, cell])])
    wide = drawing.sheet(["deepusps (chosen)", "tube"], [("0.00 s", [np.full((40, 300, 3), 7, np.uint8)] * 2)])
    ink = [(sheet[:24].min(axis=2) < 100).sum() for sheet in (narrow, wide)]
    assert ink[0] == ink[1] > 100
    columns = (narrow[24 + drawing.GAP :] == 7).all(axis=2).any(axis=0)
    assert columns.sum() == 2 * 20  # the images keep their size


def test_a_video_that_a_filter_left_out_is_described_as_such(clip, tmp_path):
    root, chosen = str(tmp_path / "root"), [*SET, "filter.max_area=0.9"]
    videos = stages.download(str(clip.parent), root, "demo", SET)
    model = stages.fit_saliency(videos, root, "demo", SET)
    tubes = stages.track(videos, stages.saliency(videos, model, root, "demo", SET), root, "demo", SET)
    index = stages.index(videos, tubes, root, "demo", chosen)
    (row,) = index_table.read_quality(index)
    assert "left out" not in look.look_at_stored(index, row.video_id, str(tmp_path / "out"), 2)
    judged = [replace(row, reason="large")]
    tables.write_records(files.join(index, index_table.QUALITY), Quality, judged)
    old = folders.read_manifest(index)
    folders.commit(index, old.decided, inputs=old.inputs, counts=old.counts, files=old.files)
    assert "left out by filter.max_area" in look.look_at_stored(index, row.video_id, str(tmp_path / "out"), 2)


def test_an_odd_video_is_looked_at_as_it_is_displayed(odd_videos: dict[str, OddVideo], tmp_path: Path):
    video = odd_videos["clockwise"]
    experiment = paper.resolve(None, "demo", [*SET, "video.max_fps=25"]).experiment
    look.look_at_file(video.path, str(tmp_path), experiment, "", start=None, end=None, frames=2)
    shown = decode_file(str(tmp_path / look.OVERLAY))
    assert shown.shape[1:3] == video.size[::-1]
    assert [read_number(frame) for frame in shown] == list(video.numbers)
