"""Oracle: the recipe of Xiao et al. written out pixel by pixel."""

import numpy as np
import pytest

from previts.errors import InputError
from previts.media import variants
from previts.media.variants import MIXED, VARIANTS


def by_pixel(variant: str, image: np.ndarray, mask: np.ndarray, back: np.ndarray | None = None) -> np.ndarray:
    """Return a variant by the recipe of Xiao et al., in loops over the pixels."""
    height, width = mask.shape
    ys = [y for y in range(height) if mask[y].any()]
    xs = [x for x in range(width) if mask[:, x].any()]
    top, bottom, left, right = (ys[0], ys[-1] + 1, xs[0], xs[-1] + 1) if ys else (0, 0, 0, 0)
    areas = [top * width, (height - bottom) * width, left * height, (width - right) * height]
    side = areas.index(max(areas))
    result = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            inside = top <= y < bottom and left <= x < right
            match variant:
                case "original":
                    result[y, x] = image[y, x]
                case "only_fg":
                    result[y, x] = image[y, x] if mask[y, x] else 0
                case "no_fg":
                    result[y, x] = 0 if mask[y, x] else image[y, x]
                case "only_bg_b":
                    result[y, x] = 0 if inside else image[y, x]
                case "only_bg_t":
                    if not inside or not areas[side]:
                        result[y, x] = 0 if inside else image[y, x]
                    elif side == 0:
                        result[y, x] = image[(y - top) % top, x]
                    elif side == 1:
                        result[y, x] = image[bottom + (y - top) % (height - bottom), x]
                    elif side == 2:
                        result[y, x] = image[y, (x - left) % left]
                    else:
                        result[y, x] = image[y, right + (x - left) % (width - right)]
                case _:
                    assert back is not None
                    result[y, x] = image[y, x] if mask[y, x] else back[y, x]
    return result


def images_and_masks(count: int = 40) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return images with objects of any shape and place; the first mask is empty, the second spans the image."""
    rng, found = np.random.default_rng(3), []
    for number in range(count):
        height, width = rng.integers(4, 14, 2)
        image = rng.integers(1, 256, (height, width, 3), dtype=np.uint8)
        y, x = rng.integers(height), rng.integers(width)
        mask = np.zeros((height, width), bool)
        mask[y : y + rng.integers(1, height), x : x + rng.integers(1, width)] = True
        mask &= rng.random((height, width)) < 0.7
        if number == 0:
            mask[...] = False
        elif number == 1:
            mask[0, 0] = mask[-1, -1] = True
        found.append((image, mask))
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_equals_the_recipe_pixel_by_pixel(variant: str):
    for image, mask in images_and_masks():
        before = image.copy()
        back = np.random.default_rng(1).integers(0, 256, image.shape, dtype=np.uint8)
        np.testing.assert_array_equal(variants.vary(variant, image, mask, back), by_pixel(variant, image, mask, back))
        np.testing.assert_array_equal(image, before)


def test_foreground_and_background_add_up_to_the_image():
    for image, mask in images_and_masks():
        np.testing.assert_array_equal(variants.only_fg(image, mask) + variants.no_fg(image, mask), image)


def test_a_background_of_another_size_is_scaled_to_the_image():
    image, mask = np.full((8, 12, 3), 200, np.uint8), np.zeros((8, 12), bool)
    mask[2:4, 2:4] = True
    back = np.zeros((16, 16, 3), np.uint8)
    back[:, 8:] = 90
    mix = variants.mixed(image, mask, back)
    assert mix.shape == image.shape
    assert (mix[mask] == 200).all()
    assert (mix[:, :2] == 0).all()
    assert (mix[:, 8:] == 90).all()


def clip(frames: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = np.zeros((frames, 6, 8), bool)
    for t in range(frames):
        masks[t, t % 4 : t % 4 + 2, t % 5 : t % 5 + 3] = True
    return rng.integers(1, 256, (frames, 6, 8, 3), dtype=np.uint8), masks


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_clip_is_varied_frame_by_frame_and_a_short_background_is_repeated(variant: str):
    frames, masks = clip(7, 0)
    masks[3] = False  # out of sight
    behind = variants.vary_clip("only_bg_t", *clip(3, 1))
    varied = variants.vary_clip(variant, frames, masks, behind)
    for t in range(7):
        np.testing.assert_array_equal(varied[t], by_pixel(variant, frames[t], masks[t], behind[t % 3]))
    # With the object out of sight, there is no foreground and the background is unchanged.
    expected = {"only_fg": np.zeros_like(frames[3]), **dict.fromkeys(MIXED, behind[0])}.get(variant, frames[3])
    np.testing.assert_array_equal(varied[3], expected)


def test_empty_masks_and_masks_that_span_the_frame_are_counted():
    masks = np.zeros((5, 4, 6), bool)
    masks[1, 0, 0] = masks[1, 3, 5] = True
    masks[2] = True
    masks[3, 1:3, :] = True
    assert variants.oddities(masks) == variants.Oddities(frames=5, empty=2, spanned=2)
    assert variants.oddities(masks) + variants.Oddities(1, 1, 0) == variants.Oddities(6, 3, 2)


def test_masks_of_another_shape_and_unknown_variants_are_refused():
    frames, masks = clip(4, 0)
    with pytest.raises(ValueError, match="needs a mask of its size"):
        variants.vary_clip("only_fg", frames, masks[:3])
    with pytest.raises(ValueError, match="only_fg"):
        variants.vary("only_foreground", frames[0], masks[0])
    with pytest.raises(ValueError, match="another image"):
        variants.vary("mixed_rand", frames[0], masks[0])


LABELS = [0, 0, 0, 2, 2, 2, 2, 5, 5]  # the classes 1, 3 and 4 are empty
KEYS = [f"clip{number}" for number in range(9)]


def test_partners_are_from_the_class_that_the_variant_defines():
    after = {0: 2, 2: 5, 5: 0}
    seen = set()
    for seed in range(60):
        for place, other in enumerate(variants.partners("mixed_same", LABELS, KEYS, seed)):
            assert LABELS[other] == LABELS[place]
            assert other != place
        for place, other in enumerate(variants.partners("mixed_next", LABELS, KEYS, seed)):
            assert LABELS[other] == after[LABELS[place]]
        seen |= {
            (place, LABELS[other]) for place, other in enumerate(variants.partners("mixed_rand", LABELS, KEYS, seed))
        }
    assert seen == {(place, label) for place in range(9) for label in (0, 2, 5)}


def test_mixed_rand_draws_each_class_equally_often_whatever_its_size():
    labels, keys = [0] * 30 + [1] * 3, [str(number) for number in range(33)]
    drawn = [labels[other] for seed in range(40) for other in variants.partners("mixed_rand", labels, keys, seed)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("variant", MIXED)
def test_partners_depend_on_the_seed_but_not_on_the_order_of_the_list(variant: str):
    chosen = variants.partners(variant, LABELS, KEYS, 4)
    assert chosen == variants.partners(variant, LABELS, KEYS, 4)
    assert any(chosen != variants.partners(variant, LABELS, KEYS, seed) for seed in (5, 6, 7))
    order = np.random.default_rng(0).permutation(9)
    shuffled = variants.partners(variant, [LABELS[i] for i in order], [KEYS[i] for i in order], 4)
    assert {KEYS[order[place]]: KEYS[order[other]] for place, other in enumerate(shuffled)} == {
        KEYS[place]: KEYS[other] for place, other in enumerate(chosen)
    }


def test_an_image_without_a_partner_is_named():
    with pytest.raises(InputError, match="clip3 is alone in its class"):
        variants.partners("mixed_same", [0, 0, 0, 1], KEYS[:4], 0)
    with pytest.raises(InputError, match="clip0 is in the only class"):
        variants.partners("mixed_next", [3, 3], KEYS[:2], 0)
    with pytest.raises(ValueError, match="does not mix"):
        variants.partners("only_fg", [3, 3], KEYS[:2], 0)
