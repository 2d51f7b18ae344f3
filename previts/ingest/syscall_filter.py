"""The system calls that a decoder may make: an allow-list, which libseccomp turns into a filter of the kernel.

Not in the paper. Every other call fails with EPERM, and the process goes on. A call of another architecture (32 bit)
ends the process with SIGSYS. libseccomp.so.2 is part of every Debian and Ubuntu, because apt needs it.
"""

import ctypes
import errno
import fcntl
import os

# Files that are open or in reach, memory, threads, time and random numbers. Names that a machine or an older libseccomp
# does not have are left out.
ALLOWED = """
    read readv pread64 preadv write writev pwrite64 pwritev lseek _llseek close dup dup2 dup3 close_range
    open openat stat lstat fstat newfstatat fstatat64 statx access faccessat faccessat2 readlink readlinkat getcwd
    getdents64 ftruncate fallocate fadvise64 fsync fdatasync unlink unlinkat
    recvmsg recvfrom poll ppoll select pselect6
    mmap munmap mremap mprotect madvise brk mincore membarrier
    futex futex_waitv set_robust_list get_robust_list rseq set_tid_address sched_yield sched_getaffinity getcpu
    sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack restart_syscall
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getrandom
    getpid getppid gettid getuid geteuid getgid getegid getrusage getrlimit setrlimit uname sysinfo
    arch_prctl exit exit_group
"""

_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_BAD_ARCHITECTURE, _ALL_THREADS = 2, 4  # SCMP_FLTATR_ACT_BADARCH, SCMP_FLTATR_CTL_TSYNC
_EQUAL, _MASKED_EQUAL = 4, 7  # SCMP_CMP_EQ, SCMP_CMP_MASKED_EQ
_CLONE_THREAD = 0x10000
_OWN_SETTINGS = (  # of descriptors; not F_SETOWN, with which a socket could send signals to others
    fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL,
)  # fmt: skip


class _Comparison(ctypes.Structure):
    _fields_ = (("argument", ctypes.c_uint), ("operator", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def _load() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None


_LIBRARY = _load()  # before the process loses its access to files


def apply() -> None:
    """Filter the system calls of this process from now on.

    Raises:
        OSError: If libseccomp is not installed or the kernel or the container does not allow filters.
    """
    library = _LIBRARY
    if library is None:
        raise OSError(0, "libseccomp.so.2 is not installed")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison),
    )  # fmt: skip
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ERRNO | errno.EPERM)))
    if not context:
        raise OSError(0, "libseccomp cannot make a filter")

    def add(action: int, name: str, *comparisons: _Comparison) -> None:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number != -1:
            array = (_Comparison * len(comparisons))(*comparisons)
            _check(library.seccomp_rule_add_array(context, action, number, len(comparisons), array))

    try:
        _check(library.seccomp_attr_set(context, _BAD_ARCHITECTURE, ctypes.c_uint32(_KILL_PROCESS)))
        _check(library.seccomp_attr_set(context, _ALL_THREADS, ctypes.c_uint32(1)))
        for name in ALLOWED.split():
            add(_ALLOW, name)
        for command in _OWN_SETTINGS:
            add(_ALLOW, "fcntl", _Comparison(1, _EQUAL, command, 0))
        # Threads, but no processes. The flags of clone3 are in memory, which a filter cannot read: libraries that get
        # ENOSYS from it use clone.
        add(_ALLOW, "clone", _Comparison(0, _MASKED_EQUAL, _CLONE_THREAD, _CLONE_THREAD))
        add(_ERRNO | errno.ENOSYS, "clone3")
        add(_ALLOW, "prlimit64", _Comparison(0, _EQUAL, 0, 0))  # its own limits
        add(_ALLOW, "tgkill", _Comparison(0, _EQUAL, os.getpid(), 0))  # abort() ends the process so
        _check(library.seccomp_load(context))
    finally:
        library.seccomp_release(context)


def _check(result: int) -> None:
    if result < 0:
        raise OSError(-result, f"seccomp: {os.strerror(-result)}")
