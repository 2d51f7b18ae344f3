"""A registry of container images in one folder. The node pulls from it under the names that the manifests use."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, urlsplit

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


class Store:
    """The images below a folder: `blobs/sha256/HASH` as in an OCI layout, and `names.json` with the manifest of a name.

    A name is `HOST/PATH:TAG`, for example `docker.io/library/postgres:17.6`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)

    def names(self) -> dict[str, str]:
        """Return the digest `sha256:HASH` of the manifest of each name."""
        file = self.folder / "names.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def add_program(
        self, name: str, program: Path, links: tuple[str, ...] = (), files: Mapping[str, bytes] = MappingProxyType({})
    ) -> str:
        """Add an image with one program, which it starts, and return its digest.

        Args:
            name: Name of the image.
            program: A static executable.
            links: Other names under which the program is found, as absolute paths.
            files: Contents of further executable files, by their absolute paths.
        """
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as archive:
            for folder in ("bin", "tmp", "etc"):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
                archive.addfile(entry)
            entry = tarfile.TarInfo(f"bin/{program.name}")
            entry.mode, entry.size = 0o755, program.stat().st_size
            with open(program, "rb") as opened:
                archive.addfile(entry, opened)
            for link in links:
                entry = tarfile.TarInfo(link.lstrip("/"))
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, f"/bin/{program.name}", 0o777
                archive.addfile(entry)
            for path, content in files.items():
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.mode, entry.size = 0o755, len(content)
                archive.addfile(entry, io.BytesIO(content))
        layer = self._blob(raw.getvalue())
        config = {
            "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
            "os": "linux",
            "config": {"Entrypoint": [f"/bin/{program.name}"], "Env": ["PATH=/bin"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, **self._blob(json.dumps(config).encode())},
            "layers": [{"mediaType": LAYER, **layer}],
        }
        return self._name(name, json.dumps(manifest).encode())

    def add_layout(self, name: str, layout: Path) -> str:
        """Move the only image of an OCI layout (a folder, as of `buildah push IMAGE oci:FOLDER`) here, as `name`."""
        (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
        manifest = layout / "blobs" / "sha256" / entry["digest"].partition(":")[2]
        content = manifest.read_bytes()
        for blob in (layout / "blobs" / "sha256").iterdir():
            blob.replace(self.folder / "blobs" / "sha256" / blob.name)
        return self._name(name, content)

    def prune(self) -> None:
        """Delete what no image needs any more."""
        needed = set()
        for digest in self.names().values():
            manifest = json.loads(self.blob(digest).read_text())
            needed |= {digest, manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}
        for blob in (self.folder / "blobs" / "sha256").iterdir():
            if f"sha256:{blob.name}" not in needed:
                blob.unlink()

    def blob(self, digest: str) -> Path:
        """Return the file of a digest `sha256:HASH`; it may not exist."""
        return self.folder / "blobs" / "sha256" / Path(digest.partition(":")[2]).name

    def _blob(self, content: bytes) -> dict[str, Any]:
        digest = _digest(content)
        if not self.blob(digest).exists():
            part = self.folder / f"{os.getpid()}.part"
            part.write_bytes(content)
            part.replace(self.blob(digest))
        return {"digest": digest, "size": len(content)}

    def _name(self, name: str, manifest: bytes) -> str:
        digest = str(self._blob(manifest)["digest"])
        part = self.folder / "names.part"
        part.write_text(json.dumps({**self.names(), name: digest}, indent=1))
        part.replace(self.folder / "names.json")
        return digest


def serve(store: Store, port: int) -> ThreadingHTTPServer:
    """Return a server that answers pulls from a store at a port of the loopback; `serve_forever` starts it.

    A client that uses it as a mirror names the host of the image in the query: `/v2/PATH/manifests/TAG?ns=HOST`.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            path, kind = url.path.removeprefix("/v2/"), "application/octet-stream"
            if path in ("", "/v2"):
                return self._answer(200, "application/json", io.BytesIO(b"{}"), 2)
            name, what, reference = [*path.rsplit("/", 2), "", ""][:3]
            digest = reference
            if what == "manifests":
                kind = MANIFEST
                if ":" not in reference:
                    host = parse_qs(url.query).get("ns", [""])[0]
                    digest = store.names().get(f"{host}/{name}:{reference}", "")
            file = store.blob(digest)
            if not digest or not file.is_file():
                body = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN", "message": self.path}]}).encode()
                return self._answer(404, "application/json", io.BytesIO(body), len(body))
            if what == "manifests":
                kind = json.loads(file.read_text()).get("mediaType", MANIFEST)
            with open(file, "rb") as content:
                self._answer(200, kind, content, file.stat().st_size, digest)

        def do_HEAD(self) -> None:
            self.do_GET()

        def _answer(self, code: int, kind: str, content: Any, size: int, digest: str = "") -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(size))
            if digest:
                self.send_header("Docker-Content-Digest", digest)
            self.end_headers()
            if self.command == "GET":
                while piece := content.read(1 << 20):
                    self.wfile.write(piece)

        def log_message(self, form: str, *values: object) -> None:
            print(form % values, flush=True)

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
