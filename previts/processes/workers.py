"""Worker processes of this machine, which share work on many videos; their number and order change no result."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeVar

from previts.errors import InputError
from previts.processes import machine

Item = TypeVar("Item")
Result = TypeVar("Result")

COUNT = "PREVITS_WORKERS"
STARTED_BY = "PREVITS_ENGINE_PID"  # id of the process that started a step; the step ends with it, see `end_with`
WHOLE = "PREVITS_CORES"  # cores for a step that has the machine to itself


def is_launched() -> bool:
    """Return whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ or ("RANK" in os.environ and "WORLD_SIZE" in os.environ)


class Run(Protocol):
    """A function that applies a module-level function to each item and yields the results in the order of the items."""

    def __call__(self, function: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
        """Yield the results; raise what the function raises."""


def in_order(function: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
    """Apply a function to each item in this process."""
    return map(function, items)


def available() -> int:
    """Return how many processes may work at once.

    The first of these that is set: PREVITS_WORKERS, OMP_NUM_THREADS, the cores that this process may use.

    Raises:
        InputError: If PREVITS_WORKERS is not a whole number above 0.
    """
    for name in (COUNT, "OMP_NUM_THREADS"):
        text = os.environ.get(name, "")
        if text.isdigit() and int(text):
            return int(text)
        if text and name == COUNT:
            raise InputError(f"{COUNT} must be a whole number above 0, got {text!r}")
    # Not every system (macOS) has sched_getaffinity.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, machine.cpu_limit())


def alone() -> int:
    """Return how many processes or threads may work at once, for a step that has the machine to itself."""
    text = os.environ.get(WHOLE, "")
    return int(text) if text.isdigit() and int(text) and COUNT not in os.environ else available()


@contextlib.contextmanager
def pool(count: int = 0, data: str = "") -> Iterator[Run]:
    """Yield a function that shares work among `count` processes (0: `available()`); with 1, this process does it all.

    If `data` is a memory:// URI, the count is 1: other processes cannot read the memory of this one.
    """
    count = count or available()
    if count == 1 or data.startswith("memory:"):
        yield in_order
        return
    # Not forked: a child of a process with threads (torch, gcsfs) may wait forever for a lock that is never released.
    others = multiprocessing.active_children()
    executor = ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)
    )
    try:

        def share(function: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
            try:
                yield from executor.map(function, items)
            except BrokenProcessPool:
                raise InputError(
                    "a worker process died. Possible causes: it was killed or ran out of memory (use fewer "
                    f"workers, such as {COUNT}=1), or a script calls previts outside of "
                    "`if __name__ == '__main__':` (call it below this line)"
                ) from None

        yield share
    except BaseException:  # an error or Ctrl-C: stop running and queued work without waiting for it
        executor.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        raise
    executor.shutdown()


def _begin(parent: int) -> None:
    """Set up a worker: it ends with its parent, and its libraries use one thread, because there are many workers."""
    threading.Thread(target=end_with, args=(parent, threading.Event()), daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"  # read by torch, if the worker loads it
    import cv2
    from threadpoolctl import threadpool_limits

    cv2.setNumThreads(1)
    threadpool_limits(limits=1)


def end_with(process: int, over: threading.Event) -> None:
    """Kill this process when another process of this machine has ended; return when `over` is set.

    Without this, a worker whose parent was killed would wait forever for its next item. An orphaned step would work at
    the same time as the next run.
    """
    while not over.wait(0.5):
        if _is_gone(process):
            os.kill(os.getpid(), signal.SIGKILL)


def _is_gone(process: int) -> bool:
    """Return whether a process has ended; a zombie counts as ended."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        pass
    if os.path.exists("/proc/self/stat"):
        return True
    try:  # a system without /proc
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False
