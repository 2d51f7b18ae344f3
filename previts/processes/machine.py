"""What this process may use of its machine: the CPUs and the memory that its cgroups (container, pod) leave to it."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

LEAST_BYTES = 1 << 29  # a worker with less could not decode a video in HD
NO_LIMIT = 1 << 16  # CPUs


def cpu_limit(root: str = "/") -> int:
    """Return the CPU limit, rounded up; without a limit, a number above any core count.

    A pod on a large node may use only a few of its cores.
    """
    limits = [NO_LIMIT]
    for quota, period in _settings(root, "cpu", ["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        if quota.isdigit():  # neither "max" (version 2) nor -1 (version 1)
            limits.append(max(1, -(-int(quota) // int(period))))
    return min(limits)


def limit_threads(root: str = "/") -> None:
    """Let the libraries of this process start no more threads than its CPU limit allows.

    By default, torch starts one for each core of the node, and they wait for each other. The libraries read the
    variable when they are loaded, so this must come first.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if (limit := cpu_limit(root)) < cores:
        os.environ.setdefault("OMP_NUM_THREADS", str(limit))


def memory_limit(root: str = "/") -> int:
    """Return the memory of the machine, or of a cgroup if that is less, in bytes."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for (limit,) in _settings(root, "memory", ["memory.max"], ["memory.limit_in_bytes"]):
        if limit.isdigit():
            limits.append(int(limit))
    return min(limits)


def memory_share(workers: int, root: str = "/") -> int:
    """Return the memory for each of some children, in bytes: 7/8 of the limit is theirs, and each gets 512 MiB."""
    return max(LEAST_BYTES, memory_limit(root) * 7 // 8 // workers)


def _settings(root: str, controller: str, version_2: list[str], version_1: list[str]) -> Iterator[list[str]]:
    """Yield the words of some settings, for each cgroup of this process from its own up to the root."""
    try:
        lines = Path(root, "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = Path(root, "sys/fs/cgroup", controller if controllers else "")
        names = version_1 if controllers else version_2
        # In a container, the path may be that of the host although the mount begins with the group of the container.
        for group in [PurePosixPath(path), *PurePosixPath(path).parents]:
            try:
                texts = [Path(mount, str(group).lstrip("/"), name).read_text() for name in names]
            except OSError:
                continue
            yield " ".join(texts).split()


def is_pod() -> bool:
    """Return whether this process runs in a pod of Kubernetes."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
