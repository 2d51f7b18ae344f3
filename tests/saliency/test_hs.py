"""HS. Oracles: the energy of the tree as dense least squares, loops over pixels and regions, invariants of merging."""

from itertools import pairwise

import numpy as np
import pytest
from disc_images import disc_image
from scipy.ndimage import label as connected_parts

from previts.saliency import hs
from previts.saliency.superpixels import region_means, to_lab

pytestmark = pytest.mark.filterwarnings("error")


def random_labels(generator, height=14, width=19, cell=3):
    """Return labels of connected regions: cells of a grid, some merged with the next one, numbered without gaps."""
    rows, columns = np.mgrid[0:height, 0:width]
    grid = rows // cell * (width // cell + 1) + columns // cell
    renamed = np.arange(grid.max() + 1)
    for one in generator.permutation(grid.max())[: grid.max() // 3]:
        if (one + 1) % (width // cell + 1):
            renamed[renamed == renamed[one + 1]] = renamed[one]
    return np.unique(renamed[grid], return_inverse=True)[1].reshape(grid.shape).astype(np.int32)


def test_saliency_along_the_tree_equals_dense_least_squares():
    generator = np.random.default_rng(0)
    for sizes in ((1, 1, 1), (5, 2, 1), (30, 8, 3), (4, 4, 4)):
        cues = [generator.random(size) for size in sizes]
        parents = [
            np.concatenate([np.arange(coarse), generator.integers(0, coarse, fine - coarse)]).astype(np.int32)
            for fine, coarse in pairwise(sizes)
        ]
        starts = np.cumsum([0, *sizes])
        rows, targets = [], []
        for layer, own in enumerate((0.5, 4, 2)):
            for i in range(sizes[layer]):
                rows.append(np.sqrt(own) * np.eye(starts[-1])[starts[layer] + i])
                targets.append(np.sqrt(own) * cues[layer][i])
                if layer < 2:
                    difference = np.eye(starts[-1])[starts[layer] + i]
                    rows.append(2 * (difference - np.eye(starts[-1])[starts[layer + 1] + parents[layer][i]]))
                    targets.append(0.0)
        expected = np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0][: sizes[0]]
        np.testing.assert_allclose(hs.agree(cues, parents), expected, atol=1e-9)


def test_contrast_equals_the_sum_by_loops():
    generator = np.random.default_rng(1)
    lab, place, share = generator.random((15, 3)) * 50, generator.random((15, 2)), generator.random(15)
    for size in (3, 33):
        expected = np.zeros(15)
        for i in range(15):
            for j in range(15):
                away = (place[i, 0] - place[j, 0]) ** 2 + (place[i, 1] - place[j, 1]) ** 2
                expected[i] += share[j] * np.exp(-away / (0.2**2 * size)) * np.sqrt(((lab[i] - lab[j]) ** 2).sum())
        expected = (expected - expected.min()) / (expected.max() - expected.min())
        np.testing.assert_allclose(hs.contrast(lab, place, share, size), expected, atol=1e-9)


def test_location_and_cue_equal_loops_over_pixels():
    generator = np.random.default_rng(2)
    labels = random_labels(generator)
    lab = (generator.random((14, 19, 3)) * 40).astype(np.float32)
    count = labels.max() + 1
    near, place, means = np.zeros(count), np.zeros((count, 2)), np.zeros((count, 3))
    area = np.bincount(labels.ravel())
    for row, column in np.ndindex(14, 19):
        one, y, x = labels[row, column], (row + 0.5) / 14, (column + 0.5) / 19
        near[one] += np.exp(-9 * ((y - 0.5) ** 2 + (x - 0.5) ** 2)) / area[one]
        place[one] += np.array([y, x]) / area[one]
        means[one] += lab[row, column] / area[one]
    np.testing.assert_allclose(hs.location(labels), near)
    near = (near - near.min()) / (near.max() - near.min())
    expected = hs.contrast(means, place, area / area.sum(), 17) * near
    np.testing.assert_allclose(hs.cue(lab, labels, 17), expected, atol=1e-5)


def has_square(inside, side):
    height, width = inside.shape
    return any(
        inside[row : row + side, column : column + side].all()
        for row in range(height - side + 1)
        for column in range(width - side + 1)
    )


def test_squares_inside_regions_equal_those_by_loops():
    labels = random_labels(np.random.default_rng(3), 17, 23, 4)
    found_both = set()
    for side in (2, 3, 4, 5, 9, 40):
        expected = [has_square(labels == one, side) for one in range(labels.max() + 1)]
        np.testing.assert_array_equal(hs.holds_square(labels, side), expected)
        found_both |= set(expected)
    assert found_both == {True, False}
    assert hs.holds_square(np.zeros((1, 9), np.int32), 2).tolist() == [False]
    assert hs.holds_square(np.zeros((5, 5), np.int32), 5).tolist() == [True]


def test_neighbours_and_nearest_neighbours_equal_those_by_loops():
    generator = np.random.default_rng(4)
    labels = random_labels(generator)
    colour = generator.random((labels.max() + 1, 3))
    expected = set()
    for row, column in np.ndindex(14, 19):
        for down, right in ((0, 1), (1, 0)):
            if row + down < 14 and column + right < 19:
                one, other = labels[row, column], labels[row + down, column + right]
                if one != other:
                    expected.add((min(one, other), max(one, other)))
    pairs = hs.neighbours(labels)
    assert sorted(map(tuple, pairs.tolist())) == sorted(expected)
    nearest = hs.nearest_neighbour(colour, pairs)
    for one in range(len(colour)):
        others = [b if a == one else a for a, b in expected if one in (a, b)]
        assert nearest[one] == min(others, key=lambda other: np.linalg.norm(colour[one] - colour[other]))


def test_a_thin_region_is_merged_with_the_neighbour_of_nearest_colour():
    labels = np.zeros((9, 12), np.int32)
    labels[:, 6:] = 1
    labels[:, 5] = 2  # one pixel wide
    lab = np.zeros((9, 12, 3), np.float32)
    lab[:, 6:, 0] = 50
    for lightness, joined in ((20, 0), (30, 1)):
        lab[:, 5, 0] = lightness
        merged = hs.merge(lab, labels, [2])
        assert merged.max() == 1
        assert (merged[:, 5] == merged[0, 11 * joined]).all()
        assert (merged[:, 4] != merged[:, 6]).all()
    np.testing.assert_array_equal(hs.merge(lab, labels, []), labels)


def test_a_merged_region_has_the_mean_colour_of_its_pixels():
    # From the left: 1 column of 24 is merged with 5 columns of 0, mean 4. The 2 columns of 30 are then nearer to 50.
    labels = np.repeat(np.array([0, 1, 1, 1, 1, 1, 2, 2, 3, 3, 3, 3], np.int32)[None], 9, axis=0)
    lab = np.zeros((9, 12, 3), np.float32)
    lab[..., 0] = np.array([24, 0, 30, 50])[labels]
    merged = hs.merge(lab, labels, [2, 3])
    assert merged.max() == 1
    assert (merged[:, :6] == merged[0, 0]).all()
    assert (merged[:, 6:] == merged[0, 11]).all()
    assert hs.merge(lab, labels, [13]).max() == 0


def nested(fine, coarse):
    return len(np.unique(fine.astype(np.int64) * (coarse.max() + 1) + coarse)) == fine.max() + 1


@pytest.mark.parametrize("noise", [0, 6, 60])
def test_layers_form_a_tree_of_connected_regions_with_their_squares(noise):
    image, disc = disc_image(90, 120, noise=noise)
    layers = hs.hierarchy(to_lab(image))
    counts = [int(labels.max()) + 1 for labels in layers]
    assert counts == sorted(counts, reverse=True)
    for labels in layers:
        np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))
    for fine, coarse in pairwise(layers):
        assert nested(fine, coarse)
        parent = hs.parent_of(fine, coarse)
        np.testing.assert_array_equal(parent[fine], coarse)
    for labels, size in zip(layers, hs.SCALES, strict=True):
        side = int(np.ceil(size * np.sqrt(90 * 120 / 120_000)))
        for one in range(labels.max() + 1):
            assert connected_parts(labels == one)[1] == 1
            assert side < 2 or labels.max() == 0 or has_square(labels == one, side)
    if noise < 60:
        share = region_means(disc[..., None].astype(np.float32), layers[1])[:, 0]
        assert ((share < 0.2) | (share > 0.8)).mean() > 0.9  # edges of regions follow the edge of the object
