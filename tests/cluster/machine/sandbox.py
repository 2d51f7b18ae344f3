"""The namespaces in which a node lives: processes, mounts, network, host name, and a control group.

When the first process in these namespaces ends, the kernel kills all others and removes the mounts and the network.
Only the control group and the files remain; `remove_control_group` removes the first.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
CNI_PLUGINS = Path("/usr/lib/cni")
HOST_NAME = "previts-node"

# The network of the node. The address is the one of the first node of kind, so `k8s/overlays/local` fits as it is.
ADDRESS, NETWORK_BITS = "172.18.0.2", 16
OUTSIDE = "172.18.0.1"  # the router to the internet, and everything behind it: one process that answers for all of them
OUTSIDE_PORTS = (22, 80, 443, 5000, 5432, 6443, 8080, 8333, 8443)
PODS = "10.244.0.0/24"

COMMANDS = {  # a program that the node needs: the Debian package that has it
    "containerd": "containerd", "runc": "runc", "ip": "iproute2", "iptables": "iptables", "nft": "nftables",
    "unshare": "util-linux", "nsenter": "util-linux", "mount": "mount", "busybox": "busybox-static",
}  # fmt: skip
# The kubelet sets these for the whole machine. In the node it finds the values that it wants, so it changes nothing.
KERNEL = {
    "vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}  # fmt: skip


def obstacles() -> list[str]:
    """Return why no node can run on this machine; empty if one can."""
    found = []
    if sys.platform != "linux" or os.geteuid() != 0:
        found.append("a node needs Linux and root")
    if not list(_hierarchies()):
        found.append(f"a node needs control groups in {CGROUPS}")
    elif not all(os.access(folder, os.W_OK) for folder in _hierarchies()):
        found.append(f"a node needs to write to the control groups in {CGROUPS}")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    packages = {package for name, package in COMMANDS.items() if shutil.which(name, path=path) is None}
    if not (CNI_PLUGINS / "ptp").exists():
        packages.add("containernetworking-plugins")
    if packages:
        found.append(f"a node needs apt-get install {' '.join(sorted(packages))}")
    return found


def start(command: list[str], kept: tuple[int, ...], log: Path) -> "subprocess.Popen[bytes]":
    """Start a command as the first process of new namespaces.

    Args:
        command: The command. It should do its work in `watch_over`.
        kept: File descriptors that the command inherits.
        log: File for the output.
    """
    kinds = ["--pid", "--mount", "--net", "--uts", "--ipc"]
    with open(log, "wb") as output:
        return subprocess.Popen(
            ["unshare", "--fork", "--kill-child", "--mount-proc", *kinds, *command],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=kept, start_new_session=True,
        )  # fmt: skip


def first_process(unshare: int) -> int:
    """Return the process that `start` started in the namespaces, or 0 if there is none."""
    with suppress(OSError):
        children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
        return int(children[0]) if children else 0
    return 0


def entering(process: int) -> list[str]:
    """Return the start of a command that runs the rest of it in the namespaces of a process."""
    return ["nsenter", "--target", str(process), "--mount", "--net", "--pid", "--uts", "--ipc"]


def watch_over(work: Callable[[], int]) -> int:
    """Do the work in a child process, wait for the orphans of all others meanwhile, and return its exit status.

    The first process of a namespace is the parent of all orphans.
    """
    worker = os.fork()
    if worker == 0:
        os._exit(work())
    while True:
        with suppress(ChildProcessError, InterruptedError):
            ended, status = os.wait()
            if ended == worker:
                return os.waitstatus_to_exitcode(status)


def run(*command: str, **options: object) -> str:
    """Run a command and return its output.

    Raises:
        RuntimeError: The command failed; with its messages.
    """
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return str(done.stdout)


def mounts(state: Path) -> None:
    """Give the node its own /run, and folders below `state` in place of those that its programs write to."""
    run("mount", "--make-rprivate", "/")
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    for place in ("/var/log", "/var/lib/cni", "/var/lib/kubelet"):
        mine = state / place.rsplit("/", 1)[-1]
        mine.mkdir()
        Path(place).mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", str(mine), place)
    for name, value in KERNEL.items():
        file = state / name.replace("/", ".")
        file.write_text(f"{value}\n")
        run("mount", "--bind", str(file), f"/proc/sys/{name}")
    run("hostname", HOST_NAME)


def network(outside: int) -> None:
    """Set up the network: the node on a bridge, and `outside` with every other address behind it.

    Nothing leaves the namespace: `outside` is a process in a second namespace, and accepts packets to any address.
    """
    for name, value in {"ipv4/ip_forward": "1", "bridge/bridge-nf-call-iptables": "0"}.items():
        if (setting := Path("/proc/sys/net", name)).exists():
            setting.write_text(value)
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "uplink", "type", "bridge")
    run("ip", "address", "add", f"{ADDRESS}/{NETWORK_BITS}", "dev", "uplink")
    run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "world", "netns", str(outside))
    for link in ("cable", "uplink"):
        run("ip", "link", "set", link, "up")
    run("ip", "link", "set", "cable", "master", "uplink")
    run("ip", "route", "add", "default", "via", OUTSIDE)
    there = ("nsenter", f"--net=/proc/{outside}/ns/net", "ip")
    for link in ("lo", "world"):
        run(*there, "link", "set", link, "up")
    run(*there, "address", "add", f"{OUTSIDE}/{NETWORK_BITS}", "dev", "world")
    run(*there, "route", "add", PODS, "via", ADDRESS)
    run(*there, "route", "add", "local", "0.0.0.0/0", "dev", "lo")  # it has every address that no other route is for


def police(queue: int) -> None:
    """Send the first packet of each connection of a pod to a queue, whose program allows or refuses it.

    The program would send them with the queue expression of nftables, which some kernels lack; all have that of
    iptables. Connections that the node itself opens, as for probes, are not sent: Kubernetes always allows them. Those
    from pods to the node, where the API server is, are.
    """
    new = ("-m", "conntrack", "!", "--ctstate", "ESTABLISHED,RELATED", "-j", "NFQUEUE", "--queue-num", str(queue))
    run("iptables", "-w", "-t", "mangle", "-A", "FORWARD", *new)
    run("iptables", "-w", "-t", "mangle", "-A", "INPUT", "-s", PODS, *new)


def _hierarchies() -> Iterator[Path]:
    """Yield the folder of the control groups (version 2), or that of each controller (version 1)."""
    if (CGROUPS / "cgroup.procs").exists():
        yield CGROUPS
        return
    with suppress(OSError):
        yield from (folder for folder in sorted(CGROUPS.iterdir()) if (folder / "cgroup.procs").exists())


def create_control_group(name: str) -> None:
    """Create the control group of a node, and move this process into a group of its own in it."""
    for hierarchy in _hierarchies():
        for folder in (hierarchy / name, hierarchy / name / "programs"):
            folder.mkdir(exist_ok=True)
            for setting in ("cpuset.cpus", "cpuset.mems"):  # of version 1, which starts with none
                if (folder / setting).exists() and not (folder / setting).read_text().strip():
                    (folder / setting).write_text((folder.parent / setting).read_text())
        (hierarchy / name / "programs" / "cgroup.procs").write_text(str(os.getpid()))


def remove_control_group(name: str, seconds: float = 20) -> None:
    """Kill the processes in the control group of a node, if there are any, and remove it.

    Raises:
        RuntimeError: It could not be removed in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        groups = [hierarchy / name for hierarchy in _hierarchies()]
        groups = [group for group in groups if group.exists()]
        if not groups:
            return
        for group in groups:
            for folder, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):
                    for process in Path(folder, "cgroup.procs").read_text().split():
                        os.kill(int(process), signal.SIGKILL)
                with suppress(OSError):
                    os.rmdir(folder)
        if time.monotonic() > deadline:
            raise RuntimeError(f"the control groups of an earlier node remain: {', '.join(map(str, groups))}")
        time.sleep(0.1)


def memory(name: str) -> int:
    """Return the bytes of memory that the programs and the pods of a node use now, without caches of files."""
    for hierarchy in _hierarchies():
        group = hierarchy / name
        if hierarchy.name == "memory" or (group / "memory.stat").exists():
            lines = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            return int(lines.get("total_rss") or lines.get("anon") or 0)
    return 0
