"""Oracles: the masks before they are packed, and damage to each byte."""

import numpy as np
import pytest

from previts.corpus import tube_layout
from previts.media.masks import encode_rle


@pytest.fixture(scope="module")
def blob():
    """A tube of three masks of 5 x 7 pixels on six frames; the third frame is empty."""
    return tube_layout.pack(5, 7, [encode_rle(mask) for mask in masks()], [0, 0, -1, 2, 1, 1])


def masks():
    generator = np.random.default_rng(0)
    return [generator.random((5, 7)) < share for share in (0.2, 0.5, 0.8)]


def test_a_packed_tube_unpacks_to_its_masks(blob):
    packed = tube_layout.unpack(blob)
    assert (packed.height, packed.width, packed.num_masks) == (5, 7, 3)
    assert packed.frame_keys.tolist() == [0, 0, -1, 2, 1, 1]
    assert [packed.counts(key).tolist() for key in range(3)] == [encode_rle(mask) for mask in masks()]
    first, second, third = masks()
    empty = np.zeros((5, 7), bool)
    np.testing.assert_array_equal(packed.masks(range(6)), [first, first, empty, third, second, second])
    one, other = packed.masks([5, 4])
    assert one is other


def test_a_tube_without_masks_is_packed():
    packed = tube_layout.unpack(tube_layout.pack(4, 6, [], [-1, -1]))
    assert packed.num_masks == 0
    np.testing.assert_array_equal(packed.masks([1]), np.zeros((1, 4, 6), bool))


def test_the_masks_fill_the_end_of_the_blob(blob):
    stops = tube_layout.unpack(blob).stops
    assert stops[-1] == len(blob)
    assert (np.diff(stops) > 0).all()


def test_frames_outside_the_video_are_refused(blob):
    for frame in (-1, 6):
        with pytest.raises(ValueError, match=r"must be in \[0, 6\)"):
            tube_layout.unpack(blob).masks([0, frame])


def test_damage_to_any_byte_is_found(blob):
    for place in range(len(blob)):
        damaged = bytearray(blob)
        damaged[place] ^= 0xFF
        with pytest.raises(tube_layout.DamagedError, match="tube"):
            tube_layout.unpack(bytes(damaged)).masks(range(6))


@pytest.mark.parametrize("size", [0, 3, 10, 40, -5, -1])
def test_a_blob_that_is_cut_short_is_refused(blob, size):
    with pytest.raises(tube_layout.DamagedError, match="tube"):
        tube_layout.unpack(blob[:size])


def test_bytes_after_the_tube_are_refused(blob):
    with pytest.raises(tube_layout.DamagedError, match="expected"):
        tube_layout.unpack(blob + b"x")
