"""Training processes: the rank and device of this process, and the exchange of tensors and flags between them.

torchrun starts the processes, one for each GPU. With a single process, each exchange returns its input.
"""

import contextlib
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import timedelta
from types import FrameType
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from previts.errors import InputError, PeerLostError
from previts.processes import workers

Item = TypeVar("Item")

TERMINATED = 143  # exit code after SIGTERM, as shells report it: 128 + 15
LOST_SECONDS = 2.0  # torchrun checks its processes ten times a second


def best_device() -> torch.device:
    """Return the GPU of this process, or the CPU if there is no GPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


@contextlib.contextmanager
def process_group() -> Iterator[torch.device]:
    """Join the other processes during the block, if torchrun started several; yield the device of this process.

    Raises:
        InputError: If this machine has fewer GPUs than processes.
        PeerLostError: If another process ended unexpectedly during the block.
    """
    if not workers.is_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield best_device()
        return
    if torch.cuda.is_available():
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise InputError(f"process {local} of this machine has no GPU; start at most {gpus} processes, one a GPU")
        torch.cuda.set_device(local)
    # NCCL exchanges tensors on GPUs; gloo exchanges flags on the CPU, so that a stop request never waits for a GPU.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=15))
    try:
        yield best_device()
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "peer" not in str(error):  # gloo has no error type of its own
            raise
        # torchrun reports the first process that ends as the cause: wait until it has noticed the lost process.
        time.sleep(LOST_SECONDS)
        raise PeerLostError(
            f"another process was lost ({str(error).splitlines()[0]}); see the log of the process that ended first"
        ) from error
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process, counted from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Return whether this is process 0, which writes all files."""
    return rank() == 0


def shared(module: nn.Module) -> nn.Module:
    """Return a module whose gradients are averaged over the processes; its buffers are not synchronised."""
    if world_size() == 1:
        return module
    with warnings.catch_warnings():
        # torch 2.15 renames the argument; older supported versions know only this name.
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
        return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)


def gather(tensor: Tensor) -> Tensor:
    """Return the tensors of all processes, concatenated along the first dimension by rank; gradients do not pass."""
    if world_size() == 1:
        return tensor
    whole = tensor.new_empty(world_size() * len(tensor), *tensor.shape[1:])
    dist.all_gather_into_tensor(whole, tensor.contiguous())
    return whole


def average_(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over the processes, in place; one exchange for all tensors."""
    if world_size() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat.div_(world_size())
    for tensor, mean in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def any_of(*flags: bool) -> list[bool]:
    """Return for each flag whether it is set in any process."""
    if world_size() == 1:
        return list(flags)
    shared = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in shared]


def gather_lists(items: list[Item]) -> list[Item]:
    """Return the items of all processes, ordered by rank."""
    if world_size() == 1:
        return items
    found: list[list[Item]] = [[] for _ in range(world_size())]
    dist.all_gather_object(found, items)
    return [item for part in found for item in part]


def barrier() -> None:
    """Wait for all processes."""
    any_of(False)


@contextlib.contextmanager
def sigterm() -> Iterator[threading.Event]:
    """Yield a flag that SIGTERM sets instead of ending the process.

    Only the main thread can install a signal handler; in another thread the flag is never set.
    """
    flag = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        flag.set()

    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGTERM, before)
