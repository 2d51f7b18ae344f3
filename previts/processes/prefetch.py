"""Prefetching: threads load the next items while the caller uses the previous ones."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")

# Threads, not processes: decoding releases the GIL, and clients of object stores do not work after a fork.
THREADS = min(8, os.cpu_count() or 1)
REQUESTS = 32  # to a store at once: a request waits for an answer, and hardly uses a core


def loaded(
    groups: Iterable[Sequence[Item]], load: Callable[[Item], Value], ahead: int = 2, threads: int = THREADS
) -> Iterator[list[Value]]:
    """Yield the loaded items of each group, in order; threads load up to `ahead` groups in advance.

    An error of `load` is raised when its group is next.
    """
    pending: deque[list[Future[Value]]] = deque()
    remaining = iter(groups)
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                for group in itertools.islice(remaining, ahead - len(pending)):
                    pending.append([pool.submit(load, item) for item in group])
                if not pending:
                    return
                yield [future.result() for future in pending.popleft()]
        finally:
            for future in itertools.chain(*pending):
                future.cancel()


def requested(items: Iterable[Item], request: Callable[[Item], Value]) -> Iterator[Value]:
    """Yield what `request` returns for each item, in order; up to `REQUESTS` of them wait for a store at once.

    At most as many answers are kept in memory. An error of `request` is raised when its item is next.
    """
    for (answer,) in loaded(([item] for item in items), request, ahead=REQUESTS, threads=REQUESTS):
        yield answer
