"""An object store on the local disk that counts its requests: `counted:///folder`.

With `LATENCY` in seconds, each request takes this long, as in a real store. Like the clients of real stores, it sends
the requests of one call together. `REQUESTS["in turn"]` counts the requests of the main thread, which wait for each
other.
"""

import collections
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

REQUESTS: collections.Counter[str] = collections.Counter()
LISTED: collections.Counter[str] = collections.Counter()  # by the path of the folder
LATENCY = 0.0
_AT_ONCE = 64
_lock = threading.Lock()


def _request(kind: str) -> None:
    with _lock:
        REQUESTS[kind] += 1
        if threading.current_thread() is threading.main_thread():
            REQUESTS["in turn"] += 1
    if LATENCY:
        time.sleep(LATENCY)


class CountedStore(LocalFileSystem):  # type: ignore[misc]
    """The local disk as a store."""

    protocol = "counted"
    root_marker = "/"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return LocalFileSystem._strip_protocol(str(path).removeprefix("counted://"))

    def unstrip_protocol(self, name: str) -> str:
        """Return the URI of a path."""
        return f"counted://{self._strip_protocol(name)}"

    def ls(self, path: str, detail: bool = False, **options: Any) -> Any:
        """List a folder, by one request."""
        _request("list")
        LISTED[self._strip_protocol(path)] += 1
        return super().ls(path, detail=detail, **options)

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: Any
    ) -> Any:
        """List all files below a folder, by one request for each 1000 of them."""
        LISTED[self._strip_protocol(path)] += 1
        found = {}
        for folder, _below, names in os.walk(self._strip_protocol(path)):
            for name in names:
                place = os.path.join(folder, name)
                found[place] = {"name": place, "size": os.stat(place).st_size, "type": "file"}
        for _ in range(0, len(found) + 1, 1000):
            _request("list")
        return found if detail else sorted(found)

    def info(self, path: str, **options: Any) -> Any:
        """Return what is known of a file, by one request; `exists`, `isdir` and `size` call it too."""
        _request("info")
        return super().info(path, **options)

    def exists(self, path: str, **options: Any) -> bool:
        """Return whether there is a file, by one request."""
        _request("info")
        return bool(super().exists(path, **options))

    def isdir(self, path: str) -> bool:
        """Return whether there is a folder, by one request."""
        _request("info")
        return bool(super().isdir(path))

    def isfile(self, path: str) -> bool:
        """Return whether there is a file, by one request."""
        _request("info")
        return bool(super().isfile(path))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return a range of bytes of a file, by one request."""
        _request("read")
        with open(self._strip_protocol(path), "rb") as file:
            file.seek(start or 0)
            return file.read() if end is None else file.read(end - (start or 0))

    def cat_ranges(
        self, paths: Any, starts: Any, ends: Any, max_gap: Any = None, on_error: str = "return", **_: Any
    ) -> Any:
        """Return ranges of bytes of files, by one request each, all at once."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self.cat_file, paths, starts, ends))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Write a file, by one request."""
        _request("write")
        path = self._strip_protocol(path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "xb" if mode == "create" else "wb") as file:
            file.write(value)

    def put_file(self, lpath: str, rpath: str, callback: Any = None, mode: str = "overwrite", **_: Any) -> None:
        """Copy a file of this machine into the store, by one request."""
        with open(lpath, "rb") as file:
            self.pipe_file(rpath, file.read(), mode)

    def rm_file(self, path: str) -> None:
        """Delete a file, by one request."""
        _request("write")
        os.remove(self._strip_protocol(path))

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """Open a file, by one request."""
        _request("read")
        return super().open(path, mode, **options)


fsspec.register_implementation("counted", CountedStore, clobber=True)
