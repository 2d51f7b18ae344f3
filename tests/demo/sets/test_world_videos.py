"""Oracles: the official lists, read line by line, and the readers of OpenCV and scipy."""

from pathlib import Path

import cv2
import numpy as np
from rgb_files import read_rgb
from scipy.io import loadmat
from source_videos import decode_file

from previts.demo import TINY


def test_davis_lists_existing_frames_with_binary_masks(world):
    root = world[0] / "datasets" / "davis"
    lines = (root / "ImageSets" / "480p" / "val.txt").read_text().splitlines()
    assert len(lines) == TINY.davis_sequences * TINY.davis_frames
    for line in lines:
        image, mask = line.split(" ")
        annotation = cv2.imread(str(root) + mask, cv2.IMREAD_UNCHANGED)
        assert annotation.shape == read_rgb(Path(str(root) + image)).shape[:2]
        assert set(np.unique(annotation)) <= {0, 255}
    assert lines[0].endswith("/00000.png")


def test_ucf101_lists_split_the_videos_by_class_and_name_existing_files(world):
    root = world[0] / "datasets" / "ucf101"
    classes = dict(line.split()[::-1] for line in (root / "ucfTrainTestlist" / "classInd.txt").read_text().splitlines())
    assert list(classes) == sorted(classes)
    for split in ("01", "02", "03"):
        train = [
            line.split() for line in (root / "ucfTrainTestlist" / f"trainlist{split}.txt").read_text().splitlines()
        ]
        test = (root / "ucfTrainTestlist" / f"testlist{split}.txt").read_text().split()
        assert all(classes[path.split("/")[0]] == number for path, number in train)
        assert {path.split("/")[0] for path in test} == set(classes)
        assert not {path for path, _ in train} & set(test)
        assert len(train) + len(test) == TINY.ucf_clips * TINY.action_classes
        assert [number for _, number in train] == [str(place + 1) for place in range(TINY.action_classes)]
        for path in [*test, *(path for path, _ in train)]:
            assert decode_file(str(root / "UCF-101" / path)).shape == (TINY.ucf_frames, 120, 160, 3)


def test_jhmdb_has_a_mask_for_each_frame_and_splits_that_contain_all_videos(world):
    root = world[0] / "datasets" / "jhmdb"
    actions = sorted(path.name for path in (root / "Rename_Images").iterdir())
    assert len(actions) == TINY.action_classes
    for action in actions:
        clips = sorted((root / "Rename_Images" / action).iterdir())
        training = []
        for split in (1, 2, 3):
            lines = (root / "splits" / f"{action}_test_split{split}.txt").read_text().splitlines()
            roles = dict(line.split() for line in lines)
            assert roles.keys() == {f"{clip.name}.avi" for clip in clips}
            assert set(roles.values()) == {"1", "2"}
            training += [name for name, role in roles.items() if role == "1"]
        assert sorted(training) == [f"{clip.name}.avi" for clip in clips]  # each clip trains in one split
        for clip in clips:
            frames = sorted(clip.glob("*.png"))
            assert [frame.stem for frame in frames] == [f"{number:05d}" for number in range(1, TINY.jhmdb_frames + 1)]
            puppet = loadmat(root / "puppet_mask" / action / clip.name / "puppet_mask.mat")["part_mask"]
            assert puppet.shape == (*read_rgb(frames[0]).shape[:2], len(frames))
            assert puppet.dtype == np.uint8
            assert puppet.any((0, 1)).all()
