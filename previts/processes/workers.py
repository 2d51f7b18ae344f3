"""Processes of this machine that share work on many videos; in what order they work changes no result."""

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

Item = TypeVar("Item")
Result = TypeVar("Result")

COUNT = "PREVITS_WORKERS"
STARTED_BY = "PREVITS_ENGINE_PID"  # id of the process with which a step ends, see `end_with`
WHOLE = "PREVITS_CORES"  # cores for a step that has the machine to itself; other steps share it


def is_launched() -> bool:
    """Return whether torchrun started this process, as one of those that train together."""
    return "TORCHELASTIC_RUN_ID" in os.environ or ("RANK" in os.environ and "WORLD_SIZE" in os.environ)


class Run(Protocol):
    """Apply a function of a module to each item and yield the results in the order of the items."""

    def __call__(self, function: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
        """Raise what the function raises."""


def in_order(function: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
    """Apply a function to each item in this process."""
    return map(function, items)


def available() -> int:
    """Return how many processes may work at once: PREVITS_WORKERS, else OMP_NUM_THREADS, else the cores allowed here.

    Raises:
        InputError: If PREVITS_WORKERS is not a whole number above 0.
    """
    for name in (COUNT, "OMP_NUM_THREADS"):
        text = os.environ.get(name, "")
        if text.isdigit() and int(text):
            return int(text)
        if text and name == COUNT:
            raise InputError(f"{COUNT} must be a whole number above 0, got {text!r}")
    # Not every system can say which cores a process may use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _quota())


def alone() -> int:
    """Return how many processes or threads may work at once in a step that has the machine to itself."""
    text = os.environ.get(WHOLE, "")
    return int(text) if text.isdigit() and int(text) and COUNT not in os.environ else available()


def _quota() -> int:
    """Return the CPU limit of a container, rounded up; a pod on a large node may use only a few of its cores."""
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
    except (OSError, ValueError):
        return 1 << 16
    return 1 << 16 if quota == "max" else max(1, -(-int(quota) // int(period)))


@contextlib.contextmanager
def pool(count: int = 0, data: str = "") -> Iterator[Run]:
    """Yield a function that runs work on `count` processes (0: as many as are available), in this one if it is 1.

    Only this process can read its memory: with `data` at a URI of memory it is always 1.
    """
    count = count or available()
    if count == 1 or data.startswith("memory:"):
        yield in_order
        return
    # Not forked: a child of a process with threads (torch, gcsfs) may wait for ever for a lock that nobody holds.
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
                    f"a worker process died: out of memory (fewer workers: {COUNT}=1), killed, or started by a script "
                    "that calls previts outside of `if __name__ == '__main__':`"
                ) from None

        yield share
    except BaseException:  # an error or Ctrl-C: nobody waits for what was begun or queued
        executor.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        raise
    executor.shutdown()


def _begin(parent: int) -> None:
    """End this worker with its parent, and keep its libraries from starting threads: the workers are the threads."""
    threading.Thread(target=end_with, args=(parent, threading.Event()), daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"  # read by torch, where it is loaded at all
    import cv2
    from threadpoolctl import threadpool_limits

    cv2.setNumThreads(1)
    threadpool_limits(limits=1)


def end_with(process: int, over: threading.Event) -> None:
    """Kill this process once another one of this machine is gone; return once `over` is set.

    A worker whose parent was killed would wait for its next item for ever, and the orphan of a step would work at the
    same time as the next run.
    """
    while not over.wait(0.5):
        if _is_gone(process):
            os.kill(os.getpid(), signal.SIGKILL)


def _is_gone(process: int) -> bool:
    """Return whether a process has ended, whether or not its parent has noticed."""
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
