"""All handcrafted priors. Oracles: known objects, invariances, a centred blob on real photographs."""

import cv2
import numpy as np
import pytest
from disc_images import disc_image, overlap
from threadpoolctl import threadpool_limits

from previts.config.perception import PRIORS
from previts.saliency.priors import mean_agreement, prior_map, prior_maps
from previts.saliency.superpixels import inside_bars

pytestmark = pytest.mark.filterwarnings("error")
every_prior = pytest.mark.parametrize("name", PRIORS)


@every_prior
@pytest.mark.parametrize(("height", "width"), [(256, 456), (128, 170), (456, 256)])
def test_the_object_of_an_image_is_found(name, height, width):
    image, disc = disc_image(height, width)
    saliency = prior_map(name, image)
    assert saliency.shape == (height, width)
    assert saliency.dtype == np.float32
    assert saliency.min() >= 0
    assert saliency.max() <= 1
    assert overlap(saliency > 0.5, disc) > 0.85
    assert saliency[disc].mean() > 0.75
    assert saliency[~disc].mean() < 0.1


@every_prior
def test_a_region_along_the_border_is_background(name):
    image, disc = disc_image(240, 320)
    image[:, :70] = image[disc].mean(axis=0)  # as red as the disc, but along the whole left edge
    saliency = prior_map(name, image)
    assert saliency[disc].mean() > 0.8
    assert saliency[:, :60].mean() < 0.1


@every_prior
def test_a_mirrored_image_has_mirrored_saliency(name):
    image, disc = disc_image(240, 320)
    mirrored = prior_map(name, np.ascontiguousarray(image[:, ::-1]))[:, ::-1]
    assert overlap(mirrored > 0.5, disc) > 0.85
    assert np.abs(mirrored - prior_map(name, image)).mean() < 0.02  # SLIC and ties go from left to right


@every_prior
@pytest.mark.parametrize(("rows", "columns"), [((30, 30), (0, 0)), ((0, 0), (60, 60)), ((9, 14), (20, 11))])
def test_bars_are_removed_and_never_salient(name, rows, columns):
    image, disc = disc_image(200, 320)
    around = (rows, columns)
    framed = np.pad(image, (*around, (0, 0)), constant_values=3)
    inside = inside_bars(framed)
    for found, (before, after), length in zip(inside, around, framed.shape[:2], strict=True):
        # Two pixels next to a bar are removed with it: encoders blur its edge.
        assert found.start in ((before, before + 2) if before else (0,))
        assert found.stop in ((length - after - 2, length - after) if after else (length,))
    saliency = prior_map(name, framed)
    outside = np.pad(np.zeros(disc.shape, bool), around, constant_values=True)
    assert saliency[outside].max() == 0
    assert overlap(saliency > 0.5, np.pad(disc, around)) > 0.8


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 40), (40, 1), (2, 2), (5, 7), (8, 8), (9, 300), (16, 16), (33, 21), (240, 426)]
)
def test_any_image_has_a_valid_map(size):
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
        for saliency in prior_maps(pixels).values():
            assert saliency.shape == size
            assert saliency.dtype == np.float32
            assert np.isfinite(saliency).all()
            assert saliency.min() >= 0
            assert saliency.max() <= 1


@every_prior
def test_no_pixel_of_an_even_image_is_salient(name):
    assert not prior_map(name, np.full((120, 160, 3), 77, np.uint8)).any()


@every_prior
def test_the_same_image_has_the_same_map(name):
    image, _ = disc_image(240, 320, noise=30)
    np.testing.assert_array_equal(prior_map(name, image), prior_map(name, image.copy()))


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_other_arrays_are_refused(image):
    with pytest.raises(ValueError, match="uint8 RGB"):
        prior_map("rbd", image)


def test_an_unknown_prior_is_refused_with_the_list_of_priors():
    with pytest.raises(ValueError, match=r"'gs'.*rbd, mc"):
        prior_map("gs", np.zeros((8, 8, 3), np.uint8))


def test_maps_computed_together_equal_those_computed_alone():
    image, _ = disc_image(120, 200, noise=20)
    together = prior_maps(image, tuple(reversed(PRIORS)))
    assert list(together) == list(reversed(PRIORS))
    for name, saliency in together.items():
        np.testing.assert_array_equal(saliency, prior_map(name, image))


def test_agreement_is_one_for_equal_maps_and_zero_for_disjoint_ones():
    left, right = np.zeros((2, 6, 8), np.float32)
    left[:, :4], right[:, 4:] = 1, 1
    assert mean_agreement({"a": left, "b": left, "c": left}) == 1
    assert mean_agreement({"a": left, "b": right}) == 0
    assert mean_agreement({"a": left, "b": left, "c": right}) == pytest.approx(1 / 3)
    assert mean_agreement({"a": left * 0, "b": left * 0}) == 0


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


def test_every_prior_of_real_photographs_is_far_better_than_a_centred_blob(real_data):
    paths = sorted((real_data / "saliency" / "images").iterdir())[::5]
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
    masks = [cv2.imread(str(real_data / "saliency" / "masks" / f"{path.stem}.png"), 0) > 127 for path in paths]
    blobs = []
    for mask in masks:
        rows, columns = np.mgrid[-1 : 1 : mask.shape[0] * 1j, -1 : 1 : mask.shape[1] * 1j]
        blobs.append(np.exp(-(rows**2 + columns**2) / (2 * 0.5**2)))
    with threadpool_limits(limits=1, user_api="blas"):
        maps = [prior_maps(image) for image in images]
    for name in PRIORS:
        assert max_f([found[name] for found in maps], masks) > max_f(blobs, masks) + 0.05, name
