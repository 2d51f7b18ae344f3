"""One thread in every library, for benchmarks that compare CPU time."""

import contextlib
from collections.abc import Iterator

import cv2
import torch
from threadpoolctl import threadpool_limits


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limit OpenCV, torch and BLAS to one thread in the block."""
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])
