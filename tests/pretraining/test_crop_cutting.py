import numpy as np
import pytest

from previts.media.frame_decoder import Planes
from previts.pretraining import crop_cutting

HEIGHT, WIDTH = 60, 100


def ramp(height, width, across, down):
    rows, columns = np.mgrid[:height, :width]
    return (across * columns + down * rows).astype(np.uint8)


def test_crops_grow_to_even_pixels():
    assert crop_cutting.even_crop((3, 4, 8, 9)) == (2, 4, 8, 10)
    assert crop_cutting.even_crop((0, 1, 99, 60)) == (0, 0, 100, 60)


@pytest.mark.parametrize("crop", [(0, 0, 100, 60), (10, 20, 58, 52), (40, 6, 60, 16)])
@pytest.mark.parametrize("size", [32, 40])
def test_planes_are_cut_at_the_same_place_into_i420(crop, size):
    # A resized ramp is a ramp, so the value of a pixel shows its place in the source.
    y, u, v = ramp(HEIGHT, WIDTH, 2, 0), ramp(HEIGHT // 2, WIDTH // 2, 0, 4), ramp(HEIGHT // 2, WIDTH // 2, 4, 0)
    # as a decoder returns them: rows are padded
    padded = (np.pad(plane, ((0, 0), (0, 28)))[:, : plane.shape[1]] for plane in (y, u, v))
    image_RS = np.empty((size * 3 // 2, size), np.uint8)
    crop_cutting.crop_frame(Planes(*padded, 6), crop, image_RS)
    left, top, right, bottom = crop
    half = size // 2
    chroma = image_RS[size:].reshape(2, half, half)

    def places(start, stop, number):
        """Return the centres of `number` pixels over [start, stop), clipped to the centres of the source."""
        centres = start + (np.arange(number) + 0.5) * (stop - start) / number - 0.5
        return np.clip(centres, start, stop - 1)

    def close(got, expected):
        assert np.abs(got.astype(float) - expected).max() <= 2

    close(image_RS[:size], np.broadcast_to(2 * places(left, right, size), (size, size)))
    close(chroma[0], np.broadcast_to(4 * places(top // 2, bottom // 2, half)[:, None], (half, half)))
    close(chroma[1], np.broadcast_to(4 * places(left // 2, right // 2, half), (half, half)))


def test_masks_are_cut_where_their_frames_are():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:40, 30:60] = True
    same_TSS, large_TSS = np.empty((3, 60, 60), bool), np.empty((1, 120, 120), bool)
    crop_cutting.crop_masks([mask, mask.copy(), mask], (20, 0, 80, 60), same_TSS)
    assert np.array_equal(same_TSS, [mask[:, 20:80]] * 3)
    crop_cutting.crop_masks([mask], (20, 0, 80, 60), large_TSS)
    assert np.array_equal(large_TSS[0], mask[:, 20:80].repeat(2, 0).repeat(2, 1))


def test_the_placeholder_is_grey():
    clip = np.zeros((2, 48, 32), np.uint8)
    crop_cutting.fill_grey(clip)
    assert (clip[:, :32] == 124).all()
    assert (clip[:, 32:] == 128).all()
