"""Oracles: pycocotools' own compression of random masks, a rectangle, and shapes with one fault each."""

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from previts.evals.detection import shapes

SIZE = (6, 4)  # width, height
FULL = [5, 19]


def test_compressed_text_is_read_like_pycocotools_reads_it():
    generator = np.random.default_rng(0)
    for height, width, share in ((4, 6, 0.5), (1, 1, 1.0), (300, 200, 0.01), (640, 480, 0.5), (900, 1200, 1e-5)):
        mask = np.asfortranarray(generator.random((height, width)) < share).astype(np.uint8)
        packed = run_lengths.encode(mask)
        text = packed["counts"].decode()
        flat = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        runs = np.diff([0, *edges, flat.size]).tolist()
        assert shapes.decompressed(text) == ([0, *runs] if flat[0] else runs)
        shapes.check_shape({"size": [height, width], "counts": text}, (width, height), 0)
        for form in (text, shapes.decompressed(text)):
            drawn = shapes.shape_mask({"size": [height, width], "counts": form}, (width, height), (width, height))
            np.testing.assert_array_equal(drawn, mask)


def text_of(mask: np.ndarray) -> str:
    return run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


FAULTS = {
    "short sum": ({"size": [4, 6], "counts": [5, 3]}, r"sum 24 \(4 x 6 pixels\), got the sum 8"),
    "long sum": ({"size": [4, 6], "counts": [5, 30]}, "got the sum 35"),
    "negative count": ({"size": [4, 6], "counts": [5, -3, 22]}, "got the sum 24 and a count of -3"),
    "fraction": ({"size": [4, 6], "counts": [5, 3.5, 15.5]}, "must have counts, a list of whole numbers"),
    "true": ({"size": [4, 6], "counts": [5, True, 18]}, "must have counts, a list of whole numbers"),
    "text in counts": ({"size": [4, 6], "counts": ["5", 19]}, "must have counts, a list of whole numbers"),
    "NaN": ({"size": [4, 6], "counts": [5, float("nan")]}, "must have counts, a list of whole numbers"),
    "no counts": ({"size": [4, 6]}, "must have counts"),
    "swapped size": ({"size": [6, 4], "counts": FULL}, r"must have size \[4, 6\] \(height, width\), got \[6, 4\]"),
    "no size": ({"counts": FULL}, r"must have size \[4, 6\]"),
    "short text": ({"size": [4, 6], "counts": text_of(np.ones((2, 6)))}, "got the sum 12"),
    "cut text": ({"size": [4, 6], "counts": "T"}, "end inside a number"),
    "foreign text": ({"size": [4, 6], "counts": "5é"}, "character 'é' at place 1"),
    "endless number": ({"size": [4, 6], "counts": "o" * 12}, "character 'o' at place 8"),
    "odd polygon": ([[0, 0, 5, 0, 5, 3, 1]], r"polygon 0 must be a list x, y, x, y, ..., got 7 numbers"),
    "flat polygon": ([0, 0, 5, 0, 5, 3], r"polygon 0 must be a list x, y, x, y, ..., got 0"),
    "NaN in polygon": (
        [[0, 0, 5, 0, 5, float("nan")]],
        r"number 5 of polygon 0 must be inside the image .* got nan",
    ),
    "text in polygon": ([[0, 0, 5, "0", 5, 3]], r"number 3 of polygon 0 must be inside the image"),
    "polygon outside": (
        [[0, 0, 5, 0, 5, 3], [0, 0, 5, 0, 9, 3]],
        r"number 4 of polygon 1 must be inside the image of 6 x 4 pixels, got 9",
    ),
    "two points": ([[0, 0, 5, 3]], "no polygon of three points"),
    "no polygon": ([], "must be a list of polygons, or run lengths"),
    "number": (7, "must be a list of polygons, or run lengths"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_shape_that_does_not_fit_its_image_is_refused(fault: str):
    shape, message = FAULTS[fault]
    with pytest.raises(ValueError, match=message):
        shapes.check_shape(shape, SIZE, 1)


def test_shapes_that_fit_are_accepted():
    for shape in (
        {"size": [4, 6], "counts": FULL},
        {"size": [4, 6], "counts": [24]},
        {"size": [4, 6], "counts": text_of(np.zeros((4, 6)))},
        [[0, 0, 6.5, 0, 6, 4, 0, 4.9]],  # drawn by hand, a little outside
        [[0, 0, 6, 4], [0, 0, 5, 0, 5, 3]],
    ):
        shapes.check_shape(shape, SIZE, 1)


def test_run_lengths_are_drawn_like_polygons():
    mask = np.zeros((100, 150), np.uint8)
    mask[30:90, 20:70] = 1
    polygon = [[20, 30, 70, 30, 70, 90, 20, 90]]
    drawn = shapes.shape_mask(polygon, (150, 100), (300, 200))
    for counts in (text_of(mask), shapes.decompressed(text_of(mask))):
        resized = shapes.shape_mask({"size": [100, 150], "counts": counts}, (150, 100), (300, 200))
        assert (drawn == resized).mean() > 0.99
