"""Oracles: the masks from which a tube is made, and numbers counted over them."""

import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from previts.corpus import tube_layout, tube_table
from previts.corpus.tube_table import Tube, TubeRecord
from previts.errors import InputError
from previts.media.masks import encode_rle
from previts.storage import files, tables


def random_tube(generator):
    """Return a tube and its masks; frames have random masks or none."""
    height, width = (int(side) for side in generator.integers(1, 40, size=2))
    masks = [generator.random((height, width)) < generator.random() for _ in range(generator.integers(0, 6))]
    frame_keys = generator.integers(-1, len(masks), size=generator.integers(1, 30)).tolist()
    return Tube(height, width, [encode_rle(mask) for mask in masks], frame_keys), masks


def three_masks():
    """Return a tube of three frames with a mask each."""
    generator = np.random.default_rng(2)
    return Tube(6, 9, [encode_rle(generator.random((6, 9)) < 0.5) for _ in range(3)], [0, 1, 2])


def test_the_masks_of_a_tube_are_those_it_is_made_of():
    generator = np.random.default_rng(0)
    for _ in range(200):
        tube, masks = random_tube(generator)
        assert Tube.from_bytes(tube.to_bytes()) == tube
        frames = generator.integers(0, len(tube.frame_keys), size=7).tolist()
        empty = np.zeros((tube.height, tube.width), bool)
        expected = [masks[tube.frame_keys[frame]] if tube.frame_keys[frame] >= 0 else empty for frame in frames]
        np.testing.assert_array_equal(tube.masks(frames), np.stack(expected))
        np.testing.assert_array_equal(tube.mask(frames[0]), expected[0])


def test_the_numbers_of_a_tube_are_those_counted_over_its_masks():
    generator = np.random.default_rng(1)
    for _ in range(100):
        tube, masks = random_tube(generator)
        visible = [key >= 0 for key in tube.frame_keys]
        assert tube.tracked_frames() == sum(visible) == sum(stop - start for start, stop in tube.spans())
        inside = [any(start <= frame < stop for start, stop in tube.spans()) for frame in range(len(visible))]
        assert inside == visible
        assert all(a[1] < b[0] for a, b in zip(tube.spans(), tube.spans()[1:], strict=False))
        shares = [masks[key].mean() for key in tube.frame_keys if key >= 0]
        assert tube.mean_area() == pytest.approx(np.mean(shares) if shares else 0)
        touching = [mask[[0, -1]].any() or mask[:, [0, -1]].any() for mask in masks]
        assert tube.border_share() == pytest.approx(np.mean(touching) if touching else 0)
        lost = [frame for frame in range(len(visible)) if not any(visible[frame:])]
        assert tube.lost_frame() == (lost[0] if lost else None)


def test_frames_outside_the_video_are_refused():
    tube = three_masks()
    for frame in (-1, 3):
        with pytest.raises(ValueError, match=r"must be in \[0, 3\)"):
            tube.mask(frame)
    assert tube.masks([]).shape == (0, 6, 9)


def place(shard: int, offset: int, size: int, crc: int, tube: tube_table.Tube | None = None) -> SimpleNamespace:
    """Return the columns of a row that say where a tube is stored, and how large its video is."""
    shape = (tube.height, tube.width, len(tube.frame_keys)) if tube else (6, 9, 3)
    names = ("shard", "tube_offset", "tube_size", "tube_crc", "height", "width", "num_frames")
    return SimpleNamespace(**dict(zip(names, (shard, offset, size, crc, *shape), strict=True)))


@pytest.fixture
def stored(tmp_path):
    """A shard with two tubes: its folder, the tubes and the rows."""
    generator = np.random.default_rng(3)
    tubes = [random_tube(generator)[0] for _ in range(2)]
    blobs = [tube.to_bytes() for tube in tubes]
    places = [(0, len(blobs[0]), zlib.crc32(blobs[0])), (len(blobs[0]), len(blobs[1]), zlib.crc32(blobs[1]))]
    rows = [TubeRecord(f"v{n}", "tracked", 1, [[0, 1]], 0.5, *places[n], None, 0.0, None) for n in (0, 1)]
    uri = str(tmp_path)
    assert not tube_table.is_done(uri, 4)
    files.write_bytes(files.join(uri, tube_table.blob_name(4)), b"".join(blobs))
    tables.write_records(files.join(uri, tables.table_name(4)), TubeRecord, rows)
    return uri, tubes, rows


def test_a_stored_shard_is_read_back(stored):
    uri, tubes, rows = stored
    assert tube_table.is_done(uri, 4)
    assert not tube_table.is_done(uri, 3)
    assert tube_table.read_shard(uri, 4) == rows
    for tube, row in zip(tubes, rows, strict=True):
        assert tube_table.read_tube(uri, place(4, row.offset, row.size, row.crc, tube)) == tube
        frames = [len(tube.frame_keys) - 1, 0]
        masks = tube_table.read_masks(uri, place(4, row.offset, row.size, row.crc, tube), frames)
        np.testing.assert_array_equal(masks, tube.masks(frames))


def test_a_damaged_tube_is_named_with_what_to_do(stored):
    uri, tubes, rows = stored
    blob_uri = files.join(uri, tube_table.blob_name(4))
    damaged = bytearray(files.read_bytes(blob_uri))
    damaged[rows[1].offset + 40] ^= 1
    files.write_bytes(blob_uri, bytes(damaged))
    assert tube_table.read_tube(uri, place(4, rows[0].offset, rows[0].size, rows[0].crc, tubes[0])) == tubes[0]
    with pytest.raises(tube_table.DamagedTubeError, match=r"the bytes differ.*run `previts track` again"):
        tube_table.read_tube(uri, place(4, rows[1].offset, rows[1].size, rows[1].crc, tubes[1]))


def test_a_missing_blob_file_is_named_with_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"shard-00001\.tubes is missing; .*run `previts track` again"):
        tube_table.read_tube(str(tmp_path), place(1, 0, 10, 0))
    with pytest.raises(InputError, match="missing"):
        tube_table.read_masks(str(tmp_path), place(1, 0, 10, 0), [0])
    (tmp_path / "shard-00001.tubes").mkdir()
    with pytest.raises(InputError, match=r"shard-00001\.tubes is a folder, expected a file; .*`previts track` again"):
        tube_table.read_tube(str(tmp_path), place(1, 0, 10, 0))


@pytest.mark.parametrize("number", range(3))
def test_damage_in_any_mask_and_another_tube_of_the_same_size_are_found(tmp_path, number):
    tube = three_masks()
    blob = tube.to_bytes()
    stops = tube_layout.unpack(blob).stops
    row = str(tmp_path), place(0, 3, len(blob), zlib.crc32(blob), tube)
    path = tmp_path / tube_table.blob_name(0)
    path.write_bytes(b"..." + blob)
    first, last, again = tube_table.read_masks(*row, [0, 2, 0])
    np.testing.assert_array_equal([first, last], tube.masks([0, 2]))
    assert again is first
    with pytest.raises(ValueError, match=r"must be in \[0, 3\)"):
        tube_table.read_masks(*row, [3])
    damaged = bytearray(blob)
    damaged[(stops[number] + stops[number + 1]) // 2] ^= 1
    path.write_bytes(b"..." + damaged)
    with pytest.raises(InputError, match=r"bytes 3 to .*differ.*previts track"):
        tube_table.read_masks(*row, [0])
    other = tube_table.Tube(tube.height, tube.width, tube.key_counts, tube.frame_keys[::-1]).to_bytes()
    assert len(other) == len(blob)
    assert tube_layout.unpack(other).num_masks == 3
    path.write_bytes(b"..." + other)
    with pytest.raises(InputError, match=r"bytes 3 to .*differ.*previts track"):
        tube_table.read_masks(*row, [0])


@pytest.mark.parametrize("name", ["height", "width", "num_frames"])
def test_a_tube_of_another_size_or_length_than_its_row_says_is_damaged(tmp_path, name):
    tube = three_masks()
    blob = tube.to_bytes()
    (tmp_path / tube_table.blob_name(0)).write_bytes(blob)
    row = place(0, 0, len(blob), zlib.crc32(blob), tube)
    assert tube_table.read_tube(str(tmp_path), row) == tube
    setattr(row, name, getattr(row, name) + 1)
    for read in (
        lambda: tube_table.read_tube(str(tmp_path), row),
        lambda: tube_table.read_masks(str(tmp_path), row, [0]),
    ):
        with pytest.raises(tube_table.DamagedTubeError, match=r"it has \(height, width, frames\) .*its row says"):
            read()
