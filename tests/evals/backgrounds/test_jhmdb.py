"""Oracles: clips and masks as they were written, and variants of single frames."""

import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import puppet_clips
import pytest
from PIL import Image
from scipy.io import savemat

from previts.demo import TINY
from previts.demo.sets import world_videos
from previts.errors import InputError
from previts.evals.actions import video_sets
from previts.evals.backgrounds import jhmdb
from previts.media import variants
from previts.media.variants import MIXED, VARIANTS, Oddities


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return puppet_clips.write_jhmdb(tmp_path_factory.mktemp("jhmdb"))


def test_splits_frames_and_masks_are_read_as_they_were_written(root: Path):
    train, test = jhmdb.read_jhmdb(str(root), "1")
    assert train.classes == test.classes == ("catch", "jump", "wave")
    assert [clip.label for clip in train.clips] == [0] * 4 + [1] * 4 + [2] * 4
    assert [clip.key for clip in test.clips[:3]] == [f"catch/clip_catch_f_nm_{n}" for n in (4, 5, 6)]
    clip = puppet_clips.found(test, "jump", 5)
    frames, masks = puppet_clips.scene(105, 7, puppet_clips.GREY, puppet_clips.COLOURS["jump"])
    np.testing.assert_array_equal(jhmdb.read_frames(clip, range(7)), frames)
    np.testing.assert_array_equal(jhmdb.read_frames(clip, [6, 2, 2, 0]), frames[[6, 2, 2, 0]])
    np.testing.assert_array_equal(jhmdb.read_masks(clip), masks)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_exact_and_its_background_has_the_same_time(root: Path, variant: str):
    _, test = jhmdb.read_jhmdb(str(root), "1")
    videos = jhmdb.varied(test, variant, seed=2)
    assert videos.uris == tuple(clip.uri for clip in test.clips)
    for clip, uri in zip(test.clips, videos.uris, strict=True):
        numbers = [len(clip.frames) - 1, 0, 3, 3]
        frames, masks = puppet_clips.whole(clip)
        back = None
        if variant in MIXED:
            other = jhmdb.behind(test, variant, 2)[uri]
            tiled = [variants.only_bg_t(*pair) for pair in zip(*puppet_clips.whole(other), strict=True)]
            back = [tiled[t % len(tiled)] for t in range(len(frames))]
        expected = [variants.vary(variant, frames[t], masks[t], None if back is None else back[t]) for t in numbers]
        footage = videos.open(uri)
        assert len(footage.times) == len(clip.frames)
        np.testing.assert_array_equal(footage.read(numbers), expected)


def test_partners_come_from_the_same_part_and_a_limit_does_not_change_them(root: Path):
    for part in jhmdb.read_jhmdb(str(root), "1"):
        names = {clip.uri: clip for clip in part.clips}
        for variant in MIXED:
            for uri, other in jhmdb.behind(part, variant, 0).items():
                assert other.uri in names
                distance = (other.label - names[uri].label) % 3
                assert distance in {"mixed_same": (0,), "mixed_next": (1,), "mixed_rand": (0, 1, 2)}[variant]
                assert variant != "mixed_same" or other.uri != uri
    whole = jhmdb.varied(part, "mixed_rand", 0)
    few = video_sets.limited(whole, 3)
    assert len(few.uris) == 3
    for uri in few.uris:
        np.testing.assert_array_equal(few.open(uri).read([0, 5]), whole.open(uri).read([0, 5]))


def test_the_manifest_has_the_source_of_each_background(root: Path):
    _, test = jhmdb.read_jhmdb(str(root), "1")
    text = jhmdb.manifest([("1", "test", test)], seed=7).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 3 * len(test.clips)
    manifest_rows = {
        (row["variant"], row["class"], row["clip"]): (row["background_class"], row["background_clip"]) for row in rows
    }
    for variant in MIXED:
        others = jhmdb.behind(test, variant, 7)
        for clip in test.clips:
            other = others[clip.uri]
            assert manifest_rows[variant, clip.class_name, clip.name] == (other.class_name, other.name)
    assert {(row["seed"], row["split"], row["part"]) for row in rows} == {("7", "1", "test")}
    assert text == jhmdb.manifest([("1", "test", test)], seed=7).decode()
    assert text != jhmdb.manifest([("1", "test", test)], seed=8).decode()


def test_frames_of_16_bits_have_their_brightness(root: Path, tmp_path: Path):
    _, test = jhmdb.read_jhmdb(str(root), "1")
    grey = np.tile(np.linspace(0, 255, 72, dtype=np.uint8), (64, 1))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "00001.png")
    clip = replace(test.clips[0], frames=(str(tmp_path / "00001.png"),))
    np.testing.assert_array_equal(jhmdb.read_frames(clip, [0])[0], np.dstack([grey] * 3))


def test_the_manifest_has_no_text_that_a_spreadsheet_runs(root: Path):
    _, test = jhmdb.read_jhmdb(str(root), "1")
    clips = tuple(replace(clip, class_name=f"={clip.class_name}", name=f"-{clip.name}") for clip in test.clips)
    strange = replace(test, classes=tuple(f"={name}" for name in test.classes), clips=clips)
    rows = list(csv.DictReader(io.StringIO(jhmdb.manifest([("1", "@test", strange)], seed=7).decode())))
    assert len(rows) == 3 * len(clips)
    for column, first in (("class", "'="), ("clip", "'-"), ("background_class", "'="), ("background_clip", "'-")):
        assert all(row[column].startswith(first) for row in rows), column
    assert {(row["seed"], row["part"]) for row in rows} == {("7", "'@test")}


def test_masks_are_cropped_and_scaled_like_the_frames(root: Path):
    _, test = jhmdb.read_jhmdb(str(root), "1")
    clip = test.clips[0]
    masks = jhmdb.read_masks(clip)
    shown = video_sets.evenly_spaced_clips(jhmdb.mask_footage(clip), 8, HEIGHT := 64, 1)
    middle = [(len(masks) - 8) // 2 + t for t in range(8)]
    left = (puppet_clips.WIDTH - HEIGHT) // 2
    expected = masks[middle][:, :, left : left + HEIGHT]
    np.testing.assert_array_equal(shown.frames[shown.places[0]][:, 0] > 127, expected)


def test_frames_without_a_person_and_boxes_that_span_the_frame_are_counted(root: Path, tmp_path: Path):
    shutil.copytree(root, tmp_path / "jhmdb")
    _, test = jhmdb.read_jhmdb(str(tmp_path / "jhmdb"), "1")
    assert jhmdb.count_oddities(test) == Oddities(sum(len(clip.frames) for clip in test.clips), 0, 0)
    clip = test.clips[0]
    masks = jhmdb.read_masks(clip)
    masks[0], masks[1:3] = False, True
    savemat(clip.mask, {"part_mask": masks.transpose(1, 2, 0).astype(np.uint8)})
    assert jhmdb.count_oddities(test) == Oddities(sum(len(clip.frames) for clip in test.clips), 1, 2)
    frames = jhmdb.read_frames(clip, range(3))
    assert not jhmdb.varied(test, "only_fg", 0).open(clip.uri).read([0]).any()
    np.testing.assert_array_equal(jhmdb.varied(test, "only_bg_t", 0).open(clip.uri).read([0])[0], frames[0])
    assert not jhmdb.varied(test, "only_bg_t", 0).open(clip.uri).read([1]).any()


def test_errors_of_the_layout_name_the_missing_file(root: Path, tmp_path: Path):
    copied = tmp_path / "jhmdb"

    def reads(match: str) -> None:
        with pytest.raises(InputError, match=match):
            jhmdb.read_jhmdb(str(copied), "1")

    reads("jhmdb/Rename_Images is missing; expected JHMDB as published")
    shutil.copytree(root, copied)
    (copied / "Rename_Images").rename(copied / "Frames")
    reads(r"Rename_Images is missing.*this folder has: Frames, puppet_mask, splits")
    (copied / "Frames").rename(copied / "Rename_Images")
    clip = copied / "Rename_Images" / "jump" / "clip_jump_f_nm_2"
    (clip / "00003.png").rename(clip / "00030.png")
    reads(r"clip_jump_f_nm_2/00003\.png is missing; split 1 lists the clip")
    shutil.rmtree(clip)
    reads(r"clip_jump_f_nm_2/00001\.png is missing; split 1 lists the clip")
    shutil.copytree(root / "Rename_Images" / "jump" / "clip_jump_f_nm_2", clip)
    # Hidden files of macOS are not frames.
    (clip / ".AppleDouble").mkdir()
    (clip / ".AppleDouble" / "00001.png").write_bytes(b"")
    (clip / "._00001.png").write_bytes(b"")
    jhmdb.read_jhmdb(str(copied), "1")
    mask = copied / "puppet_mask" / "wave" / "clip_wave_f_nm_0" / "puppet_mask.mat"
    mask.unlink()
    reads(r"wave/clip_wave_f_nm_0/puppet_mask\.mat is missing; every clip")
    shutil.copy(root / mask.relative_to(copied), mask)
    lines = copied / "splits" / "wave_test_split1.txt"
    lines.write_text("clip_wave_f_nm_0.avi 3\n")
    reads(r"wave_test_split1\.txt, line 1: expected '<video>\.avi <0, 1 or 2>'")
    for name in puppet_clips.COLOURS:
        lines = copied / "splits" / f"{name}_test_split1.txt"
        lines.write_text(lines.read_text().replace(" 2", " 1").replace(" 3", " 1"))
    reads("have no test clips")


def test_errors_of_masks_and_frames_name_the_file(root: Path, tmp_path: Path):
    shutil.copytree(root, tmp_path / "jhmdb")
    _, test = jhmdb.read_jhmdb(str(tmp_path / "jhmdb"), "1")
    clip = test.clips[0]
    masks_HWT = jhmdb.read_masks(clip).transpose(1, 2, 0).astype(np.uint8)
    cases = {
        "is 64 x 72 x 9, and .* has 10 frames; expected height x width x frames": {"part_mask": masks_HWT[..., :9]},
        "has no field part_mask": {"mask": masks_HWT},
    }
    for match, document in cases.items():
        savemat(clip.mask, document)
        with pytest.raises(InputError, match=match):
            jhmdb.read_masks(clip)
    for kind in (np.uint16, np.int8, np.float64, bool):
        savemat(clip.mask, {"part_mask": masks_HWT.astype(kind)})
        np.testing.assert_array_equal(jhmdb.read_masks(clip), masks_HWT.transpose(2, 0, 1) > 0)
    letters = np.ascontiguousarray(masks_HWT).astype(str)
    for odd in (np.where(masks_HWT > 0, np.nan, 0.0), -masks_HWT.astype(np.int8), masks_HWT * 1j, letters):
        savemat(clip.mask, {"part_mask": odd})
        with pytest.raises(InputError, match=r"puppet_mask\.mat: part_mask (has values of type|is)"):
            jhmdb.read_masks(clip)
    savemat(clip.mask, {"part_mask": masks_HWT[:-1]})
    with pytest.raises(InputError, match=r"masks of \(63, 72\) pixels, .* frames of \(64, 72\)"):
        jhmdb.varied(test, "only_fg", 0).open(clip.uri).read([0])
    for data in (b"", b"<html>not there</html>", b"MATLAB 5.0 MAT-file".ljust(128) + b"\x00\x01IM" + b"\xff" * 40):
        Path(clip.mask).write_bytes(data)
        with pytest.raises(InputError, match=r"cannot be read as a MATLAB file|has no field"):
            jhmdb.read_masks(clip)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(clip.frames[4])
    with pytest.raises(InputError, match="all frames of a clip must have one size"):
        jhmdb.read_frames(clip, [3, 4])
    Path(clip.frames[4]).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"00005\.png cannot be read as an image"):
        jhmdb.read_frames(clip, [4])


def test_jhmdb_of_the_demo_world_has_exact_masks(tmp_path: Path):
    world_videos.write_jhmdb(str(tmp_path), TINY)
    train, test = jhmdb.read_jhmdb(str(tmp_path), "1")
    assert len(train.clips) == len(test.clips) == 2 * TINY.action_classes
    assert jhmdb.count_oddities(test).empty == 0
    clip = test.clips[0]
    films = world_videos._action_film(
        TINY, "jhmdb", clip.class_name, int(clip.name.rsplit("_", 1)[1]), TINY.jhmdb_frames
    )
    np.testing.assert_array_equal(jhmdb.read_masks(clip), [frame.masks[0] for frame in films])
    no_fg = jhmdb.varied(test, "no_fg", 0).open(clip.uri).read(range(TINY.jhmdb_frames))
    only_fg = jhmdb.varied(test, "only_fg", 0).open(clip.uri).read(range(TINY.jhmdb_frames))
    np.testing.assert_array_equal(no_fg + only_fg, [frame.image for frame in films])


def test_a_dataset_without_puppet_masks_is_refused(real_data: Path):
    with pytest.raises(InputError, match=r"jhmdb/Rename_Images is missing.*this folder has: .*Frames"):
        jhmdb.read_jhmdb(str(real_data / "jhmdb"), "1")


def test_variants_of_real_frames_with_an_artificial_mask(real_data: Path, tmp_path: Path):
    """One real clip in the published layout; its joints replace the puppet mask, which is not available."""
    [source] = [path for path in (real_data / "jhmdb" / "Frames" / "catch").iterdir() if path.is_dir()]
    frames = np.stack([np.asarray(Image.open(path)) for path in sorted(source.glob("*.jpg"))])
    masks = np.zeros(frames.shape[:3], bool)
    masks[:, 60:200, 100:180] = True
    for number in range(4):
        puppet_clips.write_clip(tmp_path, "catch" if number < 2 else "throw", f"{source.name}_{number}", frames, masks)
    (tmp_path / "splits").mkdir()
    for name, numbers in (("catch", (0, 1)), ("throw", (2, 3))):
        lines = "".join(f"{source.name}_{number}.avi {1 + number % 2}\n" for number in numbers)
        (tmp_path / "splits" / f"{name}_test_split1.txt").write_text(lines)
    _, test = jhmdb.read_jhmdb(str(tmp_path), "1")
    assert jhmdb.read_frames(test.clips[0], range(len(frames))).shape == (len(frames), 240, 320, 3)
    tiled = jhmdb.varied(test, "mixed_next", 0).open(test.clips[0].uri).read([0, 5])
    np.testing.assert_array_equal(tiled[:, 60:200, 100:180], frames[[0, 5], 60:200, 100:180])
