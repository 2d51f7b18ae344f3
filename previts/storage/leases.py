"""Leases: which process works on an output, so that of two runs on one root only one does each piece of work.

A lease is a small file in the folder of the output. It is created only if it does not exist, it is renewed while its
holder works, and it is deleted at the end. Another process waits, or takes the lease over if its holder is dead:

- The holder was a process of this machine and has ended.
- The lease was not renewed for `EXPIRY_SECONDS`, by the clock of the process that waits. No clocks are compared.
- The user asked for it (`--take-over`).

A holder that lost its lease stops at its next renewal, or before it writes a file that readers believe (`fences.py`).
Files that belong together are written by `replace`, which never overwrites a
file: what a late writer wrote before is deleted, and what it writes afterwards fails.
"""

import contextlib
import contextvars
import ctypes
import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace as changed

from previts.errors import InputError
from previts.storage import fences, files, holders
from previts.storage.fences import LostError
from previts.storage.holders import Holder

BEAT_SECONDS, EXPIRY_SECONDS = 10.0, 60.0
SETTLE_SECONDS = 1.0  # between writing and reading back, on stores that may ignore the condition of a write
WAIT_SECONDS, SAY_SECONDS = 1.0, 60.0  # between two attempts, and between two messages of a process that waits
CONDITIONAL = ("file", "memory", "gs", "gcs")  # stores that create a file only if it does not exist, or fail
SUFFIX = ".lease"
OUTPUT = "output"  # name of the lease on a whole output; each shard has its own


class Lease:
    """The lease on the work `name` in a folder. One object is one attempt to hold it."""

    def __init__(self, folder: str, name: str) -> None:
        self.folder, self.uri = folder, files.join(folder, name + SUFFIX)
        self._own: Holder | None = None
        self._seen: tuple[bytes, float] = (b"", 0.0)  # what another holder wrote, and when it was seen first
        self._lost = ""
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._local = files.local_path(folder) is not None

    def holder(self) -> Holder | None:
        """Return the present holder, or None."""
        data = self._read()
        return None if data is None else holders.parse(data)

    def take(self) -> bool:
        """Try once to take the lease for the running verb, and return whether this process may work now.

        Outside of `working`, no lease is needed and none is taken.
        """
        scope = _scope.get()
        if scope is None:
            return True
        verb, mine = scope
        with self._alone():
            data = self._read()
            if data is not None:
                holder, reason = holders.parse(data), self._reason(data)
                if not reason:
                    return False
                print(f"taken over, {reason}: the work of {holder} on {self.folder}", file=sys.stderr)
                delete(self.uri)
            own = holders.this_process(verb)
            if not self._create(own):
                return False
        # Two processes may take over at once. On a local disk `_alone` excludes this.
        if not self._certain(taken_over=data is not None):
            time.sleep(SETTLE_SECONDS)
            found = self.holder()
            if found is None or found.token != own.token:
                return False
        self._own, self._lost, self._over = own, "", threading.Event()
        fences.held.append(self)
        mine.append(self)
        self._thread = threading.Thread(target=self._renew, args=(threading.get_ident(),), name="lease", daemon=True)
        self._thread.start()
        return True

    def _reason(self, data: bytes) -> str:
        """Return why the holder that wrote `data` has lost its right, or ""."""
        now, holder = time.monotonic(), holders.parse(data)
        if data != self._seen[0]:
            self._seen = (data, now)
        if holder.is_dead():
            return "because its process has ended"
        if now - self._seen[1] >= EXPIRY_SECONDS:
            return f"because its lease was not renewed for {EXPIRY_SECONDS:.0f} s"
        wanted = os.environ.get(holders.TAKE_OVER, "")
        return "by --take-over" if wanted and wanted != holder.command else ""

    def _create(self, own: Holder) -> bool:
        data = holders.to_bytes(own)
        try:
            if self._local:
                files.check_writable(self.folder)
                with open(os.open(self._path(), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644), "wb") as file:
                    file.write(data)
            else:
                fs, path = files.open_fs(self.uri)
                fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            # A store may repeat a request whose answer was lost.
            return self._read() == data
        return True

    def _certain(self, *, taken_over: bool) -> bool:
        """Return whether the store allows only one process to create the lease."""
        return self._local or (not taken_over and self.uri.startswith(tuple(f"{name}:" for name in CONDITIONAL)))

    def _renew(self, worker: int) -> None:
        """Renew the lease until it is released; if it is lost, interrupt the thread that took it."""
        renewed = time.monotonic()
        while not self._over.wait(BEAT_SECONDS):
            try:
                with self._alone():
                    if not self._over.is_set():
                        self._beat()
                renewed = time.monotonic()
            except LostError:
                break
            except Exception as error:  # object stores raise types of their own
                if time.monotonic() - renewed > EXPIRY_SECONDS:
                    self._lost = f"its lease could not be renewed ({error})"
                    break
        if self._lost and not self._over.is_set():
            # The error is raised between two instructions of the thread. A job in the background may ignore signals.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker), ctypes.py_object(LostError))

    def _beat(self) -> None:
        self.check()
        assert self._own
        self._own = changed(self._own, beat=self._own.beat + 1)
        data = holders.to_bytes(self._own)
        if not self._local:
            fs, path = files.open_fs(self.uri)
            fs.pipe_file(path, data)
            return
        with open(self._path(), "r+b") as file:  # not created again if another process deletes it now
            file.write(data)

    def check(self) -> None:
        """Raise a LostError if this process has lost the lease."""
        holder = None
        if not self._lost:
            holder = self.holder()
            if self._own is not None and (holder is None or holder.token != self._own.token):
                self._lost = f"{holder} has taken it over" if holder else "another process has taken it over and ended"
        if self._lost:
            raise LostError(
                f"this process no longer works on {self.folder}: {self._lost}. It writes nothing more. Run the same "
                "command again: it waits for the other process and goes on with its result"
            )

    def release(self) -> None:
        """Delete the lease, if this process still holds it. If the store does not answer, the lease expires."""
        self._over.set()
        if self in fences.held:
            fences.held.remove(self)
        if self._thread is not None:
            self._thread.join()  # a thread that ends together with the process can abort it
            self._thread = None
        with contextlib.suppress(Exception), self._alone():  # object stores raise types of their own
            if self._own is not None:
                self.check()
                delete(self.uri)
        self._own = None

    def _path(self) -> str:
        return files.local_path(self.uri) or ""

    def _read(self) -> bytes | None:
        """Return the content of the lease, or None if there is none.

        Raises:
            InputError: If there is something else at its place: no holder would ever delete it.
        """
        if self._local:
            remedy = "when no other run uses this folder, delete it and run the same command again"
            if os.path.islink(self._path()):  # if it leads nowhere, it can neither be read nor be created
                raise InputError(f"{self._path()} is a link, expected a file; {remedy}")
            files.check_regular(self.uri, remedy)
        try:
            return files.read_bytes(self.uri)
        except (FileNotFoundError, NotADirectoryError):
            return None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Exclude the other processes of this machine, if the folder is on its disk."""
        if not self._local:
            yield
            return
        files.check_writable(self.folder)
        place = os.open(files.local_path(self.folder) or "", os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # a network disk may not have locks
                fcntl.flock(place, fcntl.LOCK_EX)
            yield
        finally:
            os.close(place)


_scope: contextvars.ContextVar[tuple[str, list[Lease]] | None] = contextvars.ContextVar("scope", default=None)


@contextlib.contextmanager
def working(verb: str) -> Iterator[None]:
    """Release the leases that are taken in the block at its end.

    Raises:
        LostError: If one of them was lost, in place of the error that followed from it.
    """
    mine: list[Lease] = []
    before = _scope.set((verb, mine))
    try:
        yield
    except BaseException as error:
        for lease in mine:
            try:
                lease.check()
            except LostError as lost:
                raise lost from error
            except Exception:  # the store does not answer: the first error counts
                break
        raise
    finally:
        _scope.reset(before)
        for lease in reversed(mine):
            lease.release()


def take(folder: str, name: str) -> Lease:
    """Wait for a lease, and return it."""
    lease = Lease(folder, name)
    wait(lease.take, lambda: [lease])
    return lease


def wait(is_over: Callable[[], bool], leases: Callable[[], list[Lease]]) -> None:
    """Wait until `is_over` returns true; print at once and every minute who holds the leases."""
    said = -SAY_SECONDS
    while not is_over():
        if time.monotonic() - said >= SAY_SECONDS or said < 0:
            said = time.monotonic()
            for lease in leases():
                if holder := lease.holder():
                    print(
                        f"waiting: {holder} works on {lease.uri.removesuffix(SUFFIX)}. A dead process is replaced "
                        f"after {EXPIRY_SECONDS:.0f} s, and --take-over replaces it at once",
                        file=sys.stderr,
                        flush=True,
                    )
        time.sleep(WAIT_SECONDS)


def names(folder: str) -> list[str]:
    """Return the names of the leases in a folder."""
    return [name.removesuffix(SUFFIX) for name in files.names(folder) if name.endswith(SUFFIX)]


def is_held(folder: str, name: str = OUTPUT) -> bool:
    """Return whether a process of any machine works; it may take `EXPIRY_SECONDS` to notice that none does."""
    lease, first = Lease(folder, name), time.monotonic()
    before = holder = lease.holder()
    while holder is not None and not holder.is_dead() and time.monotonic() - first < EXPIRY_SECONDS:
        if holder != before or holder.machine == holders.this_machine():
            return True
        time.sleep(WAIT_SECONDS)
        holder = lease.holder()
    return False


def replace(uri: str, create: Callable[[str], None]) -> None:
    """Replace one of several files that belong together, such as a tar and its table.

    Args:
        uri: The file. It is deleted first.
        create: Creates the file at its URI, and raises a FileExistsError if it exists.

    Raises:
        LostError: If another process has taken over the work on the folder.
    """
    while True:
        fences.check(uri)
        delete(uri)
        with contextlib.suppress(FileExistsError):  # written by a process that has lost its lease and does not know it
            create(uri)
            return


def remove_if_empty(folder: str) -> None:
    """Delete a folder of the local disk in which there is nothing, also no lease of another process."""
    path = files.local_path(folder)
    if path is not None and os.path.isdir(path):
        with contextlib.suppress(OSError, InputError), Lease(folder, OUTPUT)._alone():
            os.rmdir(path)


def delete(uri: str) -> None:
    """Delete a file, if it exists; unlike `files.delete`, this asks no listing that may be old."""
    fs, path = files.open_fs(uri)
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(path)
