"""How many videos that show real test items the leakage guard finds, and how many others. Run by `make bench`.

Three copies of each test video, of the kinds of `video_copies.KINDS`, and test images that are shown for one second in
real clips, are one corpus. It is compared with all test items, so a match with another item is an error.

The crawl has clips of the training part of DAVIS. They are compared with a DAVIS folder whose `train.txt` lists them;
its frames are JPEG images of the clips at another size.
"""

import shutil
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from video_copies import KINDS, Clip, Frame, copy_of, even, framed, kinds_of, read_clip, write

from previts.config.perception import VideoConfig
from previts.corpus.copies import find_matches
from previts.evals.held_out import hash_table, items
from previts.media import normalisation
from previts.media.video_reader import Footage

VIDEOS, IMAGES = ("davis", "ucf101"), ("voc", "imagenet", "coco")
SHOWN, CARRIERS = 15, 8  # images of each set, and clips in which they are shown


def hashes_of(clip: Clip) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(clip, Path(folder) / "source.mp4")
        stored = normalisation.normalise(f"{folder}/source.mp4", f"{folder}/target.mp4", VideoConfig(), None, None)
        return stored.hashes


def fitted(image: Frame, how: str, width: int, height: int) -> Frame:
    """Return an image as a frame: squashed, with its border cut off, or with bars above and below."""
    if how == "cropped":
        rows, columns = (side // 10 for side in image.shape[:2])
        image = image[rows:-rows, columns:-columns]
    if how == "with bars":
        image = framed(image, 0.12, 0)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


@pytest.mark.bench
def test_real_test_items_in_a_corpus(real_data: Path, tmp_path: Path) -> None:
    names, hashes = list[str](), list[bytes]()
    for name in (*VIDEOS, *IMAGES, "in9"):
        hash_table.write_table(str(tmp_path / name), name, str(real_data / name), ["1"])
        for row in hash_table.read_table(str(tmp_path / name)):
            names.append(f"{name}/{row.name}")
            hashes.append(row.hashes)
    corpus, truth = list[bytes](), list[tuple[str, str]]()
    paths = {path.stem: path for path in (real_data / "ucf101" / "UCF-101").glob("*/*.*")}
    paths |= {path.name: path for path in (real_data / "davis" / "JPEGImages" / "480p").iterdir()}
    for number, name in enumerate(name for name in names if name.startswith(VIDEOS)):
        clip = read_clip(paths[name.split("/")[1]])
        for kind in kinds_of(number, 3):
            corpus.append(hashes_of(copy_of(clip, kind)))
            truth.append((name, kind))
    clips = [read_clip(path) for path in sorted((real_data / "crawl").glob("*.mp4"))[: 5 * CARRIERS : 5]]
    for name in IMAGES:
        listed = items.list_items(name, str(real_data / name), ["1"])
        for number, item in enumerate(listed[:: len(listed) // SHOWN][:SHOWN]):
            how, clip = ("squashed", "cropped", "with bars")[number % 3], clips[number % len(clips)]
            image, seconds, half = item.open(), round(float(clip.fps)), len(clip.frames) // 2
            assert not isinstance(image, Footage)
            height, width = clip.frames[0].shape[:2]
            shown = [fitted(image, how, width, height)] * seconds
            corpus.append(hashes_of(Clip("", clip.frames[:half] + shown + clip.frames[half:], clip.fps)))
            truth.append((f"{name}/{item.name}", f"image, {how}"))
    found = defaultdict[int, set[str]](set)
    for match in find_matches(corpus, hashes):
        found[match.video].add(names[match.reference])
    made, right = Counter[str](), Counter[str]()
    for number, (name, kind) in enumerate(truth):
        group = "all images" if kind.startswith("image") else "all videos"
        for counted in (kind, group):
            made[counted] += 1
            right[counted] += name in found[number]
        for other in sorted(found[number] - {name}):
            print(f"{kind} of {name} also matches {other}")
    for kind in sorted(made):
        print(f"{kind:40s} found {right[kind]:3d} of {made[kind]:3d}")
    assert set(KINDS) <= set(made)


@pytest.mark.bench
def test_the_davis_clips_of_a_crawl(real_data: Path, tmp_path: Path) -> None:
    clips = sorted((real_data / "crawl").glob("*.mp4"))
    lists = tmp_path / "davis" / "ImageSets" / "480p"
    shutil.copytree(real_data / "davis" / "ImageSets", tmp_path / "davis" / "ImageSets")
    (tmp_path / "davis" / "JPEGImages").mkdir()
    frames = tmp_path / "davis" / "JPEGImages" / "480p"
    frames.mkdir()
    for folder in (real_data / "davis" / "JPEGImages" / "480p").iterdir():
        (frames / folder.name).symlink_to(folder)
    lines, sequences = list[str](), list[str]()
    for path in clips:
        if not path.stem.startswith("davis_"):
            continue
        sequences.append(path.stem.removeprefix("davis_"))
        (frames / sequences[-1]).mkdir()
        for number, frame in enumerate(read_clip(path).frames):
            name = f"{sequences[-1]}/{number:05d}"
            cv2.imwrite(str(frames / f"{name}.jpg"), cv2.cvtColor(even(frame, 0.9), cv2.COLOR_RGB2BGR))
            lines.append(f"/JPEGImages/480p/{name}.jpg /Annotations/480p/{name}.png\n")
    lists.joinpath("train.txt").write_text("".join(lines))
    written = hash_table.write_table(str(tmp_path), "davis", str(tmp_path / "davis"), ["1"])
    rows = hash_table.read_table(str(tmp_path))
    assert (len(rows), written.unreadable) == (20 + len(sequences), 0)
    corpus = [
        normalisation.normalise(str(path), f"{tmp_path}/target.mp4", VideoConfig(), None, None).hashes for path in clips
    ]
    found = {(clips[m.video].stem, rows[m.reference].name) for m in find_matches(corpus, [row.hashes for row in rows])}
    right = {(f"davis_{name}", name) for name in sequences}
    print(f"clips of DAVIS: found {len(found & right)} of {len(right)}")
    for clip, name in sorted(found - right):
        print(f"{clip} also matches {name}")
    assert found
