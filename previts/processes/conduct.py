"""Machine settings of a training run, read from environment variables; they change no result.

They are not part of the experiment, so that a training run can resume on another machine.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from previts.errors import InputError

WORKERS, ACCUMULATE, COMPILE = "PREVITS_WORKERS", "PREVITS_ACCUMULATE", "PREVITS_COMPILE"
CHECKPOINT_SECONDS, CACHE = "PREVITS_CHECKPOINT_SECONDS", "PREVITS_CACHE"
_UNITS = {"M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Conduct:
    """Machine settings of a training.

    Attributes:
        workers: Loader processes of each training process; None: as many as fit the machine.
        accumulate: Number of parts into which a process splits its share of a batch, if the share does not fit into
            memory. The parts are computed one after another; the result equals that of the whole share.
        compile: Whether the encoders are compiled by torch.compile.
        checkpoint_seconds: Longest time between two saved states, in seconds.
        cache: Folder on the local disk for blocks of a corpus in a bucket, and its largest size in bytes; None: no
            block is kept.
    """

    workers: int | None = None
    accumulate: int = 1
    compile: bool = False
    checkpoint_seconds: float = 600
    cache: tuple[str, int] | None = None


def read_conduct(environ: Mapping[str, str]) -> Conduct:
    """Return the settings in environment variables; an empty variable counts as not set.

    The variables are PREVITS_WORKERS, PREVITS_ACCUMULATE, PREVITS_COMPILE (1 or 0), PREVITS_CHECKPOINT_SECONDS and
    PREVITS_CACHE (folder:size, such as /mnt/disk/cache:200GB).

    Raises:
        InputError: If a value is not a whole number in its range, or not a folder and a size. The message names the
            variable.
    """
    default = Conduct()
    workers = _whole_number(environ, WORKERS, 0)
    return Conduct(
        workers=default.workers if workers is None else workers,
        accumulate=_whole_number(environ, ACCUMULATE, 1) or default.accumulate,
        compile=bool(_whole_number(environ, COMPILE, 0, 1)),
        checkpoint_seconds=_whole_number(environ, CHECKPOINT_SECONDS, 1) or default.checkpoint_seconds,
        cache=_cache(environ),
    )


def _cache(environ: Mapping[str, str]) -> tuple[str, int] | None:
    text = environ.get(CACHE, "")
    if not text:
        return None
    match = re.fullmatch(r"(.+):([0-9]+)([MGT])B", text)
    if not match or "://" in match[1]:
        raise InputError(
            f"the environment variable {CACHE} must be a folder of this machine and a size in MB, GB or TB, such as "
            f"/mnt/disk/cache:200GB; got {text!r}"
        )
    return os.path.abspath(match[1]), int(match[2]) * _UNITS[match[3]]


def _whole_number(environ: Mapping[str, str], variable: str, least: int, most: int | None = None) -> int | None:
    text = environ.get(variable, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()) or int(text) < least or (most is not None and int(text) > most):
        allowed = f"{least} or more" if most is None else f"from {least} to {most}"
        raise InputError(f"the environment variable {variable} must be a whole number, {allowed}; got {text!r}")
    return int(text)
