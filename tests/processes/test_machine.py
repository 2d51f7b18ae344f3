"""The limits of cgroups, from files as the kernel writes them. Oracle: the smallest limit on the way to the root."""

import os

import pytest

from previts.processes import machine

WHOLE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def tree(root, **texts):
    """Write files below a root; in the names, `__` stands for a slash."""
    for name, text in texts.items():
        path = root.joinpath(*name.split("__"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.mark.parametrize(
    ("membership", "files", "cpus", "memory"),
    [
        ("0::/\n", {"": ("200000 100000\n", "1073741824\n")}, 2, 1 << 30),  # a pod
        ("0::/\n", {"": ("max 100000\n", "max\n")}, machine.NO_LIMIT, WHOLE),
        ("0::/\n", {}, machine.NO_LIMIT, WHOLE),  # the root of a machine has no files
        ("0::/a/b\n", {"a/b": ("max 100000\n", "max\n"), "a": ("150000 100000\n", "1048576\n")}, 2, 1 << 20),
        ("0::/a/b\n", {"a/b": ("50000 100000\n", "4096\n"), "a": ("150000 100000\n", "1048576\n")}, 1, 4096),
        ("0::/host/pod\n", {"": ("300000 100000\n", "8192\n")}, 3, 8192),  # the path of the host, in a container
    ],
)
def test_version_2(tmp_path, membership, files, cpus, memory):
    tree(tmp_path, proc__self__cgroup=membership)
    for group, (cpu, bytes_) in files.items():
        tree(tmp_path / "sys" / "fs" / "cgroup" / group, **{"cpu.max": cpu, "memory.max": bytes_})
    assert machine.cpu_limit(str(tmp_path)) == cpus
    assert machine.memory_limit(str(tmp_path)) == memory


@pytest.mark.parametrize(
    ("group", "quota", "limit", "cpus", "memory"),
    [
        ("docker/x", "250000\n", "1048576\n", 3, 1 << 20),
        ("", "250000\n", "1048576\n", 3, 1 << 20),  # the mount begins with the group of the container
        ("docker/x", "-1\n", "9223372036854771712\n", machine.NO_LIMIT, WHOLE),
    ],
)
def test_version_1(tmp_path, group, quota, limit, cpus, memory):
    tree(tmp_path, proc__self__cgroup="4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n0::/\n")
    mounts = tmp_path / "sys" / "fs" / "cgroup"
    tree(mounts / "memory" / group, **{"memory.limit_in_bytes": limit})
    tree(mounts / "cpu" / group, **{"cpu.cfs_quota_us": quota, "cpu.cfs_period_us": "100000\n"})
    assert machine.cpu_limit(str(tmp_path)) == cpus
    assert machine.memory_limit(str(tmp_path)) == memory


def test_workers_never_share_more_memory_than_there_is_unless_there_is_too_little(tmp_path):
    root = tree(tmp_path, proc__self__cgroup="0::/\n")
    for gibibytes, workers in [(16, 8), (2, 1), (8, 3)]:
        tree(tmp_path / "sys" / "fs" / "cgroup", **{"memory.max": f"{gibibytes << 30}\n"})
        total = min(gibibytes << 30, WHOLE)
        assert 0.8 * total < machine.memory_share(workers, root) * workers < 0.9 * total
    assert machine.memory_share(1000, root) == 512 << 20


def test_this_machine_has_no_more_than_its_hardware():
    assert 0 < machine.memory_limit() <= WHOLE
    assert machine.cpu_limit() >= 1


@pytest.mark.parametrize(
    ("quota", "given", "threads"), [("90000", "", "1"), ("max", "", None), ("90000", "4", "4"), ("100000000", "", None)]
)
def test_libraries_start_no_more_threads_than_the_limit_of_the_container(
    tmp_path, monkeypatch: pytest.MonkeyPatch, quota: str, given: str, threads: str | None
):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    if not given:
        monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8), raising=False)
    files = {"proc__self__cgroup": "0::/\n", "sys__fs__cgroup__cpu.max": f"{quota} 100000\n"}
    machine.limit_threads(tree(tmp_path, **files))
    assert os.environ.get("OMP_NUM_THREADS") == threads
