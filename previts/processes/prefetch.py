"""Load items in threads while the previous ones are used."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


Value = TypeVar("Value")


# Threads, not processes: decoding releases Python's lock, and clients of object stores do not survive a fork.
THREADS = min(8, os.cpu_count() or 1)


def loaded(groups: Iterable[Sequence[Item]], load: Callable[[Item], Value], ahead: int = 2) -> Iterator[list[Value]]:
    """Yield the loaded items of each group, in order; threads load the next groups while the caller uses one."""
    pending: deque[list[Future[Value]]] = deque()
    coming = iter(groups)
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            while True:
                for group in itertools.islice(coming, ahead - len(pending)):
                    pending.append([pool.submit(load, item) for item in group])
                if not pending:
                    return
                yield [future.result() for future in pending.popleft()]
        finally:
            for future in itertools.chain(*pending):
                future.cancel()
