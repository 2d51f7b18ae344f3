"""Oracle: the overlap of shifted squares in closed form."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from moving_squares import FRAMES, make_index, square
from PIL import Image

from previts.config.perception import FilterConfig
from previts.corpus import index_table, truth
from previts.corpus.truth import Truth, write_masks
from previts.corpus.tube_table import Tube
from previts.errors import InputError
from previts.media.masks import encode_rle
from previts.reporting import corpus
from previts.storage import folders

SIDE = 20


def mask(left: int, scale: int = 1) -> np.ndarray:
    shown = np.zeros((40 * scale, 60 * scale), bool)
    shown[10 * scale : (10 + SIDE) * scale, left * scale : (left + SIDE) * scale] = True
    return shown


def tube(lefts: list[int | None]) -> Tube:
    visible = [left for left in lefts if left is not None]
    places = iter(range(len(visible)))
    return Tube(
        40, 60, [encode_rle(mask(left)) for left in visible], [-1 if left is None else next(places) for left in lefts]
    )


@pytest.mark.parametrize("scale", [1, 2])
def test_the_score_of_a_shifted_square(scale):
    shown = tube([5, 9, None, None])
    exact = np.stack([mask(5, scale), mask(5, scale), mask(5, scale), np.zeros((40 * scale, 60 * scale), bool)])
    score = truth.score(shown, exact)
    shifted = (SIDE - 4) / (SIDE + 4)
    # Frame by frame: equal; shifted by 4; lost although the object is visible; correctly empty.
    assert score.iou == pytest.approx((1 + shifted + 0 + 1) / 4)
    assert score.tracked_iou == pytest.approx((1 + shifted) / 2)
    assert score.tracked == 0.5


def test_masks_of_another_frame_rate_are_compared_by_time():
    shown = tube([5, 5, 15, 15, 25, 25])
    assert truth.score(shown, np.stack([mask(5), mask(15), mask(25)])).iou == 1
    assert truth.score(tube([5, 15, 25]), np.stack([mask(left) for left in (5, 5, 15, 15, 25, 25)])).iou == 1


def test_an_empty_tube_has_no_iou_over_tracked_frames():
    empty = truth.score(tube([None, None]), np.stack([mask(5), mask(5)]))
    assert (empty.iou, empty.tracked_iou, empty.tracked) == (0, None, 0)
    whole = truth.score(tube([5, 5]), np.stack([mask(5), mask(5)]))
    assert truth.mean_score([empty, whole]) == truth.Score(0.5, 1.0, 0.5)
    assert truth.mean_score([empty]).tracked_iou is None


def score(index: index_table.Index) -> tuple[dict[str, truth.Score], str]:
    return corpus.score_index(index, truth.find_truths([crawl.videos for crawl in index.crawls]))


@pytest.mark.parametrize(
    ("crawl", "folder", "form"),
    [
        ("crawl.csv", "masks", "npz"),
        ("crawl.csv", "crawl_masks", "png"),
        ("clips", "clips_masks", "png"),
        ("clips", "masks", "npz"),
    ],
)
def test_exact_masks_next_to_a_crawl_are_found_and_give_exact_tubes_an_iou_of_one(tmp_path: Path, crawl, folder, form):
    made = make_index(tmp_path / "made", 4)
    for number in (0, 1, 3):  # v002 has no masks
        exact = np.stack([square(number, frame) for frame in range(FRAMES)])
        if form == "npz":
            write_masks(str(tmp_path / folder / f"v{number:03d}.npz"), exact)
        else:
            (tmp_path / folder / f"v{number:03d}").mkdir(parents=True)
            for frame, shown in enumerate(exact):
                cv2.imwrite(str(tmp_path / folder / f"v{number:03d}" / f"{frame:05d}.png"), shown.astype(np.uint8) * 90)
    folders.commit(made.crawls[0].videos, {}, inputs={"crawl": str(tmp_path / crawl)})
    uri = str(tmp_path / "index" / "corpus-0")
    index_table.write_index(uri, [made.table], FilterConfig())
    folders.commit(
        uri,
        {},
        inputs={"videos": made.crawls[0].videos, "tubes": made.crawls[0].tubes},
        files=(index_table.TABLE, index_table.QUALITY),
    )
    scores, cause = score(index_table.read_index(uri))
    assert cause == ""
    assert {name: found.iou for name, found in scores.items()} == {"v000": 1, "v001": 1, "v003": 1}
    assert [scores[f"v{n:03d}"].tracked_iou for n in (0, 1, 3)] == [1, 1, None]


def test_masks_that_cannot_be_read_are_reported(tmp_path: Path):
    made = make_index(tmp_path / "made", 2)
    write_masks(str(tmp_path / "masks" / "v000.npz"), np.stack([square(0, frame) for frame in range(FRAMES)]))
    (tmp_path / "masks" / "v001").mkdir()
    (tmp_path / "masks" / "v001" / "0.png").write_bytes(b"no image")
    folders.commit(made.crawls[0].videos, {}, inputs={"crawl": str(tmp_path / "crawl.csv")})
    scores, cause = score(made)
    assert set(scores) == {"v000"}
    assert "1 not compared" in cause
    assert "0.png is not an image" in cause
    (found,) = truth.find_truths([made.crawls[0].videos])
    assert found is not None
    (tmp_path / "masks" / "v000.npz").write_bytes(b"no masks")
    with pytest.raises(InputError, match="does not contain masks"):
        found.masks("v000")


def test_a_crawl_without_masks_has_no_truth(tmp_path: Path):
    for number, crawl in enumerate((str(tmp_path / "crawl.csv"), "https://example.org/crawl.csv")):
        videos = str(tmp_path / "videos" / f"v-{number}")
        folders.commit(videos, {}, inputs={"crawl": crawl})
        assert truth.find_truths([videos]) == [None]
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / ".DS_Store").write_bytes(b"of macOS")
    assert truth.find_truths([str(tmp_path / "videos" / "v-0")]) == [None]


@pytest.mark.parametrize("crawl", ["c.raw", "c.raw.csv", "c.raw.parquet", "c.raw.pq", "c.raw.CSV"])
def test_masks_of_a_crawl_with_a_dot_in_its_name_are_found(tmp_path, crawl):
    masks = tmp_path / "c.raw_masks"
    masks.mkdir()
    (masks / "a.npz").touch()
    decided = {"crawl": crawl}
    videos = folders.address(str(tmp_path), "videos", "crawl", decided)
    folders.commit(videos, decided, inputs={"crawl": str(tmp_path / crawl)})
    (found,) = truth.find_truths([videos])
    assert found is not None
    assert found.knows("a")


def test_masks_are_in_the_order_of_the_numbers_in_their_file_names(tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(12):
        mask = np.zeros((4, 16), np.uint8)
        mask[:, number] = 255
        cv2.imwrite(str(tmp_path / "a" / f"{number}.png"), mask)
    masks = truth.Truth(str(tmp_path), frozenset(["a"])).masks("a")
    assert [int(mask[0].argmax()) for mask in masks] == list(range(12))


def test_masks_of_a_folder_with_a_folder_for_each_class_are_found(tmp_path):
    exact = np.stack([square(0, frame) for frame in range(3)])
    write_masks(str(tmp_path / "cat" / "a.npz"), exact)
    (tmp_path / "cat" / "b").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "cat" / "b" / f"\u00b2{number}.png"), exact[number].astype(np.uint8) * 255)
    found = truth.Truth(str(tmp_path), frozenset(["cat"]))
    assert [found.knows(name) for name in ("cat/a", "cat/b", "cat/c", "dog/a", "a")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert np.array_equal(found.masks("cat/a"), exact)
    assert np.array_equal(found.masks("cat/b"), exact)  # the superscript is not a number for `int`


@pytest.mark.parametrize("name", ["a.npz", "a/0.png"])
def test_empty_files_are_named_in_the_error(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(InputError, match=re.escape(name)):
        truth.Truth(str(tmp_path), frozenset([name.split("/")[0]])).masks("a")


@pytest.mark.parametrize(
    ("packed", "shape"),
    [
        (np.zeros(3, np.uint8), (2, 4, 4)),  # four bytes are needed: the last mask would be empty
        (np.zeros(5, np.uint8), (2, 4, 4)),
        (np.zeros(4, np.float64), (2, 4, 4)),
        (np.zeros(4, np.uint8), (-2, -4, 4)),
        (np.zeros(4, np.uint8), (8, 4)),
    ],
)
def test_packed_masks_that_do_not_fit_their_shape_are_refused(tmp_path, packed, shape):
    np.savez(tmp_path / "a.npz", packed=packed, shape=np.array(shape))
    with pytest.raises(InputError, match=r"a\.npz does not contain masks \(\d bytes of type .* are not the masks"):
        truth.Truth(str(tmp_path), frozenset(["a.npz"])).masks("a")


def test_hidden_files_are_no_masks_and_masks_may_have_any_pixels(tmp_path):
    (tmp_path / "a").mkdir()
    mask = np.zeros((4, 6), np.uint8)
    mask[1:3, 2:5] = 1
    Image.fromarray(mask).save(tmp_path / "a" / "0.png")
    Image.fromarray(mask.astype(np.uint16)).save(tmp_path / "a" / "1.png")
    Image.fromarray(np.dstack([0 * mask, 0 * mask, mask])).save(tmp_path / "a" / "2.png")
    (tmp_path / "a" / "._0.png").write_bytes(b"of macOS")
    masks = truth.Truth(str(tmp_path), frozenset(["a"])).masks("a")
    np.testing.assert_array_equal(masks, [mask > 0] * 3)


@pytest.mark.parametrize("shape", [(10**6, 10**3, 10**3), (4, 8), (-1, -1, 64), (0, 8, 8)])
def test_masks_whose_shape_does_not_fit_are_refused_before_they_take_memory(tmp_path: Path, shape: tuple[int, ...]):
    np.savez_compressed(tmp_path / "v.npz", packed=np.zeros(8, np.uint8), shape=np.array(shape))
    found = Truth(str(tmp_path), frozenset(["v.npz"]))
    with pytest.raises(
        InputError,
        match=r"v\.npz does not contain masks .*are not the masks of shape.*replace or remove",
    ):
        found.masks("v")
