"""The held-out items of every labelled set. Oracle: the files of the demo world, whose names tell their part."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clip_sets import coloured, write_hmdb51

from previts import demo
from previts.config.benchmarks import SETS
from previts.evals.held_out import hash_table, items
from previts.media.frame_hashes import image_hashes, video_hashes
from previts.media.video_reader import Footage, steady


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    demo.make_world(str(folder), replace(demo.TINY, seed=1))
    write_hmdb51(folder / "datasets" / "hmdb51")
    return folder / "datasets"


def listed(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines() if line.strip()]


def expected(data: Path, name: str) -> set[str]:
    """Return the names of the test items of a set, read from its lists or its folders without the readers."""
    root = data / name
    if name == "voc":
        return {words[0] for words in listed(root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "test.txt")}
    if name == "imagenet":
        return {path.stem for path in (root / "val").glob("*/*")}
    if name == "coco":
        return {path.stem for path in (root / "val2017").glob("*")}
    if name == "in9":
        paths = [path for path in root.glob("*/val/*/*") if path.parts[-4] != "fg_mask"]
        return {f"{path.parts[-4]}/{path.stem}" for path in paths}
    if name == "davis":
        return {words[0].split("/")[-2] for words in listed(root / "ImageSets" / "480p" / "val.txt")}
    if name == "ucf101":
        return {Path(words[0]).stem for words in listed(root / "ucfTrainTestlist" / "testlist01.txt")}
    if name == "minikinetics":
        return {line.split(",")[1] for line in (root / "val.csv").read_text().splitlines()[1:]}
    lists = (root / ("splits" if name == "jhmdb" else "testTrainMulti_7030_splits")).glob("*_test_split1.txt")
    return {words[0].removesuffix(".avi") for path in lists for words in listed(path) if words[1] == "2"}


@pytest.mark.parametrize("name", SETS)
def test_the_items_of_a_set_are_its_test_items(data, name):
    found = items.list_items(name, str(data / name), ["1"])
    assert {item.name for item in found} == expected(data, name)
    assert len(found) == len({item.name for item in found}) > 0
    for item in found[:2]:
        opened = item.open()
        assert isinstance(opened, Footage) == (item.kind == "video")
        shape = opened.read([0]).shape[1:] if isinstance(opened, Footage) else opened.shape
        assert len(shape) == 3
        assert shape[2] == 3


def test_both_parts_of_davis_are_held_out(data, tmp_path):
    lists = tmp_path / "ImageSets" / "480p"
    shutil.copytree(data / "davis", tmp_path, dirs_exist_ok=True)
    lines = (lists / "val.txt").read_text().splitlines(keepends=True)
    names = sorted({line.split("/")[3] for line in lines})
    (lists / "val.txt").write_text("".join(line for line in lines if f"/{names[0]}/" in line))
    assert [item.name for item in items.list_items("davis", str(tmp_path), ["1"])] == names[:1]
    (lists / "train.txt").write_text("".join(line for line in lines if f"/{names[1]}/" in line))
    assert [item.name for item in items.list_items("davis", str(tmp_path), ["1"])] == names[:2]


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "jhmdb"])
def test_an_item_of_several_splits_is_listed_once(data, name):
    of_each = [{item.name for item in items.list_items(name, str(data / name), [split])} for split in "123"]
    of_all = [item.name for item in items.list_items(name, str(data / name), ["1", "2", "3"])]
    assert sorted(of_all) == sorted(set.union(*of_each))


def test_a_table_has_the_hashes_of_the_images_and_of_the_videos(data, tmp_path):
    for name in ("imagenet", "davis"):
        written = hash_table.write_table(str(tmp_path / name), name, str(data / name), ["1"])
        rows = hash_table.read_table(str(tmp_path / name))
        assert (written.items, written.unreadable, written.causes) == (len(rows), 0, {})
        for item, row in zip(items.list_items(name, str(data / name), ["1"]), rows, strict=True):
            opened = item.open()
            if isinstance(opened, Footage):
                hashes = video_hashes(opened.read(range(len(opened.times))), items.DAVIS_FPS)
            else:
                hashes = image_hashes(opened)
            assert (row.name, row.kind, row.hashes) == (item.name, item.kind, hashes)


@pytest.mark.parametrize(("frames", "fps"), [(1, 25.0), (20, 25.0), (101, 24.0), (60, 0.9), (1000, 3.0), (3000, 10.0)])
def test_the_hashes_of_footage_are_those_of_all_its_frames(frames, fps):
    shown = np.stack(coloured((120, 120, 120), 64, 0))

    def read(numbers):
        assert len(numbers) <= 16
        return shown[np.asarray(numbers) % len(shown)]

    expected = video_hashes((shown[number % len(shown)] for number in range(frames)), fps)
    assert hash_table.footage_hashes(steady(frames, fps, read)) == expected
    assert expected
