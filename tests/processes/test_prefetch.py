"""Oracles: a plain loop over the groups, and counts of the items that were loaded so far."""

import itertools
import threading
import time

import pytest

from previts.processes import prefetch


def test_groups_and_items_come_in_order_whichever_takes_longest():
    def load(item: int) -> int:
        time.sleep(0.03 if item % 3 == 0 else 0)
        return item**2

    groups = [[0, 1, 2], [], [3], [4, 5]]
    assert list(prefetch.loaded(groups, load)) == [[item**2 for item in group] for group in groups]
    assert list(prefetch.loaded([], load)) == []


@pytest.mark.parametrize("ahead", [1, 3])
def test_an_endless_list_is_read_only_as_far_ahead_as_asked(ahead: int):
    read = []

    def groups():
        for number in itertools.count():
            read.append(number)
            yield [number]

    results = prefetch.loaded(groups(), lambda item: item, ahead)
    assert [next(results) for _ in range(5)] == [[number] for number in range(5)]
    assert len(read) == 4 + ahead
    results.close()


def test_the_next_group_loads_while_the_caller_uses_this_one():
    second = threading.Event()

    def load(item: int) -> int:
        if item == 1:
            second.set()
        return item

    results = prefetch.loaded([[0], [1]], load)
    next(results)
    assert second.wait(10)
    assert next(results) == [1]


def test_an_error_is_raised_when_its_group_is_next():
    def load(item: int) -> int:
        if item == 2:
            raise ValueError(f"item {item}")
        return item

    results = prefetch.loaded([[0, 1], [2], [3]], load)
    assert next(results) == [0, 1]
    with pytest.raises(ValueError, match="item 2"):
        next(results)


def test_requests_wait_together_and_their_answers_come_in_order():
    all_wait = threading.Barrier(prefetch.REQUESTS, timeout=30)  # broken if fewer wait at once

    def request(item: int) -> int:
        all_wait.wait()
        return item**2

    numbers = range(2 * prefetch.REQUESTS)
    assert list(prefetch.requested(numbers, request)) == [number**2 for number in numbers]
