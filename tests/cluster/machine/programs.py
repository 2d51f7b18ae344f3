"""The programs of a Kubernetes node, built with Go from pinned modules and kept for later runs.

`programs/` has a Go module for each set of programs that agree on the versions of their libraries. `go.mod` pins the
versions, and `go.sum` the hashes of the sources. From a shell:

    python tests/cluster/machine/programs.py [NAME...]    build these programs (default: all), and print their folders
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

SOURCE = Path(__file__).parent / "programs"
KUBERNETES = "v1.34.4"
GO = "1.26.8"
PROGRAMS = {  # name: its module, and the package in it
    "hyperkube": ("kubernetes", "./hyperkube"),
    "kube-network-policies": ("kubernetes", "sigs.k8s.io/kube-network-policies/cmd"),
    "coredns": ("kubernetes", "./dns"),
    "probe": ("kubernetes", "./probe"),
    "training-operator": ("operator", "github.com/kubeflow/training-operator/cmd/training-operator.v1"),
}
# Names under which a program is found, and by which it knows what to be.
ROLES = {
    "hyperkube": (
        "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
    ),
}  # fmt: skip
MANIFESTS = {"training-operator": "github.com/kubeflow/training-operator"}  # modules whose manifests are kept as well
FLAGS = ["-mod=readonly", "-trimpath", f"-ldflags=-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES}"]


def path(name: str) -> Path:
    """Return where a program, or a role of one, is found after `build`."""
    program = next((program for program, roles in ROLES.items() if name in roles), name)
    return folder(PROGRAMS[program][0]) / name


def folder(module: str) -> Path:
    """Return the folder of the programs of a module: another one for each content of the module."""
    digest = hashlib.sha256(repr(FLAGS).encode())
    for file in sorted(item for item in (SOURCE / module).rglob("*") if item.is_file()):
        digest.update(str(file.relative_to(SOURCE)).encode() + b"\0" + file.read_bytes() + b"\0")
    return cache() / "programs" / f"{module}-{digest.hexdigest()[:12]}"


def cache() -> Path:
    """Return the folder for what tests build and use again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "previts-tests"


def missing(*names: str) -> list[str]:
    """Return which programs, of all or of the given ones, are not built yet."""
    return [name for name in names or PROGRAMS if not path(name).exists()]


def obstacle(*names: str) -> str:
    """Return why `build` cannot build these programs, or ""."""
    if not missing(*names):
        return ""
    if not (go := _go()):
        return f"'go' was not found; Go {GO} or newer builds the programs of a Kubernetes node"
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True).stdout.strip()
    if (found := re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", said)) is None:
        return f"{go} did not tell its version"
    if tuple(int(part or 0) for part in found.groups()) < tuple(map(int, GO.split("."))):
        return f"{go} is {said}; Go {GO} or newer builds the programs of a Kubernetes node"
    return ""


def build(*names: str) -> None:
    """Build the programs that are missing, of all or of the given ones.

    Raises:
        FileNotFoundError: Go is not installed.
        subprocess.CalledProcessError: Go refused; its message is on stderr.
    """
    if reason := obstacle(*names):
        raise FileNotFoundError(reason)
    go = _go()
    for name in missing(*names):
        module, package = PROGRAMS[name]
        target = path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target.with_name(f".{name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if target.exists():  # another process has built it
                continue
            start = time.monotonic()
            part = target.with_name(f".{name}.part")
            command = [go, "build", *FLAGS, "-o", str(part), package]
            subprocess.run(command, check=True, cwd=SOURCE / module, env={**os.environ, "CGO_ENABLED": "0"})
            if name in MANIFESTS:
                where = [go, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", MANIFESTS[name]]
                done = subprocess.run(where, check=True, cwd=SOURCE / module, stdout=subprocess.PIPE, text=True)
                _copy(Path(done.stdout.strip()) / "manifests", target.with_name("manifests"))
            part.rename(target)
            for role in ROLES.get(name, ()):
                target.with_name(role).unlink(missing_ok=True)
                target.with_name(role).symlink_to(name)
            print(f"built {name} in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def _go() -> str:
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin") or ""


def _copy(source: Path, target: Path) -> None:
    """Copy a folder of the module cache, whose files are read-only."""
    for file in (item for item in source.rglob("*") if item.is_file()):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())


if __name__ == "__main__":
    chosen = sys.argv[1:] or list(PROGRAMS)
    if unknown := sorted(set(chosen) - set(PROGRAMS)):
        sys.exit(f"no such program: {', '.join(unknown)}; there are {', '.join(PROGRAMS)}")
    build(*chosen)
    print(*sorted({str(path(name).parent) for name in chosen}), sep="\n")
