"""What runs inside the namespaces of a node: its programs, in the order in which they need each other.

`node.py` starts it as the first process there: boot.py STATE DESCRIPTOR SECONDS. It ends, and the node with it, when
the other end of DESCRIPTOR (a pipe) is closed, after SECONDS, or when a program of the node ends.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import programs
import registry
import sandbox
from certificates import Authority, write_key
from sandbox import ADDRESS, HOST_NAME, PODS, run

HERE = Path(__file__).parent
SERVICES, KUBERNETES_SERVICE, NAMES = "10.96.0.0/16", "10.96.0.1", "10.96.0.10"
SERVER = f"https://{ADDRESS}:6443"
REGISTRY_PORT, QUEUE = 5001, 100
SOCKET = "/run/containerd/containerd.sock"
VOLUMES = ("volume-1", "volume-2")  # system.yaml has a PersistentVolume for each
PROGRAMS = (
    "hyperkube",
    "kube-network-policies",
    "coredns",
    "probe",
    "training-operator",
)  # those of programs.py that a node needs
PROGRAM_IMAGES = {  # the images of the system pods and of tests: one program, and other names for it
    "registry.k8s.io/pause:3.10": ("probe", ()),
    "registry.k8s.io/coredns/coredns:v1.12.4": ("coredns", ()),
    "registry.k8s.io/networking/kube-network-policies:v0.8.0": ("kube-network-policies", ()),
    "ghcr.io/kubeflow/training-v1/training-operator:v1-d6eb98e": ("training-operator", ("/manager",)),
    "docker.io/library/alpine:3.10": ("busybox", ("/bin/seq", "/bin/sleep")),
    "previts.test/probe:1": ("probe", ()),
}
# Debian's nslookup ends with 1 if any of the search domains lacks the name, that of Alpine 3.10 only if all do.
NSLOOKUP = b"""#!/bin/sh
/bin/busybox nslookup "$1" | {
    found=1
    while read -r line; do case "$line" in Name:*) found=0 ;; esac; done
    exit $found
}
"""


class NodeError(Exception):
    """A node did not start; the message has the end of the log of the program that was waited for."""


class Boot:
    """The programs of a node, with their files below `state`."""

    def __init__(self, state: Path) -> None:
        self.state, self.logs = state, state / "logs"
        self.pairs = state / "certificates"
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.seconds: dict[str, float] = {}
        for folder in (self.logs, self.pairs, *(state / name for name in VOLUMES)):
            folder.mkdir()

    def all(self) -> None:
        """Start everything, and return when pods can be started."""
        steps: list[Callable[[], None]] = [
            self.place, self.trust, self.images, self.control_plane, self.machine, self.system_pods, self.operator,
        ]  # fmt: skip
        for step in steps:
            start = time.monotonic()
            step()
            self.seconds[step.__name__] = round(time.monotonic() - start, 1)
            print(f"{step.__name__}: {self.seconds[step.__name__]} s", flush=True)

    def place(self) -> None:
        """The mounts and the network."""
        sandbox.mounts(self.state)
        ports = [str(port) for port in sandbox.OUTSIDE_PORTS]
        self._start("outside", "unshare", "--net", str(programs.path("probe")), "serve", *ports)
        outside, here = self.running["outside"].pid, os.readlink("/proc/self/ns/net")
        self._until("outside", lambda: os.readlink(f"/proc/{outside}/ns/net") != here, 10)
        sandbox.network(outside)
        sandbox.police(QUEUE)

    def trust(self) -> None:
        """The certificates and settings of all programs."""
        authority = Authority(self.pairs)
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
        authority.issue("apiserver", "kube-apiserver", hosts=(*names, KUBERNETES_SERVICE, ADDRESS, "127.0.0.1"))
        authority.issue("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters")
        authority.issue("kubelet", f"system:node:{HOST_NAME}", "system:nodes", hosts=(HOST_NAME, ADDRESS))
        authority.issue("admin", "admin", "system:masters")
        for name in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
            authority.issue(name, f"system:{name}")
        for name in ("admin", "kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy"):
            authority.kubeconfig(name, SERVER)
        write_key(self.pairs / "accounts.key")
        (self.state / "resolv.conf").write_text(f"nameserver {sandbox.OUTSIDE}\n")
        for name, settings in self._settings().items():
            file = self.state / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(settings if isinstance(settings, str) else json.dumps(settings))

    def images(self) -> None:
        """The registry, with the images of the system pods."""
        store = registry.Store(programs.cache() / "images")
        for name, (program, links) in PROGRAM_IMAGES.items():
            file = Path(shutil.which(program) or "") if program == "busybox" else programs.path(program)
            store.add_program(name, file, links, shell() if program == "busybox" else {})
        server = registry.serve(store, REGISTRY_PORT)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def control_plane(self) -> None:
        pair, etcd = self.pairs, "http://127.0.0.1:2379"
        self._start(
            "etcd", str(programs.path("etcd")), "--data-dir", str(self.state / "etcd"), "--unsafe-no-fsync",
            "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
        )  # fmt: skip
        self._start(
            "kube-apiserver", str(programs.path("kube-apiserver")), "--etcd-servers", etcd,
            "--advertise-address", ADDRESS, "--secure-port", "6443", "--service-cluster-ip-range", SERVICES,
            "--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
            "--allow-privileged=true", "--anonymous-auth=false",
            "--tls-cert-file", f"{pair}/apiserver.crt", "--tls-private-key-file", f"{pair}/apiserver.key",
            "--client-ca-file", f"{pair}/ca.crt", "--kubelet-certificate-authority", f"{pair}/ca.crt",
            "--kubelet-client-certificate", f"{pair}/apiserver-kubelet-client.crt",
            "--kubelet-client-key", f"{pair}/apiserver-kubelet-client.key",
            "--kubelet-preferred-address-types", "InternalIP",
            "--service-account-key-file", f"{pair}/accounts.key",
            "--service-account-signing-key-file", f"{pair}/accounts.key",
            "--service-account-issuer", "https://kubernetes.default.svc.cluster.local",
        )  # fmt: skip
        self._until("kube-apiserver", lambda: self._kubectl("get", "--raw", "/readyz") == "ok", 120)
        controllers = ["--service-account-private-key-file", f"{pair}/accounts.key", "--root-ca-file", f"{pair}/ca.crt"]
        self._controller("kube-controller-manager", *controllers, "--use-service-account-credentials")
        self._controller("kube-scheduler")

    def machine(self) -> None:
        """The container runtime, and the two agents of Kubernetes on a node."""
        self._start("containerd", "containerd", "--config", str(self.state / "containerd.toml"))
        self._until("containerd", lambda: bool(run("ctr", "--address", SOCKET, "version")), 60)
        self._start(
            "kubelet", str(programs.path("kubelet")), "--config", str(self.state / "kubelet.json"),
            "--kubeconfig", f"{self.pairs}/kubelet.kubeconfig", "--hostname-override", HOST_NAME, "--node-ip", ADDRESS,
        )  # fmt: skip
        self._start("kube-proxy", str(programs.path("kube-proxy")), "--config", str(self.state / "kube-proxy.json"))
        form = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
        self._until("kubelet", lambda: self._kubectl("get", "nodes", "--output", form) == "True", 120)

    def system_pods(self) -> None:
        """The names, the network policies, the volumes."""
        manifests = self.state / "system.yaml"
        manifests.write_text((HERE / "system.yaml").read_text().replace("STATE", str(self.state)))
        self._kubectl("apply", "--filename", str(manifests))
        for kind in ("daemonset/kube-network-policies", "deployment/coredns"):
            self._rolled_out(kind, "kube-system", 120)

    def operator(self) -> None:
        """The training operator with the manifests of previts."""
        folder = self.state / "operator"
        shutil.copytree(HERE.parents[2] / "k8s" / "operator", folder)
        local_operator(folder)
        self._kubectl("apply", "--server-side", "--kustomize", str(folder))
        self._rolled_out("deployment/training-operator", "kubeflow", 120)

    def wait(self, seconds: float) -> str:
        """Wait until the node has to end, and return why."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.5)
            for name, process in self.running.items():
                if process.poll() is not None:
                    return f"{name} ended with code {process.returncode}\n{self._tail(name)}"
        return f"its time of {seconds:.0f} s is over"

    def _controller(self, name: str, *more: str) -> None:
        config = f"{self.pairs}/{name}.kubeconfig"
        self._start(
            name, str(programs.path(name)), "--kubeconfig", config, "--authentication-kubeconfig", config,
            "--authorization-kubeconfig", config, "--leader-elect=false", "--bind-address", "127.0.0.1", *more,
        )  # fmt: skip

    def _start(self, name: str, *command: str) -> None:
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        with open(self.logs / f"{name}.log", "wb") as log:
            self.running[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.state,
                env={**os.environ, "PATH": path, "HOME": str(self.state)},
            )  # fmt: skip

    def _until(self, name: str, holds: Callable[[], bool], seconds: float) -> None:
        """Wait until something holds that a program does.

        Raises:
            NodeError: It did not come in time, or a program has ended.
        """
        deadline, last = time.monotonic() + seconds, ""
        while True:
            try:
                if holds():
                    return
            except (RuntimeError, OSError) as fault:
                last = str(fault)
            for other, process in self.running.items():
                if process.poll() is not None:
                    raise NodeError(f"{other} ended with code {process.returncode}\n{self._tail(other)}")
            if time.monotonic() > deadline:
                raise NodeError(f"{name} was not ready after {seconds:.0f} s\n{last}\n{self._tail(name)}")
            time.sleep(0.2)

    def _rolled_out(self, kind: str, namespace: str, seconds: int) -> None:
        try:
            self._kubectl("rollout", "status", kind, "--namespace", namespace, "--timeout", f"{seconds}s")
        except RuntimeError as fault:
            pods = self._kubectl("get", "pods,events", "--namespace", namespace)
            raise NodeError(f"{kind} was not ready\n{fault}\n{pods}\n{self._tail('kubelet')}") from fault

    def _kubectl(self, *arguments: str) -> str:
        return run(str(programs.path("kubectl")), "--kubeconfig", f"{self.pairs}/admin.kubeconfig", *arguments)

    def _tail(self, name: str, lines: int = 30) -> str:
        text = (self.logs / f"{name}.log").read_text(errors="replace")
        return f"end of {self.logs / name}.log:\n" + "\n".join(text.splitlines()[-lines:])

    def _settings(self) -> dict[str, Any]:
        """Return the settings of containerd, its network plugins, the kubelet and kube-proxy."""
        runc = {"runtime_type": "io.containerd.runc.v2", "options": {"SystemdCgroup": False}}
        cri = {
            "sandbox_image": "registry.k8s.io/pause:3.10",
            "restrict_oom_score_adj": True,  # for machines that do not allow a lower score than their own
            "containerd": {
                "default_runtime_name": "runc",
                "runtimes": {"runc": runc},
                "discard_unpacked_layers": True,  # the image `train` alone has 7 GB
            },
            "cni": {"bin_dir": str(sandbox.CNI_PLUGINS), "conf_dir": str(self.state / "cni.d")},
            "registry": {"config_path": str(self.state / "registries")},
        }
        containerd = {
            "version": 2,
            "root": str(self.state / "containerd"),
            "state": "/run/containerd",
            "grpc": {"address": SOCKET},
            "plugins": {"io.containerd.grpc.v1.cri": cri},
        }
        pods = {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}
        # A pod has a cable of its own to the node. So all packets are routed there, and the policies see them.
        cni = {"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp", "ipMasq": False, "ipam": pods}]}
        kubelet = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{self.pairs}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{self.pairs}/kubelet.crt",
            "tlsPrivateKeyFile": f"{self.pairs}/kubelet.key",
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.state.name}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "clusterDNS": [NAMES],
            "clusterDomain": "cluster.local",
            "resolvConf": str(self.state / "resolv.conf"),
            "volumePluginDir": str(self.state / "volume-plugins"),
            "serializeImagePulls": False,
            "evictionHard": {"memory.available": "100Mi"},
            "imageGCHighThresholdPercent": 100,
        }
        proxy = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {"kubeconfig": f"{self.pairs}/kube-proxy.kubeconfig"},
            "clusterCIDR": PODS,
            "hostnameOverride": HOST_NAME,
            "oomScoreAdj": 0,
            "conntrack": {"maxPerCore": 0},
        }
        mirror = {
            "server": f"http://127.0.0.1:{REGISTRY_PORT}",
            "host": {f"http://127.0.0.1:{REGISTRY_PORT}": {"capabilities": ["pull", "resolve"]}},
        }
        return {
            "containerd.toml": toml(containerd),
            "registries/_default/hosts.toml": toml(mirror),
            "cni.d/pods.conflist": cni,
            "kubelet.json": kubelet,
            "kube-proxy.json": proxy,
        }


def local_operator(folder: Path) -> None:
    """Let a copy of `k8s/operator` use the manifests of the module that the operator was built from."""
    manifests = programs.path("training-operator").with_name("manifests")
    shutil.copytree(manifests, folder / "manifests")
    deployment = folder / "deployment.yaml"
    probe = "          readinessProbe: {initialDelaySeconds: 1, periodSeconds: 2}\n"  # a quicker start
    before = "          volumeMounts:\n"
    deployment.write_text(deployment.read_text().replace(before, probe + before))
    file = folder / "kustomization.yaml"
    text, replaced = re.subn(
        "https://github.com/kubeflow/training-operator//manifests/(.*)[?].*", r"manifests/\1", file.read_text()
    )
    if replaced != 1:
        raise NodeError(f"{file} does not name the manifests of the operator")
    file.write_text(text)


def shell() -> dict[str, bytes]:
    """Return a shell with its libraries and our `nslookup`; that of busybox would always use its own `nslookup`."""
    libraries = [*Path("/lib").glob("ld-linux-*.so.*"), *Path("/lib64").glob("ld-linux-*.so.*")]
    libraries += Path("/lib").glob("*-linux-gnu/libc.so.6")
    files = {str(path): path.read_bytes() for path in libraries}
    return {**files, "/bin/sh": Path("/bin/dash").read_bytes(), "/bin/nslookup": NSLOOKUP}


def toml(table: dict[str, Any], path: str = "") -> str:
    """Return a table of texts, numbers, booleans, lists of texts and tables as TOML."""
    values = [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict)]
    tables = {f"{path}.{json.dumps(key)}".lstrip("."): value for key, value in table.items() if isinstance(value, dict)}
    return "\n".join([*values, *(f"\n[{name}]\n{toml(value, name)}" for name, value in tables.items())])


def work(state: Path, alive: int, seconds: float) -> int:
    """Boot, say so in the file `ready`, wait for the end, and say why in the file `ended`."""

    def end_with_owner() -> None:
        os.read(alive, 1)
        os._exit(3)

    threading.Thread(target=end_with_owner, daemon=True).start()
    boot = Boot(state)
    try:
        boot.all()
    except Exception as fault:
        (state / "ended").write_text(f"{type(fault).__name__}: {fault}")
        return 1
    (state / "ready.part").write_text(json.dumps(boot.seconds))
    (state / "ready.part").rename(state / "ready")
    reason = boot.wait(seconds)
    (state / "ended").write_text(reason)
    return 0


if __name__ == "__main__":
    state = Path(sys.argv[1])
    sandbox.create_control_group(state.name)
    sys.exit(sandbox.watch_over(lambda: work(state, int(sys.argv[2]), float(sys.argv[3]))))
