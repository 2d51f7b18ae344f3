"""Oracles: scipy's labelling, sets of pixels, and runs written out by hand."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from previts.media.masks import box, components, decode_rle, encode_rle, iou, object_pixels


def random_masks(number):
    generator = np.random.default_rng(number)
    for _ in range(200):
        height, width = generator.integers(1, 24, size=2)
        yield generator.random((height, width)) < generator.choice([0.0, 0.02, 0.3, 0.7, 1.0])


def test_run_lengths_are_those_counted_by_hand():
    assert encode_rle(np.array([[False, True], [True, True]])) == [1, 3]
    assert encode_rle(np.array([[True, False, False], [False, False, True]])) == [0, 1, 4, 1]
    assert encode_rle(np.zeros((2, 3), bool)) == [6]
    assert encode_rle(np.ones((2, 3), bool)) == [0, 6]


def test_run_lengths_decode_to_the_mask():
    for mask in random_masks(0):
        counts = encode_rle(mask)
        assert sum(counts) == mask.size
        assert all(run > 0 for run in counts[1:])
        assert all(type(run) is int for run in counts)
        decoded = decode_rle(counts, *mask.shape)
        assert decoded.dtype == np.bool_
        np.testing.assert_array_equal(decoded, mask)


def test_a_transposed_view_is_encoded_in_its_own_row_order():
    mask = np.zeros((3, 5), bool)
    mask[1, 2:4] = True
    np.testing.assert_array_equal(decode_rle(encode_rle(mask.T), 5, 3), mask.T)


@pytest.mark.parametrize("counts", [[], [5], [7], [3, -1, 4], [[3, 3]]])
def test_runs_that_do_not_fit_the_frame_are_refused(counts):
    with pytest.raises(ValueError, match="cover height = 2 x width = 3"):
        decode_rle(counts, 2, 3)


def test_the_box_is_that_of_the_pixels():
    for mask in random_masks(1):
        found = box(mask)
        pixels = [(row, column) for row in range(mask.shape[0]) for column in range(mask.shape[1]) if mask[row, column]]
        if not pixels:
            assert found is None
            continue
        rows, columns = zip(*pixels, strict=True)
        assert found.tolist() == [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


def test_components_are_those_of_scipy_in_order_of_size():
    for mask in random_masks(2):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        expected = sorted((int((labels == label).sum()) for label in range(1, count + 1)), reverse=True)
        found = components(mask, 1)
        assert [int(part.sum()) for part in found] == expected
        np.testing.assert_array_equal(np.any([*found, np.zeros_like(mask)], axis=0), mask)
        for part in found:
            assert len(np.unique(labels[part])) == 1
        assert len(components(mask, 4)) == sum(area >= 4 for area in expected)


def test_components_of_one_size_are_ordered_from_top_to_bottom():
    mask = np.zeros((9, 9), bool)
    mask[6:8, 0:2] = mask[1:3, 6:8] = True
    first, second = components(mask, 1)
    assert box(first).tolist() == [6, 1, 8, 3]
    assert box(second).tolist() == [0, 6, 2, 8]


def test_iou_counts_pixels():
    for one, other in zip(random_masks(3), random_masks(4), strict=True):
        height, width = np.minimum(one.shape, other.shape)
        one, other = one[:height, :width], other[:height, :width]
        a, b = (set(map(tuple, np.argwhere(mask))) for mask in (one, other))
        assert iou(one, other) == (len(a & b) / len(a | b) if a | b else 1.0)
    with pytest.raises(ValueError, match="have one shape"):
        iou(np.zeros((2, 3), bool), np.zeros((3, 2), bool))


def test_the_object_of_a_mask_file_does_not_depend_on_its_kind_of_pixels():
    mask = np.random.default_rng(0).random((7, 9)) < 0.4
    grey, palette = mask.astype(np.uint8), Image.fromarray(mask.astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 0] * 256)  # the number counts, not the colour
    white = np.full((7, 9), 255, np.uint8)
    images = {
        "one bit": Image.fromarray(mask),
        "grey": Image.fromarray(grey),
        "white": Image.fromarray(grey * 255),
        "palette": palette,
        "16 bits": Image.fromarray(grey.astype(np.uint16)),
        "16 bits, big end first": Image.fromarray(grey.astype(">u2")),
        "32 bits": Image.fromarray(grey.astype(np.int32)),
        "fraction": Image.fromarray(grey.astype(np.float32) * 0.5),
        "blue": Image.fromarray(np.dstack([0 * grey, 0 * grey, grey])),
        "alpha": Image.fromarray(np.dstack([white, white, white, grey * 255])),
        "grey with alpha": Image.merge("LA", (Image.fromarray(white), Image.fromarray(grey * 255))),
    }
    for name, image in images.items():
        np.testing.assert_array_equal(object_pixels(image), mask, err_msg=name)
