"""Exit messages and exit codes of a process: one readable message instead of a traceback for user errors.

The exit code is 2 for an error that the user can fix, and 1 for an error of the machine or a store (in a process of
torchrun `TEMPORARY`, if its cause may pass). It is 130 after Ctrl-C, and 141 if the program that reads the output has
ended, as after `| head`; this is no error, so nothing is printed.
"""

import contextlib
import errno
import os
import select
import sys
import threading
import traceback
from collections.abc import Iterator

from previts.errors import InputError, PeerLostError, TemporaryError
from previts.processes import command_folder, disks, workers

# Errors of object stores; the types have no common base class besides Exception.
STORE_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("gcsfs.retry", "HttpError"),
    ("aiohttp", "ClientError"),
)
# Those of them that say that the store was not reached.
TRANSPORT = (
    ("botocore.exceptions", "ConnectionError"),
    ("botocore.exceptions", "HTTPClientError"),
    ("google.auth.exceptions", "TransportError"),
    ("aiohttp", "ClientError"),
)
# Errors that are the same after a pause: of paths and rights, and of a process whose peer has the cause.
LASTING = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    PeerLostError,
)
LASTING_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.EFBIG, errno.EINVAL, errno.ELOOP)
# Answers of a store that may be different after a pause.
TOO_EARLY, TIMED_OUT, BUSY, SERVER = 425, 408, 429, 500
TEMPORARY = 75  # exit code of a training process whose failure may pass, for the process that started it (sysexits.h)
# The optional packages that previts imports, by the extra that installs them.
EXTRAS = {
    "data": ("av", "cv2", "filterpy", "PIL", "scipy", "threadpoolctl"),
    "train": (
        "jinja2",
        "markupsafe",
        "matplotlib",
        "mlflow",
        "pycocotools",
        "sklearn",
        "sqlalchemy",
        "torch",
        "torchvision",
    ),
    "launch": ("kubernetes", "psutil", "torchx", "yaml"),
    "pipelines": ("kfp", "kfp_server_api"),
    "youtube": ("yt_dlp",),
}


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Print a readable message and exit, if an error comes from the input, the installation or the environment.

    With PREVITS_TRACEBACK set, the traceback is printed too. Any other error keeps its traceback. Temporary files
    of the block are deleted. If an engine started this process (`workers.STARTED_BY`), the process is killed when the
    engine ends.
    """
    over = threading.Event()
    if engine := os.environ.get(workers.STARTED_BY, ""):
        threading.Thread(target=workers.end_with, args=(int(engine), over), daemon=True).start()
    try:
        with command_folder.temporary_folder():
            yield
        sys.stdout.flush()
    except (InputError, OSError, FloatingPointError) as error:
        if isinstance(error, BrokenPipeError) and _reader_ended():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes the rest at its end
            sys.exit(141)
        if os.environ.get("PREVITS_TRACEBACK"):
            traceback.print_exc()
        text = message_of(error)
        rank = os.environ.get("RANK", "")  # set by torchrun
        print(f"previts: process {rank}: {text}" if rank else f"previts: {text}", file=sys.stderr)
        sys.exit(_code(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
        if extra is None:  # a bug, or a broken installation
            raise
        if os.environ.get("PREVITS_TRACEBACK"):
            traceback.print_exc()
        print(
            f"previts: the package {package} is not installed; this command needs the extra {extra!r}: "
            f"pip install 'previts[{extra}]'",
            file=sys.stderr,
        )
        sys.exit(2)
    except _store_errors() as error:
        if os.environ.get("PREVITS_TRACEBACK"):
            traceback.print_exc()
        print(
            f"previts: the object store request failed ({type(error).__name__}: {error}); "
            "check the URI, the credentials of this machine and the network",
            file=sys.stderr,
        )
        sys.exit(_code(error))
    except KeyboardInterrupt:
        print("previts: interrupted; run the same command again to resume", file=sys.stderr)
        sys.exit(130)
    finally:
        over.set()


def _code(error: BaseException) -> int:
    """Return the exit code of a process that ends with an error."""
    if os.environ.get("RANK") and may_pass(error):
        return TEMPORARY
    return 2 if isinstance(error, InputError) and not isinstance(error, TemporaryError) else 1


def message_of(error: BaseException) -> str:
    """Return the message of an error for the user."""
    if isinstance(error, OSError) and (explained := disks.explain(error)):
        return explained
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


def may_pass(error: BaseException) -> bool:
    """Return whether the cause of an error may pass, such as an outage of a store or of the network.

    The cause of wrong input, a missing file, a missing right or a full disk does not pass by itself.
    """
    if isinstance(error, InputError):
        return isinstance(error, TemporaryError)
    if isinstance(error, _store_errors()):
        status = _status(error)
        if status:
            return status in (TIMED_OUT, TOO_EARLY, BUSY) or status >= SERVER
        return isinstance(error, _loaded(TRANSPORT))
    return isinstance(error, OSError) and not isinstance(error, LASTING) and error.errno not in LASTING_CODES


def _status(error: BaseException) -> int:
    """Return the HTTP status of a store's answer, or 0 if there was none."""
    answer = getattr(error, "response", None)
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
    text = str(status or getattr(error, "status", None) or getattr(error, "code", None))
    return int(text) if text.isdigit() else 0


def _reader_ended() -> bool:
    """Return whether stdout is a pipe that nothing reads any more."""
    with contextlib.suppress(OSError, ValueError):  # stdout is no file
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0))
    return False


def _store_errors() -> tuple[type[Exception], ...]:
    """Return the error types of the object stores whose libraries are loaded."""
    return _loaded(STORE_ERRORS)


def _loaded(names: tuple[tuple[str, str], ...]) -> tuple[type[Exception], ...]:
    """Return the types that are given as (module, name), without those of modules that are not loaded."""
    return tuple(getattr(sys.modules[module], name) for module, name in names if module in sys.modules)
