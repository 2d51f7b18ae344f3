"""Oracle: the bytes of a file that the test wrote, and the requests that its store counted."""

from concurrent.futures import ThreadPoolExecutor

import counted_store
import pytest

from previts.pretraining import read_ahead
from previts.pretraining.read_ahead import MAX_GAP
from previts.storage.files import Ranges

DATA = bytes(number % 251 for number in range(3 * MAX_GAP))


@pytest.fixture
def store(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(DATA)
    monkeypatch.setattr(counted_store, "LATENCY", 0.01)
    counted_store.REQUESTS.clear()
    return f"counted://{tmp_path}/file"


@pytest.mark.parametrize(
    ("ranges", "requests"),
    [
        ([(0, 10), (20, 30)], 1),
        ([(0, 10), (10 + MAX_GAP, 20 + MAX_GAP)], 1),
        ([(0, 10), (11 + MAX_GAP, 20 + MAX_GAP)], 2),
        ([(50, 60), (0, 100), (40, 55)], 1),  # within each other
        ([(7, 7), (7, 9)], 1),
    ],
)
def test_near_ranges_are_one_request_and_every_range_has_its_bytes(store, ranges, requests):
    wanted = [Ranges(store, [start], [stop]) for start, stop in ranges]
    with ThreadPoolExecutor(4) as pool:
        read = read_ahead.request(wanted, pool)
        for start, stop in reversed(ranges):
            assert read(store, [start], [stop]) == [DATA[start:stop]]
        starts, stops = zip(*ranges, strict=True)
        assert read(store, starts, stops) == [DATA[start:stop] for start, stop in ranges]
    assert counted_store.REQUESTS["read"] == requests
    assert not counted_store.REQUESTS["in turn"]


def test_a_request_has_at_most_a_block_and_every_range_has_its_bytes(store, monkeypatch):
    monkeypatch.setattr(read_ahead, "MAX_BLOCK", 100)
    ranges = [(0, 60), (50, 90), (50, 130), (60, 70), (140, 150), (150, 400), (150, 420), (390, 500), (500, 520)]
    with ThreadPoolExecutor(4) as pool:
        read = read_ahead.request([Ranges(store, [start], [stop]) for start, stop in ranges], pool)
        for start, stop in ranges:
            assert read(store, [start], [stop]) == [DATA[start:stop]]
    assert counted_store.REQUESTS["read"] == 5  # from 0, 50, 140, 150 and 390


def test_a_missing_file_is_an_error_when_it_is_read_and_the_others_are_read(store):
    missing = store + "-missing"
    with ThreadPoolExecutor(4) as pool:
        read = read_ahead.request([Ranges(missing, [0], [1]), Ranges(store, [0], [4])], pool)
        for _ in range(2):
            with pytest.raises(FileNotFoundError, match="file-missing"):
                read(missing, [0], [1])
        assert read(store, [0], [4]) == [DATA[:4]]


def test_a_range_beyond_the_end_has_fewer_bytes(store):
    with ThreadPoolExecutor(4) as pool:
        read = read_ahead.request([Ranges(store, [len(DATA) - 3], [len(DATA) + 5])], pool)
        assert read(store, [len(DATA) - 3], [len(DATA) + 5]) == [DATA[-3:]]


def test_files_on_the_disk_are_read_when_they_are_needed(store):
    path = store.removeprefix("counted://")
    with ThreadPoolExecutor(4) as pool:
        read = read_ahead.request([Ranges(path, [0], [4])], pool)
        assert read(path, [1], [3]) == [DATA[1:3]]
    assert not counted_store.REQUESTS
