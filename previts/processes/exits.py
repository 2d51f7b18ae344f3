"""How a process ends: user errors as one message, signals as exit codes."""

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Iterator

from previts.errors import InputError
from previts.processes import workers

# What object stores raise; the types share no ancestor with each other or with OSError.
STORE_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("gcsfs.retry", "HttpError"),
    ("aiohttp", "ClientError"),
)


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
    "pipelines": ("kfp",),
}


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """End the process with a readable error where its input, installation or environment is at fault."""
    over = threading.Event()
    if engine := os.environ.get(workers.STARTED_BY, ""):
        threading.Thread(target=workers.end_with, args=(int(engine), over), daemon=True).start()
    try:
        yield
    except (InputError, OSError, FloatingPointError) as error:
        if os.environ.get("PREVITS_TRACEBACK"):
            traceback.print_exc()
        text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        rank = os.environ.get("RANK", "")  # of a process that torchrun started
        print(f"previts: process {rank}: {text}" if rank else f"previts: {text}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
        if extra is None:  # a fault of ours, or a broken installation
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
            f"previts: the object store did not serve ({type(error).__name__}: {error}); look at its address, at this "
            "machine's credentials for it and at the network",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        print("previts: stopped; the same command goes on where this one stopped", file=sys.stderr)
        sys.exit(130)
    finally:
        over.set()


def _store_errors() -> tuple[type[Exception], ...]:
    """Return the error types of the object stores that were used at all."""
    return tuple(getattr(sys.modules[module], name) for module, name in STORE_ERRORS if module in sys.modules)
