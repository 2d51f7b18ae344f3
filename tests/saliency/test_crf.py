"""CRF. Oracles: a dense CRF with explicit N x N kernels, Gaussian sums by brute force, symmetries, a noisy disc."""

import cv2
import numpy as np
import pytest
from disc_images import overlap

from previts.saliency import crf


def explicit_kernel(features, *, normalise=True):
    """Return the Gaussian kernel of all pairs of points (N, D); a point is its own neighbour."""
    distance = ((features[:, None] - features[None]) ** 2).sum(axis=2)
    kernel = np.exp(-distance / 2)
    root = np.sqrt(kernel.sum(axis=1)) if normalise else np.ones(len(kernel))
    return kernel / root[:, None] / root[None, :]


def explicit_features(image):
    """Return position (N, 2) in pixels and RGB (N, 3)."""
    height, width = image.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([columns, rows], axis=2).reshape(-1, 2).astype(float), image.reshape(-1, 3).astype(float)


def explicit_crf(probability, image, *, iterations=5, spatial=3.0, bilateral=10.0, normalise=True):
    """Return the log-odds (height, width) of the foreground by mean field with both labels explicit."""
    position, colour = explicit_features(image)
    near = explicit_kernel(position / 3, normalise=normalise)
    alike = explicit_kernel(np.concatenate([position / 80, colour / 13], axis=1), normalise=normalise)
    background_foreground = np.stack([1 - probability.ravel(), probability.ravel()], axis=1).astype(float)
    unary = -np.log(np.clip(background_foreground, 1e-5, 1 - 1e-5))
    energy = unary
    for _ in range(iterations):
        marginal = np.exp(energy.min(axis=1, keepdims=True) - energy)
        marginal /= marginal.sum(axis=1, keepdims=True)
        # Potts: the energy of a label is the neighbours' probability of the other label.
        other = marginal[:, ::-1]
        energy = unary + spatial * near @ other + bilateral * alike @ other
    return (energy[:, 0] - energy[:, 1]).reshape(probability.shape)


def log_odds(probability):
    probability = probability.astype(float)
    return np.log(probability / (1 - probability))


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def smooth(shape, scale, seed):
    """Return smooth noise in [0, 1]."""
    noise = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), scale)
    return (noise - noise.min()) / (noise.max() - noise.min())


def smooth_image(height, width, seed=0):
    return (255 * smooth((height, width, 3), 4, seed)).astype(np.uint8)


def two_colours(height, width):
    image = np.full((height, width, 3), (60, 70, 50), dtype=np.uint8)
    image[:, : width // 3] = (200, 180, 40)
    return image


def disc_on_ground(height, width, seed=0):
    rows, columns = np.mgrid[0:height, 0:width]
    disc = (rows - 0.5 * height) ** 2 + (columns - 0.6 * width) ** 2 < (0.3 * height) ** 2
    image = np.where(disc[..., None], (190, 60, 40), (70, 110, 80)).astype(float)
    image += np.random.default_rng(seed).normal(0, 4, image.shape)
    return image.clip(0, 255).astype(np.uint8), disc


IMAGES = pytest.mark.parametrize(
    "image", [smooth_image(24, 32), smooth_image(32, 24, 1), two_colours(24, 32)], ids=["smooth", "tall", "two colours"]
)


@IMAGES
def test_weak_evidence_is_amplified_as_in_the_dense_crf(image):
    # Near 1/2 the marginals are linear in the evidence. Each iteration multiplies it by about (3 + 10) / 2, so an error
    # of one iteration is raised to the fifth power. The lattice is within about 2 % of its Gaussian, which gives 4 % at
    # the end. Each of the wrong settings below gives 17 % or more.
    probability = (0.5 + 2e-5 * smooth(image.shape[:2], 3, 5)).astype(np.float32)
    expected = explicit_crf(probability, image)
    tolerance = 0.06

    def error(log_odds_HW):
        return np.sqrt(((log_odds_HW / expected - 1) ** 2).mean())

    assert 0.1 < np.abs(expected).max() < 1
    assert error(log_odds(crf.refine(probability, image))) < tolerance
    for wrong in (
        {"iterations": 4}, {"iterations": 6}, {"spatial": 2.5}, {"spatial": 3.5}, {"bilateral": 9}, {"bilateral": 11},
        {"normalise": False},
    ):  # fmt: skip
        assert error(explicit_crf(probability, image, **wrong)) > 2 * tolerance, wrong


@IMAGES
def test_marginals_are_close_to_those_of_the_dense_crf(image):
    probability = (0.02 + 0.96 * smooth(image.shape[:2], 2, 6)).astype(np.float32)
    expected = sigmoid(explicit_crf(probability, image))
    refined = crf.refine(probability, image)
    assert refined.dtype == np.float32
    assert np.abs(refined - expected).mean() < 0.02
    assert ((refined > 0.5) == (expected > 0.5)).mean() > 0.98


def test_permutohedral_filter_approximates_a_gaussian_sum():
    generator = np.random.default_rng(0)
    for image in (smooth_image(24, 32, 2), two_colours(24, 32), smooth_image(40, 7, 3)):
        position, colour = explicit_features(image)
        features = np.concatenate([position / 80, colour / 13], axis=1)
        lattice = crf.permutohedral(crf.position_and_colour(image))
        root = np.sqrt(lattice.filter(np.ones(len(features), dtype=np.float32)))
        kernel = explicit_kernel(features)
        for values in (generator.choice([-1.0, 1.0], len(features)), 2 * smooth(image.shape[:2], 3, 7).ravel() - 1):
            expected = kernel @ values
            found = lattice.filter((values / root).astype(np.float32)) / root
            assert np.sqrt(((found - expected) ** 2).mean()) < 0.045  # of values in [-1, 1]
            assert np.corrcoef(found, expected)[0, 1] > 0.97


def test_permutohedral_filter_has_the_width_of_the_gaussian():
    # The points fill a plane, so that no vertex of the plane is missing. The response to one point has variance 1.
    side = np.arange(-40, 41) / 8
    rows, columns = (axis.ravel() for axis in np.meshgrid(side, side, indexing="ij"))
    for first, second in ((0, 1), (2, 4)):
        features = np.full((5, rows.size), 7.3, dtype=np.float32)
        features[first], features[second] = rows + 0.2, columns - 3.1
        impulse = ((rows == 0) & (columns == 0)).astype(np.float32)
        spread = crf.permutohedral(features).filter(impulse)
        spread /= spread.sum()
        for axis in (rows, columns):
            assert abs((spread * axis).sum()) < 0.1
            assert 0.8 < (spread * axis**2).sum() < 1.2


def test_a_point_is_the_weighted_mean_of_the_vertices_of_its_simplex():
    features = np.random.default_rng(1).normal(0, 9, (5, 500)).astype(np.float32)
    elevated = crf.elevate(features)
    np.testing.assert_allclose(elevated.sum(axis=0), 0, atol=1e-4)
    # Distances are kept up to a scale: squared distances are multiplied by 2/3.
    squared = ((elevated[:, :1] - elevated) ** 2).sum(axis=0)
    np.testing.assert_allclose(squared, 2 / 3 * ((features[:, :1] - features) ** 2).sum(axis=0), rtol=1e-4)

    corner, rank, weight = crf.enclosing_simplex(elevated)
    assert weight.min() >= -1e-5
    np.testing.assert_allclose(weight.sum(axis=1), 1, atol=1e-5)
    assert (np.sort(rank, axis=0) == np.arange(6)[:, None]).all()
    vertices = [6 * corner + k - 6 * (rank >= 6 - k) for k in range(6)]
    for vertex in vertices:
        assert not vertex.sum(axis=0).any()
    mean = sum(weight[:, k] * vertex for k, vertex in enumerate(vertices))
    np.testing.assert_allclose(mean, 6 * elevated, atol=1e-3)


def test_spatial_filter_is_a_gaussian_sum():
    values = smooth((17, 23), 1, 8)
    position, _ = explicit_features(np.zeros((17, 23, 3), dtype=np.uint8))
    expected = (explicit_kernel(position / 3, normalise=False) @ values.ravel()).reshape(values.shape)
    np.testing.assert_allclose(crf.spatial_filter(values) * 2 * np.pi * 9, expected, rtol=2e-3)


def test_an_image_of_one_colour_is_filtered_by_position_only():
    image = np.full((60, 90, 3), (37, 120, 200), dtype=np.uint8)
    values = smooth((60, 90), 6, 9) - 0.5

    def sums(values_HW):
        rows, columns = (np.exp(-((np.subtract.outer(np.arange(n), np.arange(n)) / 80) ** 2) / 2) for n in (60, 90))
        return rows @ values_HW @ columns

    lattice = crf.permutohedral(crf.position_and_colour(image))
    found = lattice.filter(values.ravel()) / lattice.filter(np.ones(values.size, dtype=np.float32))
    expected = sums(values) / sums(np.ones(values.shape))
    np.testing.assert_allclose(found.reshape(values.shape), expected, atol=0.02)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_image_has_the_mirrored_map(axis):
    image, probability = smooth_image(48, 64, 3), smooth((48, 64), 3, 4)
    straight = crf.refine(probability, image)
    mirrored = np.flip(crf.refine(np.flip(probability, axis), np.flip(image, axis)), axis)
    # The lattice has another position relative to the image, so the maps are not equal.
    assert np.abs(straight - mirrored).mean() < 0.05
    assert ((straight > 0.5) == (mirrored > 0.5)).mean() > 0.95
    assert np.abs(straight - mirrored[::-1, ::-1]).mean() > 0.1


def test_swapped_labels_have_the_complement():
    image = smooth_image(30, 40, 4)
    probability = smooth((30, 40), 3, 5)
    np.testing.assert_allclose(crf.refine(1 - probability, image), 1 - crf.refine(probability, image), atol=1e-5)


def test_a_probability_of_one_half_is_unchanged():
    image = smooth_image(30, 40, 5)
    np.testing.assert_array_equal(crf.refine(np.full((30, 40), 0.5, dtype=np.float32), image), 0.5)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (8, 8), (2, 3)])
def test_small_images_and_certain_pixels_have_finite_results(size):
    image = smooth_image(*size, 6) if min(size) > 1 else np.full((*size, 3), 90, dtype=np.uint8)
    for value in (0.0, 1.0):
        refined = crf.refine(np.full(size, value, dtype=np.float32), image)
        assert refined.shape == size
        np.testing.assert_allclose(refined, value, atol=1e-4)


def test_neighbours_can_change_the_label_of_a_certain_pixel():
    # Its unary term is log 1e-5 = -11.5 and not infinite. The pairwise terms are at most 3 + 10.
    image = np.full((12, 12, 3), 90, dtype=np.uint8)
    probability = np.full((12, 12), 0.9, dtype=np.float32)
    probability[5, 6] = 0
    expected = explicit_crf(probability, image)
    assert 1 < expected[5, 6] < 2
    np.testing.assert_allclose(log_odds(crf.refine(probability, image))[5, 6], expected[5, 6], atol=0.2)


def test_nan_counts_as_zero():
    image, disc = disc_on_ground(40, 50)
    probability = np.where(disc, 0.8, 0.2).astype(np.float32)
    without = probability.copy()
    probability[3:6, 4:20], without[3:6, 4:20] = np.nan, 0
    np.testing.assert_array_equal(crf.refine(probability, image), crf.refine(without, image))
    assert not crf.refine(np.full((40, 50), np.nan, dtype=np.float32), image).round(3).any()


def test_refinement_of_a_noisy_disc_recovers_the_disc():
    image, disc = disc_on_ground(90, 120)
    noise = np.random.default_rng(7).normal(0, 0.25, disc.shape)
    blurred = cv2.GaussianBlur(disc.astype(np.float32), (0, 0), 6)
    probability = np.clip(0.2 + 0.6 * blurred + noise, 0, 1).astype(np.float32)
    refined = crf.refine(probability, image)
    assert overlap(probability > 0.5, disc) < 0.8
    assert overlap(refined > 0.5, disc) > 0.97


def test_refinement_is_deterministic_and_does_not_change_its_input():
    image, disc = disc_on_ground(50, 60)
    probability = smooth(disc.shape, 3, 8)
    kept_probability, kept_image = probability.copy(), image.copy()
    assert crf.refine(probability, image).tobytes() == crf.refine(probability, image).tobytes()
    np.testing.assert_array_equal(probability, kept_probability)
    np.testing.assert_array_equal(image, kept_image)


@pytest.mark.parametrize(
    ("probability", "image"),
    [
        (np.zeros((4, 5), np.float32), np.zeros((5, 4, 3), np.uint8)),
        (np.zeros((4, 5, 1), np.float32), np.zeros((4, 5, 3), np.uint8)),
        (np.zeros((4, 5), np.float32), np.zeros((4, 5, 3), np.float32)),
        (np.zeros((4, 5), np.float32), np.zeros((4, 5), np.uint8)),
        (np.zeros((0, 5), np.float32), np.zeros((0, 5, 3), np.uint8)),
    ],
)
def test_wrong_shapes_are_refused(probability, image):
    with pytest.raises(ValueError, match=r"image_HWC\.shape"):
        crf.refine(probability, image)


@pytest.mark.parametrize("seed", range(3))
def test_an_image_of_half_the_size_has_the_same_refinement(seed):
    generator = np.random.default_rng(seed)
    image = cv2.resize(
        generator.integers(0, 256, (6, 8, 3)).astype(np.uint8), (192, 144), interpolation=cv2.INTER_CUBIC
    )
    probability = cv2.resize(generator.random((6, 8)).astype(np.float32), (192, 144)).clip(0, 1)

    def halved(array):
        return cv2.resize(array, (96, 72), interpolation=cv2.INTER_AREA)

    whole = halved(crf.refine(probability, image))
    half, unscaled = (crf.refine(halved(probability), halved(image), scale) for scale in (0.5, 1.0))
    assert np.abs(half - whole).mean() < 0.03
    assert np.abs(half - whole).mean() < 0.5 * np.abs(unscaled - whole).mean()
