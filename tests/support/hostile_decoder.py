"""A decoder that a video has taken over: it tries what the sandbox must refuse, and says what succeeded.

As a program, it starts this decoder once for each choice of layers, from a process with a secret, and prints the
results as JSON: for each choice, the layers and the error of each attack ("" if it succeeded).
"""

import contextlib
import ctypes
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

CHOICES = {
    "nothing": (),
    "namespaces": ("no_new_privs", "namespaces"),
    "capabilities": ("no_new_privs", "capabilities"),
    "landlock": ("no_new_privs", "landlock"),
    "seccomp": ("no_new_privs", "seccomp"),
    "everything": ("no_new_privs", "namespaces", "capabilities", "process_limit", "landlock", "seccomp"),
}
SECRET = "hush-hush"


class Text(str):
    """A text in place of bytes: it says that its hexadecimal form is itself."""

    def hex(self):
        return str(self)


WRONG_FIELDS = {  # of a `VideoInfo` that is right otherwise
    "half a hash": {"hashes": bytes(1 + 8)},
    "no hash": {"hashes": bytes(1)},
    "too many hashes": {"hashes": bytes(1 + 257 * 48)},
    "too many doublings": {"hashes": bytes([33]) + bytes(48)},
    "hashes that are no digits": {"hashes": Text("hash")},
    "hashes that are no text": {"hashes": type("Number", (int,), {"hex": int})(7)},
    "skipped frames below 0": {"skipped_frames": -1},
    "missing seconds as text": {"missing_seconds": "1"},
    "infinite missing seconds": {"missing_seconds": float("inf")},
}
_libc = ctypes.CDLL(None, use_errno=True)


def system_call(function, *arguments):
    result = function(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def connect(kind, address):
    with socket.socket(*kind) as connection:
        connection.settimeout(5)
        connection.connect(address)
        if kind[1] == socket.SOCK_DGRAM:
            connection.send(b"secret")


def environment_of(process):
    if SECRET not in Path(f"/proc/{process}/environ").read_text():
        raise OSError("no secret there")


def trace(process):
    system_call(_libc.ptrace, 16, process, None, None)  # PTRACE_ATTACH
    os.waitpid(process, 0x40000000)  # __WALL
    system_call(_libc.ptrace, 17, process, None, None)  # PTRACE_DETACH


def read_memory(process):
    """Read 8 bytes at the address of this process's own libc; the answer EFAULT means that reading is allowed."""
    buffer = ctypes.create_string_buffer(8)
    vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    other = (ctypes.c_void_p * 2)(0x1000, 8)
    try:
        system_call(_libc.process_vm_readv, process, vector, 1, other, 1, 0)
    except OSError as error:
        if error.strerror != os.strerror(14):
            raise


def fork():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def run_program():
    try:
        os.execv("/does/not/exist", ["x"])
    except FileNotFoundError:
        return  # the kernel looked for it


def own_secret():
    if SECRET not in os.environ.values():
        raise OSError("no secret there")


def inherited_socket():
    for number in range(3, 64):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                return
    raise OSError("no socket there")


def own_thread():
    thread = threading.Thread(target=time.sleep, args=(0,))
    thread.start()
    thread.join()


def many_threads():
    """Start 200 threads."""
    over = threading.Event()
    threads = []
    try:
        for _ in range(200):
            threads.append(threading.Thread(target=over.wait))
            threads[-1].start()
    except RuntimeError as error:
        threads.pop()
        raise OSError(str(error)) from error
    finally:
        over.set()
        for thread in threads:
            thread.join()


def attack(place):
    """Try everything, the worst last; return the error of each attack, "" if it succeeded."""
    outside, victim = Path(place["outside"]), place["victim"]
    attacks = {
        "own file": lambda: (Path("video.mp4").write_text("x"), Path("video.mp4").read_text(), os.remove("video.mp4")),
        "new file": lambda: (Path("other").write_text("x"), os.remove("other")),
        "own thread": own_thread,
        "own environment": own_secret,
        "inherited socket": inherited_socket,
        "many threads": many_threads,
        "list the root": lambda: os.stat("/etc") and os.listdir("/"),
        "read a file": lambda: (outside / "secret").read_text(),
        "write a file": lambda: (outside / "new").write_text("x"),
        "overwrite a file": lambda: (outside / "old").write_text("x"),
        "truncate a file": lambda: os.truncate(outside / "old", 0),
        "change a mode": lambda: os.chmod(outside / "old", 0o666),
        "remove a file": lambda: os.remove(outside / "lost"),
        "make a link": lambda: (os.symlink("/etc/passwd", "link"), os.remove("link")),
        "make a pipe": lambda: (os.mkfifo("pipe"), os.remove("pipe")),
        "environment of another process": lambda: environment_of(victim),
        "environment of the parent": lambda: environment_of(place["parent"]),
        "memory of another process": lambda: read_memory(victim),
        "trace another process": lambda: trace(victim),
        "limits of another process": lambda: resource.prlimit(victim, resource.RLIMIT_NOFILE, (100, 100)),
        "tcp": lambda: connect((socket.AF_INET, socket.SOCK_STREAM), ("127.0.0.1", place["tcp"])),
        "udp": lambda: connect((socket.AF_INET, socket.SOCK_DGRAM), ("127.0.0.1", place["udp"])),
        "unix socket": lambda: connect((socket.AF_UNIX, socket.SOCK_STREAM), str(outside / "socket")),
        "abstract socket": lambda: connect((socket.AF_UNIX, socket.SOCK_STREAM), place["abstract"]),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
        "signals from a socket": lambda: fcntl.fcntl(0, fcntl.F_SETOWN, victim),
        "fork": fork,
        "run a program": run_program,
        "io_uring": lambda: os.close(system_call(_libc.syscall, 425, 4, ctypes.create_string_buffer(256))),
        "mount": lambda: (
            system_call(_libc.mount, b"none", os.getcwd().encode(), b"tmpfs", 0, None)
            or system_call(_libc.umount2, os.getcwd().encode(), 2)
        ),
        "new namespace": lambda: system_call(_libc.unshare, 0x10000000 if os.getuid() else 0x08000000),
        "kill another process": lambda: os.kill(victim, signal.SIGTERM),
    }
    results = {}
    for name, function in attacks.items():
        try:
            function()
            results[name] = ""
        except OSError as error:
            results[name] = error.strerror or str(error)
    return results


def is_pipe(number):
    with contextlib.suppress(OSError):
        return stat.S_ISFIFO(os.fstat(number).st_mode)
    return False


def call_in_32_bits():
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("53b814000000cd805bc3"))  # push rbx; mov eax, 20 (getpid); int 0x80; pop rbx; ret
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()


def forbid(error, *names):
    """Make system calls fail in this process and its children, as the seccomp profile of a container does."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(0x7FFF0000))  # SCMP_ACT_ALLOW
    for name in names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        assert library.seccomp_rule_add_array(context, 0x00050000 | error, number, 0, None) == 0
    assert library.seccomp_load(context) == 0


def serve(behaviour, steps):
    """Be the child of a `Normaliser`, confined by some steps only; see `program` for the behaviours."""
    from previts.errors import VideoError
    from previts.ingest import sandbox
    from previts.media.gop_layout import VideoInfo

    def decode(source, target, config, start_seconds, end_seconds, made):
        match behaviour:
            case "link":
                os.remove(target)
                os.symlink("/etc/passwd", target)
            case "hard link":
                os.link(target, "other")
            case "babble" | "lie":
                Path(target).write_text("x")
                text = b"[[[}\n" if behaviour == "babble" else b'{"video": {"width": "wide"}, "cpu_seconds": 0}\n'
                os.write(next(number for number in range(3, 64) if is_pipe(number)), text)
                time.sleep(60)
            case "32 bits":
                call_in_32_bits()
                raise VideoError("the call was allowed")
            case "wrong offsets":
                Path(target).write_text("x")
                return VideoInfo(2, 2, 2, 25.0, b"", [0], [0, 1000])
            case str() if behaviour in WRONG_FIELDS:
                Path(target).write_text("x")
                return VideoInfo(2, 2, 2, 25.0, b"", [0], [0, 1], **WRONG_FIELDS[behaviour])
            case place:
                raise VideoError(json.dumps(attack(place)))
        return VideoInfo(2, 2, 2, 25.0, b"", [0], [0, 1])

    sandbox.serve(json.loads(sys.argv[1]), decode, steps)


def program(behaviour, steps):
    """Return the arguments of Python that start this decoder.

    Args:
        behaviour: "link", "hard link" (it stores one instead of a video), "babble", "lie", "wrong offsets" (invalid
            replies), "32 bits" (a system call of i386), or what the attacks need to know.
        steps: How it is confined, of `confinement.STEPS`.
    """
    return ["-c", f"import hostile_decoder; hostile_decoder.serve({behaviour!r}, {steps!r})"]


def main():
    from previts.config.perception import VideoConfig
    from previts.errors import VideoError
    from previts.ingest import sandbox

    found = {}
    for choice, steps in CHOICES.items():
        with contextlib.ExitStack() as stack:
            outside = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for name in ("secret", "old", "lost", "source"):
                (outside / name).write_text(SECRET)
            unix = stack.enter_context(socket.socket(socket.AF_UNIX))
            unix.bind(str(outside / "socket"))
            abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
            abstract.bind(f"\0previts-{os.getpid()}")
            tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            tcp.set_inheritable(True)
            udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            udp.bind(("127.0.0.1", 0))
            unix.listen()
            abstract.listen()
            victim = stack.enter_context(subprocess.Popen(["sleep", "600"]))
            stack.callback(victim.kill)
            place = {
                "outside": str(outside),
                "victim": victim.pid,
                "parent": os.getpid(),
                "tcp": tcp.getsockname()[1],
                "udp": udp.getsockname()[1],
                "abstract": f"\0previts-{os.getpid()}",
            }
            normaliser = stack.enter_context(sandbox.Normaliser(VideoConfig(), program=program(place, steps)))
            try:
                normaliser.normalise(str(outside / "source"), str(outside / "target"), None, None)
            except VideoError as error:
                text = str(error)
            try:
                found[choice] = {"layers": normaliser.layers, "results": json.loads(text)}
            except ValueError:
                sys.exit(f"{choice}: {text}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
