"""The confinement of a process that reads strangers' bytes: Linux takes away all that it does not need.

Not in the paper. The process confines itself, after its imports and before it reads anything untrusted. What Linux
offers depends on the kernel, the container and the user, so each layer may be missing, and `confine` says which hold.

The layers, in the order in which they are applied:
    - no_new_privs: no program can give the process more rights.
    - network_namespace: a network without devices, not even loopback, and without sockets of others.
    - mount_namespace: the process sees one folder as its root; no other file, and no /proc.
    - capabilities: none are left, so root cannot read the memory of others either.
    - process_limit: at most `MAX_TASKS` threads. Linux exempts root from it.
    - landlock_files, landlock_tcp, landlock_signals: no file outside the folder and no new file in it, no TCP
      connection, and no signal, tracing or abstract socket to a process outside.
    - seccomp: only the system calls of `syscall_filter.py`; no socket, process, program or signal to others.

The process that starts it hides itself (`hidden`), so that no process of the same user can read its environment.
This module knows nothing about videos.
"""

import contextlib
import ctypes
import os
import platform
import resource
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from previts.errors import InputError, VideoError
from previts.ingest import syscall_filter

HELD = "held"
SETTING = "PREVITS_SANDBOX"  # "strict": refuse to work if access to files or to the network is not confined
FILES = ("mount_namespace", "landlock_files")  # one of them is enough
NETWORK = ("network_namespace", "seccomp")
STEPS = ("no_new_privs", "namespaces", "capabilities", "process_limit", "landlock", "seccomp")
MAX_TASKS = 64

_SYSTEM = platform.system()
_libc = ctypes.CDLL(None, use_errno=True)

# linux/prctl.h, linux/sched.h, linux/mount.h, linux/capability.h
_GET_DUMPABLE, _SET_DUMPABLE, _SET_NO_NEW_PRIVS, _CAPBSET_DROP, _CAP_AMBIENT, _CLEAR_ALL = 3, 4, 38, 24, 47, 4
_NEW_MOUNTS, _NEW_IPC, _NEW_USER, _NEW_NETWORK = 0x20000, 0x08000000, 0x10000000, 0x40000000
_BIND, _RECURSIVE, _PRIVATE, _DETACH = 0x1000, 0x4000, 1 << 18, 2
_CAPABILITY_VERSION_3 = 0x20080522
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

# linux/landlock.h: rights for files, of which older versions (ABI) know only the first ones
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG, _TRUNCATE = 1, 2, 4, 8, 1 << 5, 1 << 8, 1 << 14
_KNOWN_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # number of rights by ABI; 16 since ABI 5
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_BIND_AND_CONNECT_TCP, _ABSTRACT_SOCKETS_AND_SIGNALS = 3, 3


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("folder", ctypes.c_int32))


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def confine(folder: str, steps: Collection[str] = STEPS) -> dict[str, str]:
    """Confine this process, which must have one thread, to a folder; the folder becomes its working directory.

    It stays able to use the files that it has open, and to read, write and remove the files of the folder. Landlock
    lets it create none, so that it cannot fill the disk.

    Args:
        folder: The only folder that stays accessible. Its path may change, so use relative paths.
        steps: What to apply, of `STEPS`; tests leave some out.

    Returns:
        For each layer, `HELD` or the reason why it is missing.
    """
    user = os.getuid()
    os.chdir(folder)
    layers: dict[str, str] = {}
    with contextlib.suppress(OSError):
        _call("prctl", _SET_DUMPABLE, 0, 0, 0, 0)  # decoders of one user must not read each other
    _apply(layers, steps, "no_new_privs", ("no_new_privs",), _allow_no_new_privileges)
    _apply(layers, steps, "namespaces", ("network_namespace", "mount_namespace"), _leave_namespaces)
    _apply(layers, steps, "capabilities", ("capabilities",), _drop_capabilities)
    in_namespace = layers.get("network_namespace") == HELD
    _apply(layers, steps, "process_limit", ("process_limit",), lambda: _limit_tasks(user, in_namespace=in_namespace))
    names = ("landlock_files", "landlock_tcp", "landlock_signals")
    _apply(layers, steps, "landlock", names, lambda: _restrict_files([], ["."], create=False))
    _apply(layers, steps, "seccomp", ("seccomp",), _filter_system_calls)
    return layers


def confine_files(readable: Sequence[str], folder: str) -> dict[str, str]:
    """Confine this process, which needs the network, to reading some paths and to working in a folder.

    It keeps its network, and may start programs below `readable`. Paths that do not exist are left out.

    Returns:
        For each layer, `HELD` or the reason why it is missing.
    """
    layers: dict[str, str] = {}
    _apply(layers, STEPS, "no_new_privs", ("no_new_privs",), _allow_no_new_privileges)
    _apply(layers, STEPS, "capabilities", ("capabilities",), _drop_capabilities)
    names = ("landlock_files", "landlock_signals")
    _apply(layers, STEPS, "landlock", names, lambda: _restrict_files(readable, [folder, "/dev/null"], tcp=True))
    return layers


def check(layers: Mapping[str, str], *, network: bool = False) -> None:
    """Refuse layers that are not enough for `PREVITS_SANDBOX=strict`.

    Args:
        layers: What `confine` or `confine_files` returned.
        network: Whether the process needs the network, so that only its files are to be confined.

    Raises:
        InputError: If the setting is `strict` and files or the network are not confined, or if it has another value.
    """
    setting = os.environ.get(SETTING, "")
    if setting not in ("", "strict"):
        raise InputError(f"{SETTING} must be 'strict' or not set, got {setting!r}")
    for what, names in (("files", FILES), ("the network", NETWORK)):
        if setting and not (network and names == NETWORK) and all(layers.get(name) != HELD for name in names):
            reasons = ", ".join(f"{name}: {layers.get(name, 'not applied')}" for name in names)
            raise InputError(
                f"{SETTING}=strict, but this machine does not keep the child from {what} ({reasons}). "
                f"Use a newer kernel or another container runtime, or unset {SETTING}"
            )


def combine(processes: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the layers of several processes together: a layer holds if it holds for all."""
    layers: dict[str, str] = {}
    for process in processes:
        layers |= {name: state for name, state in process.items() if layers.get(name, HELD) == HELD}
    return layers


def describe(layers: Mapping[str, str]) -> str:
    """Return one line about layers, for a log."""
    held = ", ".join(name for name, state in layers.items() if state == HELD) or "nothing"
    missing = ", ".join(f"{name} ({state})" for name, state in layers.items() if state != HELD)
    return f"decoders are confined by {held}" + (f"; missing: {missing}" if missing else "")


def environment(*names: str) -> dict[str, str]:
    """Return the environment of a confined child: what Python needs to find its packages, and the variables `names`."""
    kept = ("PATH", "LD_LIBRARY_PATH", "LANG", *names)
    packages = [str(Path(__file__).resolve().parents[2]), *(entry for entry in sys.path if entry)]
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONPATH": os.pathsep.join(packages)}


def take(path: str, target: str) -> None:
    """Move a file that a confined process wrote to `target`.

    Raises:
        VideoError: If it is not a plain file of its own: a link could lead to a file of someone else.
    """
    shutil.move(path, target)
    found = os.lstat(target)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.remove(target)
        raise VideoError("the decoder wrote a link or a special file instead of a video")


class _Hiding:
    """How many `hidden` blocks are open, and what to restore after the last."""

    lock = threading.Lock()
    count = 0
    before = 1


@contextlib.contextmanager
def hidden() -> Iterator[str]:
    """Hide the memory and the environment of this process from the processes of its user while the block runs.

    Debuggers, profilers such as py-spy, and core dumps do not work meanwhile. Yields `HELD` or the reason why not.
    """
    with _Hiding.lock:
        try:
            if _Hiding.count == 0:
                _Hiding.before = _call("prctl", _GET_DUMPABLE, 0, 0, 0, 0)
                _call("prctl", _SET_DUMPABLE, 0, 0, 0, 0)
            state = HELD
        except OSError as error:
            state = str(error.strerror)
        _Hiding.count += 1
    try:
        yield state
    finally:
        with _Hiding.lock:
            _Hiding.count -= 1
            if _Hiding.count == 0 and state == HELD:
                _call("prctl", _SET_DUMPABLE, 1 if _Hiding.before == 1 else 0, 0, 0, 0)


def _apply(
    layers: dict[str, str],
    steps: Collection[str],
    step: str,
    names: Sequence[str],
    function: Callable[[], Mapping[str, str] | None],
) -> None:
    """Apply a step and note the state of its layers."""
    if step not in steps:
        return
    try:
        layers |= dict.fromkeys(names, HELD) | dict(function() or {})
    except OSError as error:
        layers |= dict.fromkeys(names, str(error.strerror))


def _call(name: str, *arguments: object) -> int:
    """Call a function of the C library.

    Raises:
        OSError: If it fails, or if this system is not Linux.
    """
    if _SYSTEM != "Linux":
        raise OSError(0, f"{_SYSTEM} does not have it")
    function = getattr(_libc, name)
    plain = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    result = int(function(*plain))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _landlock(what: str, number: int, *arguments: object) -> int:
    """Make a system call of Landlock."""
    try:
        return _call("syscall", number, *arguments)
    except OSError as error:
        raise OSError(error.errno, f"{what}: {os.strerror(error.errno or 0)}") from None


def _allow_no_new_privileges() -> None:
    _call("prctl", _SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _leave_namespaces() -> dict[str, str]:
    _call("unshare", _NEW_USER | _NEW_MOUNTS | _NEW_NETWORK | _NEW_IPC)
    try:
        _change_root()
    except OSError as error:
        return {"mount_namespace": str(error.strerror)}
    return {}


def _change_root() -> None:
    """Make the working directory the root, and let go of all other mounts."""
    machine = os.uname().machine
    if machine not in _PIVOT_ROOT:
        raise OSError(0, f"the number of pivot_root on {machine} is not known")
    here = os.getcwd()
    _call("mount", None, b"/", None, _RECURSIVE | _PRIVATE, None)
    _call("mount", b".", b".", None, _BIND, None)
    os.chdir(here)  # into the new mount
    _call("syscall", _PIVOT_ROOT[machine], b".", b".")
    _call("umount2", b".", _DETACH)
    os.chdir("/")


def _drop_capabilities() -> None:
    for number in range(64):
        with contextlib.suppress(OSError):  # a number that this kernel does not have, or not allowed: then we have none
            _call("prctl", _CAPBSET_DROP, number, 0, 0, 0)
    with contextlib.suppress(OSError):  # before Linux 4.3
        _call("prctl", _CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    _call("capset", ctypes.byref(header), (ctypes.c_uint32 * 6)())


def _limit_tasks(user: int, *, in_namespace: bool) -> None:
    if not in_namespace:
        raise OSError(0, "without a namespace, it would count all processes of the user")
    resource.setrlimit(resource.RLIMIT_NPROC, (MAX_TASKS, MAX_TASKS))
    if user == 0:
        raise OSError(0, "root is exempt")


def _restrict_files(
    readable: Sequence[str], writable: Sequence[str], *, tcp: bool = False, create: bool = True
) -> dict[str, str]:
    """Apply Landlock; return which of its layers this kernel does not have."""
    abi = _landlock("Landlock", _CREATE_RULESET, None, 0, 1)
    rights = (1 << _KNOWN_RIGHTS.get(abi, 16)) - 1
    ruleset = _Ruleset(
        rights, 0 if tcp or abi < 4 else _BIND_AND_CONNECT_TCP, _ABSTRACT_SOCKETS_AND_SIGNALS if abi >= 6 else 0
    )
    descriptor = _landlock("Landlock", _CREATE_RULESET, ctypes.byref(ruleset), ctypes.sizeof(ruleset), 0)
    try:
        for path in readable:
            _add_rule(descriptor, path, rights & (_EXECUTE | _READ_FILE | _READ_DIR))
        own = _WRITE_FILE | _READ_FILE | _READ_DIR | _REMOVE_FILE | _TRUNCATE | (_MAKE_REG if create else 0)
        for path in writable:
            _add_rule(descriptor, path, rights & own)
        _landlock("Landlock", _RESTRICT_SELF, descriptor, 0)
    finally:
        os.close(descriptor)
    missing = {} if tcp or abi >= 4 else {"landlock_tcp": f"Landlock ABI {abi} is older than 4"}
    return missing if abi >= 6 else missing | {"landlock_signals": f"Landlock ABI {abi} is older than 6"}


def _add_rule(ruleset: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= _EXECUTE | _READ_FILE | _WRITE_FILE | _TRUNCATE
        rule = _PathBeneath(rights, opened)
        _landlock("Landlock", _ADD_RULE, ruleset, 1, ctypes.byref(rule), 0)
    finally:
        os.close(opened)


def _filter_system_calls() -> None:
    syscall_filter.apply()
