"""Oracles: the masks from which rows are made."""

import numpy as np
import pytest

from previts.corpus import region_table
from previts.corpus.region_table import SaliencyRecord
from previts.errors import InputError
from previts.media.masks import encode_rle
from previts.storage import files, tables


def test_the_masks_of_a_row_are_its_regions():
    generator = np.random.default_rng(0)
    for count in (0, 1, 3):
        masks = generator.random((count, 6, 9)) < 0.5
        row = SaliencyRecord("a", 0, 6, 9, [encode_rle(mask) for mask in masks], None)
        assert row.masks().dtype == np.bool_
        np.testing.assert_array_equal(row.masks(), masks)


def test_a_stored_shard_is_read_back_in_its_order(tmp_path):
    uri = str(tmp_path)
    rows = [
        SaliencyRecord("b", 0, 2, 3, [[1, 5]], 0.25),
        SaliencyRecord("b", 5, 2, 3, [], None),
        SaliencyRecord("a", 0, 4, 4, [[0, 16], [3, 13]], None),
    ]
    assert not region_table.is_done(uri, 2)
    tables.write_records(files.join(uri, tables.table_name(2)), SaliencyRecord, rows)
    assert region_table.is_done(uri, 2)
    assert region_table.read_shard(uri, 2) == rows
    with pytest.raises(InputError, match=r"shard-00003\.parquet is missing"):
        region_table.read_shard(uri, 3)
