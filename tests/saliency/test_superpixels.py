"""Superpixels. Oracles: loops over pixels, known objects, known bars."""

import cv2
import numpy as np
import pytest
from disc_images import disc_image

from previts.saliency import superpixels
from previts.saliency.superpixels import describe_regions, gaussian, inside_bars, shrink, to_lab

pytestmark = pytest.mark.filterwarnings("error")


def test_gaussian_ends_at_three_sigma():
    found = gaussian(np.array([0.0, 2.0, 6.0, 6.001, np.inf]), 2.0)
    np.testing.assert_allclose(found, [1, np.exp(-0.5), np.exp(-4.5), 0, 0])
    np.testing.assert_array_equal(gaussian(np.array([0.0, 1.0]), 0.0), [1, 0])


def test_regions_equal_loops_over_pixels():
    generator = np.random.default_rng(4)
    lab = generator.random((13, 17, 3)).astype(np.float32) * 100
    rows, columns = np.mgrid[0:13, 0:17]
    labels = (rows // 4 * 5 + columns // 4).astype(np.int32)
    regions = describe_regions(lab, labels, 2)
    count = labels.max() + 1
    adjacent = np.eye(count, dtype=bool)
    for row in range(13):
        for column in range(17):
            for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
                if row + down < 13 and 0 <= column + right < 17:
                    one, other = labels[row, column], labels[row + down, column + right]
                    adjacent[one, other] = adjacent[other, one] = True
    np.testing.assert_array_equal(regions.adjacent, adjacent)
    for label in range(count):
        inside = labels == label
        np.testing.assert_allclose(regions.lab[label], lab[inside].mean(axis=0), rtol=1e-5)
        centre = [(rows[inside].mean() + 0.5) / 13, (columns[inside].mean() + 0.5) / 17]
        np.testing.assert_allclose(regions.position[label], centre)
        near = inside & ((rows < 2) | (rows >= 11) | (columns < 2) | (columns >= 15))
        assert regions.border[label] == near.any()


@pytest.mark.parametrize(("height", "width"), [(256, 456), (128, 170), (720, 1280), (64, 64)])
def test_superpixels_are_a_labelling_of_about_200_regions(height, width):
    image, disc = disc_image(height, width)
    regions = superpixels.superpixels(to_lab(shrink(image)))
    count = len(regions.lab)
    assert 120 <= count <= 300
    np.testing.assert_array_equal(np.unique(regions.labels), np.arange(count))
    assert (regions.adjacent.sum(axis=1) > 1).all()
    assert 0.15 < regions.border.mean() < 0.45
    small_disc = cv2.resize(disc.astype(np.uint8), regions.labels.shape[::-1], interpolation=cv2.INTER_AREA)
    share = np.bincount(regions.labels.ravel(), small_disc.ravel()) / np.bincount(regions.labels.ravel())
    assert ((share < 0.2) | (share > 0.8)).mean() > 0.9  # edges of regions follow the edge of the object


def test_images_without_bars_stay_whole():
    image, _ = disc_image(200, 320)
    one_bar = np.pad(image, ((40, 0), (0, 0), (0, 0)), constant_values=250)
    plain = np.full((200, 320, 3), 255, np.uint8)
    product = plain.copy()
    product[60:140, 100:220] = 30  # an object on white paper: even sides that do not end in a straight line
    noise = np.random.default_rng(0).integers(0, 255, (200, 320, 3), dtype=np.uint8)
    for whole in (image, one_bar, plain, product, noise):
        assert inside_bars(whole) == (slice(0, whole.shape[0]), slice(0, whole.shape[1]))


@pytest.mark.parametrize(("height", "width"), [(300, 500), (720, 1280), (2000, 20)])
def test_a_shrunk_image_has_the_working_area_and_the_same_mean(height, width):
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    small = shrink(image)
    assert small.shape[0] * small.shape[1] == pytest.approx(superpixels.WORKING_AREA, rel=0.03)
    assert small.shape[0] / small.shape[1] == pytest.approx(height / width, rel=0.03)
    np.testing.assert_allclose(small.mean(axis=(0, 1)), image.mean(axis=(0, 1)), atol=1)
    np.testing.assert_array_equal(shrink(small[:100, :100]), small[:100, :100])


def test_an_image_too_narrow_for_slic_is_cut_into_squares():
    labels = superpixels.segment(np.zeros((6, 40, 3), np.float32), count=15, compactness=20.0, iterations=2)
    assert superpixels.superpixel_side(6, 40, 15) == 4
    expected = [[row // 4 * 10 + column // 4 for column in range(40)] for row in range(6)]
    np.testing.assert_array_equal(labels, expected)
