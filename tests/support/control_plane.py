"""A real Kubernetes API server with etcd for tests. The tests play the other parts of a cluster.

The folder in KUBEBUILDER_ASSETS contains both programs, as in envtest; `tests/cluster/machine/programs.py` builds them.
There is no kubelet, scheduler, controller or operator; `tests/cluster/` has a whole node.
"""

import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import programs as built
import pytest
import yaml

CRD = Path(__file__).parents[1] / "data" / "pytorchjobs.kubeflow.org.yaml"
USERS = {"admin": "system:masters", "launcher": "", "reaper": "", "guest": ""}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def programs() -> Path:
    """Return the folder of etcd and kube-apiserver, or skip the test if there is none."""
    names = ("etcd", "kube-apiserver")
    given = os.environ.get("KUBEBUILDER_ASSETS")
    if not given:
        place = built.folder("kubernetes")
        pytest.skip(f"KUBEBUILDER_ASSETS is not set; python {built.__file__} hyperkube builds both programs in {place}")
    folder = Path(given)
    if not all((folder / name).exists() for name in names):
        pytest.skip(f"KUBEBUILDER_ASSETS={given} does not contain etcd and kube-apiserver")
    return folder


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class ControlPlane:
    """etcd and kube-apiserver with their files in one folder, on free ports."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        self.port, self.etcd_port, self.peer_port = free_port(), free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        tokens = [f'{name}-token,{name},{name}-id,"{group}"' for name, group in USERS.items()]
        (folder / "tokens.csv").write_text("\n".join(tokens) + "\n")
        key = ["openssl", "genrsa", "-out", str(folder / "accounts.key"), "2048"]
        subprocess.run(key, check=True, capture_output=True)

    def start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.peer_port}"
        self._start(
            "etcd", "--data-dir", str(self.folder / "etcd-data"), "--unsafe-no-fsync",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
        )  # fmt: skip

    def start(self) -> None:
        """Start the API server, also again after `kill`, and wait until it is ready."""
        accounts = str(self.folder / "accounts.key")
        self._start(
            "kube-apiserver", "--etcd-servers", f"http://127.0.0.1:{self.etcd_port}",
            "--cert-dir", str(self.folder / "certificates"), "--secure-port", str(self.port),
            "--bind-address", "127.0.0.1", "--service-cluster-ip-range", "10.0.0.0/24",
            "--authorization-mode", "RBAC", "--token-auth-file", str(self.folder / "tokens.csv"),
            "--service-account-key-file", accounts, "--service-account-signing-key-file", accounts,
            "--service-account-issuer", "https://previts.test", "--api-audiences", "https://previts.test",
            "--disable-admission-plugins", "ServiceAccount",
            # Without the cache, a watch depends on the compaction of etcd alone and not on some cached minutes.
            "--watch-cache=false",
        )  # fmt: skip
        deadline = time.monotonic() + 180
        while not self.is_ready():
            if time.monotonic() > deadline or self.processes["kube-apiserver"].poll() is not None:
                raise RuntimeError((self.folder / "kube-apiserver.log").read_text()[-3000:])
            time.sleep(0.2)

    def is_ready(self) -> bool:
        try:
            return self.request("GET", "/readyz", parse=False) == "ok"
        except (OSError, urllib.error.URLError):
            return False

    def kill(self, name: str = "kube-apiserver") -> None:
        """Kill a program with SIGKILL."""
        if process := self.processes.pop(name, None):
            process.send_signal(signal.SIGKILL)
            process.wait()

    def compact(self) -> None:
        """Remove all versions but the newest from etcd."""
        at = self._etcd("range", {"key": "L3g="})["header"]["revision"]
        self._etcd("compaction", {"revision": at, "physical": True})

    def kubeconfig(self, user: str = "launcher", namespace: str = "default") -> str:
        """Write a kubeconfig for a user and return its path."""
        path = self.folder / f"{user}-{namespace}.kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.folder / "certificates" / "apiserver.crt")}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": f"{user}-token"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user, "namespace": namespace}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(document))
        return str(path)

    def request(self, method: str, path: str, body: Any = None, parse: bool = True) -> Any:
        """Send a request as administrator of the cluster."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": "Bearer admin-token", "Content-Type": kind},
        )
        context = ssl._create_unverified_context()
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            text = answer.read().decode()
        return json.loads(text) if parse else text

    def install_crd(self) -> None:
        """Install the PyTorchJob resource, and wait until the API serves it."""
        document = yaml.load(CRD.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self.request("POST", CRDS, document)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(urllib.error.HTTPError):
                names = [item["name"] for item in self.request("GET", "/apis/kubeflow.org/v1")["resources"]]
                if "pytorchjobs/status" in names:
                    return
            time.sleep(0.1)
        raise RuntimeError("PyTorchJob is not served")

    def remove_crd(self) -> None:
        """Remove the PyTorchJob resource, and wait until the API no longer serves it."""
        self.request("DELETE", f"{CRDS}/pytorchjobs.kubeflow.org")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                self.request("GET", "/apis/kubeflow.org/v1")
            except urllib.error.HTTPError:
                return
            time.sleep(0.1)
        raise RuntimeError("PyTorchJob is still served")

    def stop(self) -> None:
        for name in ("kube-apiserver", "etcd"):
            self.kill(name)

    def _start(self, name: str, *arguments: str) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            command = [str(self.programs / name), *arguments]
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)

    def _etcd(self, verb: str, body: dict[str, Any]) -> Any:
        url = f"http://127.0.0.1:{self.etcd_port}/v3/kv/{verb}"
        request = urllib.request.Request(url, data=json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())


@contextmanager
def running(folder: Path) -> Iterator[ControlPlane]:
    """Run a control plane with the PyTorchJob resource."""
    plane = ControlPlane(programs(), folder)
    try:
        plane.start_etcd()
        plane.start()
        plane.install_crd()
        yield plane
    finally:
        plane.stop()


class Kubelet:
    """Serves the logs of pods over HTTPS like the kubelet of a node, with the certificate of the API server."""

    def __init__(self, certificates: Path) -> None:
        self.logs: dict[str, list[str]] = {}
        self.over: set[str] = set()
        kubelet = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                _, _, _, pod, _ = url.path.split("/", 4)
                asked = parse_qs(url.query)
                if pod not in kubelet.logs:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.end_headers()
                at = max(0, len(kubelet.logs[pod]) - int(asked.get("tailLines", ["1000"])[0]))
                deadline = time.monotonic() + 60
                with suppress(OSError):
                    while time.monotonic() < deadline:
                        for line in kubelet.logs[pod][at:]:
                            self.wfile.write(line.encode() + b"\n")
                            at += 1
                        self.wfile.flush()
                        if asked.get("follow") != ["true"] or pod in kubelet.over:
                            return
                        time.sleep(0.1)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "apiserver.crt", certificates / "apiserver.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def say(self, pod: str, *lines: str) -> None:
        """Add lines to the log of a pod, each with its own time."""
        for line in lines:
            at = len(self.logs.setdefault(pod, []))
            self.logs[pod].append(f"2026-11-27T10:{at // 60:02}:{at % 60:02}.{at:09}Z {line}")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
