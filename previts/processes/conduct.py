"""How a training is carried out: settings of a machine, read from the environment, that change no result.

They are no part of an experiment, so that a run may resume on another machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from previts.errors import InputError

WORKERS, ACCUMULATE, COMPILE = "PREVITS_WORKERS", "PREVITS_ACCUMULATE", "PREVITS_COMPILE"
CHECKPOINT_SECONDS = "PREVITS_CHECKPOINT_SECONDS"


@dataclass(frozen=True)
class Conduct:
    """How a training is carried out.

    Attributes:
        workers: Loader processes of each training process; None: as the machine has room for.
        accumulate: Parts in which a process computes its share of a batch one after another, for a share that does not
            fit into memory; the result is that of the whole.
        compile: Whether the encoders go through torch.compile.
        checkpoint_seconds: A state is saved at least every so many seconds.
    """

    workers: int | None = None
    accumulate: int = 1
    compile: bool = False
    checkpoint_seconds: float = 600


def read_conduct(environ: Mapping[str, str]) -> Conduct:
    """Return the conduct that environment variables set; an empty variable counts as not set.

    PREVITS_WORKERS, PREVITS_ACCUMULATE, PREVITS_COMPILE (1 or 0) and PREVITS_CHECKPOINT_SECONDS.

    Raises:
        InputError: If a value is not a whole number in its range; names the variable.
    """
    default = Conduct()
    workers = _whole_number(environ, WORKERS, 0)
    return Conduct(
        workers=default.workers if workers is None else workers,
        accumulate=_whole_number(environ, ACCUMULATE, 1) or default.accumulate,
        compile=bool(_whole_number(environ, COMPILE, 0, 1)),
        checkpoint_seconds=_whole_number(environ, CHECKPOINT_SECONDS, 1) or default.checkpoint_seconds,
    )


def _whole_number(environ: Mapping[str, str], variable: str, least: int, most: int | None = None) -> int | None:
    text = environ.get(variable, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()) or int(text) < least or (most is not None and int(text) > most):
        allowed = f"{least} or more" if most is None else f"from {least} to {most}"
        raise InputError(f"the environment variable {variable} must be a whole number, {allowed}; got {text!r}")
    return int(text)
