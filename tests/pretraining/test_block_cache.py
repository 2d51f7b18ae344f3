"""Oracle: the bytes of a file that the test wrote, and the requests that its store counted."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import counted_store
import numpy as np
import pytest

from previts.pretraining.block_cache import BLOCK, BlockCache

DATA = bytes(number % 251 for number in range(3 * BLOCK + 100))
LARGE = 100 * BLOCK


@pytest.fixture
def store(tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    counted_store.REQUESTS.clear()
    return f"counted://{tmp_path}/file"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def taken(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "used")


def check(cache, store, ranges):
    """Read ranges, compare them with the file, and return the number of requests."""
    before = counted_store.REQUESTS["read"]
    assert cache.read_ranges(store, *zip(*ranges, strict=True)) == [DATA[start:stop] for start, stop in ranges]
    return counted_store.REQUESTS["read"] - before


def test_a_block_is_requested_once(store, folder):
    cache = BlockCache(str(folder), LARGE, "1")
    assert check(cache, store, [(5, 10), (20, 30)]) == 1
    assert check(cache, store, [(0, BLOCK)]) == 0
    assert check(cache, store, [(BLOCK - 5, 2 * BLOCK + 5)]) == 2  # the second and the third
    assert check(cache, store, [(3 * BLOCK - 1, 3 * BLOCK + 100), (0, 3 * BLOCK + 100)]) == 1
    assert check(BlockCache(str(folder), LARGE, "1"), store, [(0, len(DATA))]) == 0
    assert taken(folder) == len(DATA)


def test_another_version_of_a_file_is_requested_again(store, folder):
    check(BlockCache(str(folder), LARGE, "1"), store, [(0, 10)])
    assert check(BlockCache(str(folder), LARGE, "2"), store, [(0, 10)]) == 1


def test_the_first_blocks_stay_within_the_size_also_with_many_readers(store, folder):
    ranges = [(start, start + 5) for start in np.random.default_rng(0).permutation(3 * BLOCK).tolist()[:200]]
    with ThreadPoolExecutor(8) as pool:
        caches = [BlockCache(str(folder), 2 * BLOCK + 5, "1") for _ in range(8)]
        list(pool.map(lambda cache: check(cache, store, ranges), caches))
    assert BLOCK <= taken(folder) <= 2 * BLOCK + 5
    kept = check(BlockCache(str(folder), 2 * BLOCK + 5, "1"), store, [(n * BLOCK, n * BLOCK + 5) for n in range(3)])
    assert kept == 3 - taken(folder) // BLOCK


def test_a_shortened_block_is_requested_again(store, folder):
    cache = BlockCache(str(folder), LARGE, "1")
    check(cache, store, [(0, 10)])
    (block,) = [path for path in folder.rglob("*") if path.is_file() and path.name != "used"]
    os.truncate(block, 4)
    assert check(cache, store, [(0, 4)]) == 0
    assert check(cache, store, [(0, 10)]) == 1


def test_a_folder_that_is_lost_or_a_file_in_its_place_only_costs_requests(store, folder):
    cache = BlockCache(str(folder), LARGE, "1")
    shutil.rmtree(folder)
    assert check(cache, store, [(0, 10)]) == 1
    shutil.rmtree(folder)
    folder.write_text("")
    assert check(cache, store, [(0, 10)]) == 1


def test_a_damaged_count_leaves_no_room(store, folder):
    (folder / "used").write_bytes(b"12\0\0")
    assert check(BlockCache(str(folder), LARGE, "1"), store, [(0, 10)]) == 1
    assert taken(folder) == 0


def test_a_missing_file_is_an_error(store, folder):
    with pytest.raises(FileNotFoundError, match="missing"):
        BlockCache(str(folder), LARGE, "1").read_ranges(store + "-missing", [0], [1])
