"""Oracles: shortest paths of scipy, the energy of RBD as least squares, loops over pixels, known objects."""

import warnings

import cv2
import numpy as np
import pytest
from scipy.sparse.csgraph import floyd_warshall

from previts.saliency import priors


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def random_graph(generator, count):
    colour = priors.pairwise_distance(generator.random((count, 3)) * 50)
    linked = generator.random((count, count)) < 0.2
    return colour, linked | linked.T | np.eye(count, dtype=bool) | np.eye(count, k=1, dtype=bool) | np.eye(
        count, k=-1, dtype=bool
    )


def picture_of_disc(height, width, *, noise=6, seed=0):
    """A red disc right of the centre on a green gradient; returns the picture and the disc."""
    rows, columns = np.mgrid[0:height, 0:width]
    disc = (rows - 0.5 * height) ** 2 + (columns - 0.6 * width) ** 2 < (0.22 * height) ** 2
    image = np.stack([40 + 20 * rows / height, 110 + 40 * columns / width, 60 + 0 * rows], axis=2)
    image[disc] = [200, 40, 40]
    image += np.random.default_rng(seed).normal(0, noise, image.shape)
    return image.clip(0, 255).astype(np.uint8), disc


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


def test_geodesic_distance_is_the_shortest_path():
    generator = np.random.default_rng(0)
    for count in (2, 5, 40):
        colour, linked = random_graph(generator, count)
        clip = float(np.median(colour))
        cost = np.where(linked, np.maximum(colour - clip, 0), np.inf)
        # scipy drops dense zeros, so free links get a cost below the tolerance.
        expected = floyd_warshall(np.where(linked, np.maximum(cost, 1e-6), 0))
        np.testing.assert_allclose(priors.geodesic_distance(colour, linked, clip), expected, rtol=1e-5, atol=1e-4)


def test_geodesic_distance_along_a_chain_is_the_sum_of_its_steps():
    lightness = np.array([0.0, 10, 13, 33, 34])
    colour = np.abs(lightness[:, None] - lightness[None])
    linked = np.eye(5, dtype=bool) | np.eye(5, k=1, dtype=bool) | np.eye(5, k=-1, dtype=bool)
    found = priors.geodesic_distance(colour, linked, 4.0)
    np.testing.assert_allclose(found[0], [0, 6, 6, 22, 22])


def test_optimise_minimises_the_energy_of_rbd():
    generator = np.random.default_rng(1)
    for count in (1, 2, 6, 30):
        smooth = generator.random((count, count))
        smooth = smooth + smooth.T
        background, foreground = generator.random(count) + 0.01, generator.random(count)
        # sum 5 b s^2 + f (s - 1)^2 + 1/2 sum_ij w (s_i - s_j)^2 as one least-squares problem, a row for each term.
        rows = [np.diag(np.sqrt(5 * background)), np.diag(np.sqrt(foreground))]
        targets = [np.zeros(count), np.sqrt(foreground)]
        for i in range(count):
            for j in range(i):
                row = np.zeros((1, count))
                row[0, i], row[0, j] = np.sqrt(smooth[i, j]), -np.sqrt(smooth[i, j])
                rows.append(row)
                targets.append(np.zeros(1))
        expected = np.linalg.lstsq(np.vstack(rows), np.concatenate(targets), rcond=None)[0]
        np.testing.assert_allclose(priors.optimise(smooth, background, foreground), expected, atol=1e-9)


def test_border_connectivity_has_its_closed_form():
    # 9 equal regions, 8 of them at the border: Len / sqrt(Area) = 8 / 3. One that is far from all others: 0 or 1.
    border = np.array([True] * 8 + [False])
    np.testing.assert_allclose(priors.border_connectivity(np.zeros((9, 9)), border, 7.0), 8 / 3)
    apart = np.full((9, 9), 100.0)
    np.fill_diagonal(apart, 0)
    np.testing.assert_allclose(priors.border_connectivity(apart, border, 7.0), border.astype(float))


def test_gaussian_ends_at_three_sigma():
    found = priors.gaussian(np.array([0.0, 2.0, 6.0, 6.001, np.inf]), 2.0)
    np.testing.assert_allclose(found, [1, np.exp(-0.5), np.exp(-4.5), 0, 0])
    np.testing.assert_array_equal(priors.gaussian(np.array([0.0, 1.0]), 0.0), [1, 0])


def test_adaptive_scales_are_the_means_that_loops_find():
    generator = np.random.default_rng(2)
    for spread in (1.0, 3.0, 30.0):
        colour, adjacent = random_graph(generator, 30)
        colour *= spread / 10
        ring = (adjacent.astype(int) @ adjacent) > 0
        m1 = np.mean([min(colour[i, j] for j in range(30) if adjacent[i, j] and j != i) for i in range(30)])
        m2 = np.mean([min(colour[i, j] for j in range(30) if ring[i, j] and j != i) for i in range(30)])
        links = sorted((colour[i, j] for i in range(30) for j in range(30) if adjacent[i, j] and j != i), reverse=True)
        top = np.mean(links[: round(0.01 * len(links))])
        expected = (m2, max(5, min(10, 3 * m1, top / 10)), min(3 * m1, 0.2 * top, 20))
        np.testing.assert_allclose(priors.adaptive_scales(colour, adjacent, ring), expected)


def test_contrast_is_the_weighted_sum_that_loops_find():
    generator = np.random.default_rng(3)
    colour, place, background = generator.random((20, 20)), generator.random((20, 2)), generator.random(20)
    expected = np.zeros(20)
    for i in range(20):
        for j in range(20):
            distance = np.hypot(*(place[i] - place[j]))
            expected[i] += (
                colour[i, j] * (np.exp(-(distance**2) / (2 * 0.4**2)) if distance <= 1.2 else 0) * background[j]
            )
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    found = priors.background_contrast(colour, place, background)
    kept = found > 0
    np.testing.assert_allclose(found[kept], expected[kept])
    assert 0 < kept.sum() < 20
    assert expected[kept].min() > expected[~kept].max()

    def between(cut):  # Otsu: the cut between two neighbours with the largest variance between classes
        low, high = expected[expected <= cut], expected[expected > cut]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0

    assert between(expected[~kept].max()) == pytest.approx(max(between(cut) for cut in expected), rel=0.02)


def loops_over_regions(lab, place, adjacent, border):
    """RBD of regions as its formulas stand, a pair at a time."""
    count = len(lab)
    nodes = range(count)
    colour = [[float(np.linalg.norm(lab[i] - lab[j])) for j in nodes] for i in nodes]
    ring = [[any(adjacent[i, k] and adjacent[k, j] for k in nodes) for j in nodes] for i in nodes]
    m1 = np.mean([min(colour[i][j] for j in nodes if adjacent[i, j] and j != i) for i in nodes])
    m2 = np.mean([min(colour[i][j] for j in nodes if ring[i][j] and j != i) for i in nodes])
    links = sorted((colour[i][j] for i in nodes for j in nodes if adjacent[i, j] and j != i), reverse=True)
    top = np.mean(links[: max(1, round(0.01 * len(links)))])
    geo, nei = max(5, min(10, 3 * m1, top / 10)), min(3 * m1, 0.2 * top, 20)

    def weight(distance, sigma):
        return np.exp(-(distance**2) / (2 * sigma**2)) if distance <= 3 * sigma else 0.0

    clique = [[bool(border[i] and border[j]) for j in nodes] for i in nodes]
    path = np.array(
        [[max(1e-6, colour[i][j] - m2) if adjacent[i, j] or clique[i][j] else 0 for j in nodes] for i in nodes]
    )
    path = floyd_warshall(path)
    area = [sum(weight(path[i, j], geo) for j in nodes) for i in nodes]
    length = [sum(weight(path[i, j], geo) for j in nodes if border[j]) for i in nodes]
    connectivity = np.array(length) / np.sqrt(area)
    background = 1 - np.exp(-(connectivity**2) / 2)
    contrast = priors.background_contrast(np.array(colour), place, background)  # has its own loops above
    system = np.zeros((count, count))
    for i in nodes:
        system[i, i] += 5 * (1000 if connectivity[i] > 3 else background[i]) + contrast[i]
        for j in nodes:
            smooth = (weight(colour[i][j], nei) if ring[i][j] or clique[i][j] else 0) + 0.1 * adjacent[i, j]
            system[i, i] += smooth
            system[i, j] -= smooth
    result = np.linalg.solve(system, contrast)
    return (result - result.min()) / (result.max() - result.min()), connectivity


def test_saliency_of_regions_is_what_loops_over_pairs_find():
    generator = np.random.default_rng(6)
    certain = 0
    for spread in (2.0, 8.0, 25.0):
        rows, columns = np.divmod(np.arange(48), 8)
        near = (abs(rows[:, None] - rows) <= 1) & (abs(columns[:, None] - columns) <= 1)
        border = (rows == 0) | (rows == 5) | (columns == 0) | (columns == 7)
        lab = generator.normal(50, spread, (48, 3))
        lab[(rows >= 2) & (rows <= 3) & (columns >= 3) & (columns <= 5)] += 20
        place = np.stack([(rows + 0.5) / 6, (columns + 0.5) / 8], axis=1)
        expected, connectivity = loops_over_regions(lab, place, near, border)
        certain += int((connectivity > 3).sum())
        found = priors.region_saliency(priors.Regions(np.zeros((1, 1), np.int32), lab, place, near, border))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert certain


def test_measured_regions_are_what_loops_over_pixels_find():
    generator = np.random.default_rng(4)
    lab = generator.random((13, 17, 3)).astype(np.float32) * 100
    rows, columns = np.mgrid[0:13, 0:17]
    labels = (rows // 4 * 5 + columns // 4).astype(np.int32)
    regions = priors.measure(lab, labels, 2)
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
    image, disc = picture_of_disc(height, width)
    regions = priors.superpixels(priors._shrink(image))
    count = len(regions.lab)
    assert 120 <= count <= 300
    np.testing.assert_array_equal(np.unique(regions.labels), np.arange(count))
    assert (regions.adjacent.sum(axis=1) > 1).all()
    assert 0.15 < regions.border.mean() < 0.45
    small_disc = cv2.resize(disc.astype(np.uint8), regions.labels.shape[::-1], interpolation=cv2.INTER_AREA)
    share = np.bincount(regions.labels.ravel(), small_disc.ravel()) / np.bincount(regions.labels.ravel())
    assert ((share < 0.2) | (share > 0.8)).mean() > 0.9  # edges of regions follow the edge of the object


@pytest.mark.parametrize(("height", "width"), [(256, 456), (128, 170), (456, 256)])
def test_the_object_of_a_picture_is_found(height, width):
    image, disc = picture_of_disc(height, width)
    saliency = priors.rbd(image)
    assert saliency.shape == (height, width)
    assert saliency.dtype == np.float32
    assert saliency.min() >= 0
    assert saliency.max() <= 1
    assert overlap(saliency > 0.5, disc) > 0.85
    assert saliency[disc].mean() > 0.9
    assert saliency[~disc].mean() < 0.1


def test_a_region_that_leaves_through_the_border_is_background():
    image, disc = picture_of_disc(240, 320)
    image[:, :70] = image[disc].mean(axis=0)  # as red as the disc, but along the whole left edge
    saliency = priors.rbd(image)
    assert saliency[disc].mean() > 0.8
    assert saliency[:, :60].mean() < 0.1


def test_saliency_does_not_depend_on_which_way_the_picture_hangs():
    image, disc = picture_of_disc(240, 320)
    mirrored = priors.rbd(np.ascontiguousarray(image[:, ::-1]))[:, ::-1]
    assert overlap(mirrored > 0.5, disc) > 0.85


@pytest.mark.parametrize(("rows", "columns"), [((30, 30), (0, 0)), ((0, 0), (60, 60)), ((9, 14), (20, 11))])
def test_bars_are_removed_and_never_salient(rows, columns):
    image, disc = picture_of_disc(200, 320)
    around = (rows, columns)
    framed = np.pad(image, (*around, (0, 0)), constant_values=3)
    inside = priors.picture(framed)
    for found, (before, after), length in zip(inside, around, framed.shape[:2], strict=True):
        # A bar takes two pixels of the picture with it: encoders blur its edge.
        assert found.start in ((before, before + 2) if before else (0,))
        assert found.stop in ((length - after - 2, length - after) if after else (length,))
    saliency = priors.rbd(framed)
    outside = np.pad(np.zeros(disc.shape, bool), around, constant_values=True)
    assert saliency[outside].max() == 0
    assert overlap(saliency > 0.5, np.pad(disc, around)) > 0.8


def test_pictures_without_bars_stay_whole():
    image, _ = picture_of_disc(200, 320)
    one_bar = np.pad(image, ((40, 0), (0, 0), (0, 0)), constant_values=250)
    plain = np.full((200, 320, 3), 255, np.uint8)
    product = plain.copy()
    product[60:140, 100:220] = 30  # an object on paper: even sides, but no straight line across
    noise = np.random.default_rng(0).integers(0, 255, (200, 320, 3), dtype=np.uint8)
    for whole in (image, one_bar, plain, product, noise):
        assert priors.picture(whole) == (slice(0, whole.shape[0]), slice(0, whole.shape[1]))


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 40), (40, 1), (2, 2), (5, 7), (8, 8), (9, 300), (16, 16), (33, 21), (240, 426)]
)
def test_any_picture_gets_a_valid_map(size):
    generator = np.random.default_rng(5)
    checks = np.add.outer(np.arange(size[0]), np.arange(size[1]))[..., None] % 2 * 255
    for image in (
        np.zeros(size),
        np.full(size, 255),
        generator.integers(0, 256, (*size, 3)),
        np.broadcast_to(checks, (*size, 3)),
        np.broadcast_to(np.linspace(0, 255, size[1])[:, None], (*size, 3)),
    ):
        pixels = np.broadcast_to(image.reshape(*size, -1), (*size, 3)).astype(np.uint8)
        saliency = priors.rbd(pixels)
        assert saliency.shape == size
        assert saliency.dtype == np.float32
        assert np.isfinite(saliency).all()
        assert saliency.min() >= 0
        assert saliency.max() <= 1


def test_nothing_stands_out_of_an_even_picture():
    assert not priors.rbd(np.full((120, 160, 3), 77, np.uint8)).any()
    one = priors.Regions(
        np.zeros((4, 4), np.int32), np.zeros((1, 3)), np.full((1, 2), 0.5), np.ones((1, 1), bool), np.ones(1, bool)
    )
    assert priors.region_saliency(one).tolist() == [0]


def test_the_same_picture_gives_the_same_map():
    image, _ = picture_of_disc(240, 320, noise=30)
    np.testing.assert_array_equal(priors.rbd(image), priors.rbd(image.copy()))


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_other_arrays_are_refused(image):
    with pytest.raises(ValueError, match="uint8 RGB"):
        priors.rbd(image)


def max_f(maps, masks):
    """Return the largest F (beta^2 = 0.3) of precision and recall averaged over images, over 256 thresholds."""
    precision, recall = [], []
    for saliency, mask in zip(maps, masks, strict=True):
        level = np.round(saliency * 255).astype(int)
        hits, alarms = (np.bincount(level[part], minlength=256)[::-1].cumsum() for part in (mask, ~mask))
        precision.append(hits / np.maximum(hits + alarms, 1))
        recall.append(hits / mask.sum())
    p, r = np.mean(precision, axis=0), np.mean(recall, axis=0)
    return float((1.3 * p * r / np.maximum(0.3 * p + r, 1e-12)).max())


def test_real_photographs_are_far_better_than_a_centred_blob(real_data):
    paths = sorted((real_data / "saliency" / "images").iterdir())[::4]
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
    masks = [cv2.imread(str(real_data / "saliency" / "masks" / f"{path.stem}.png"), 0) > 127 for path in paths]
    blobs = []
    for mask in masks:
        rows, columns = np.mgrid[-1 : 1 : mask.shape[0] * 1j, -1 : 1 : mask.shape[1] * 1j]
        blobs.append(np.exp(-(rows**2 + columns**2) / (2 * 0.5**2)))
    assert max_f([priors.rbd(image) for image in images], masks) > max_f(blobs, masks) + 0.08
