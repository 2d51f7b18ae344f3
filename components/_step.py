"""What every step does around its work: readable errors, and what the KFP page shows.

The compiled YAML calls these functions by name. In addition it calls only verbs of `previts.stages` and functions
of `previts.runs.steps`. Other modules can change without a new compile.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from previts.errors import InputError
from previts.processes import machine
from previts.processes.exits import may_pass, message_of, readable_errors
from previts.runs import ends
from previts.stages import outputs
from previts.storage import files, folders

PAUSES = (20.0, 60.0, 180.0)  # seconds before each repetition, for outages that outlast the retries of the libraries

Result = TypeVar("Result")
Outputs = TypeVar("Outputs", dict[str, str], list[str])


class _RepeatedError(InputError):
    """The failure of an earlier attempt, which another attempt would only repeat."""


def run(work: Callable[[], Result], *, root: str = "", name: str = "") -> Result:
    """Do the work of a step, and end the process with a readable message if it fails.

    In a pod, the work is repeated after a failure that may pass. KFP would drive the whole step again, or not at all.
    After a failure that would repeat, another attempt in the same run of the pipeline ends at once.

    Args:
        work: The work; it may be repeated.
        root: Root of the results, for the note of a failure; "" writes none.
        name: Name of the step with its part, which is unique in a run.
    """
    machine.limit_threads()
    with readable_errors():
        return _repeated(work, root, name)


def _repeated(work: Callable[[], Result], root: str, name: str) -> Result:
    pauses = list(PAUSES) if machine.is_pod() else []
    try:
        while True:
            try:
                if reason := ends.final_failure(root, name):
                    raise _RepeatedError(f"{reason}\nThis was the failure of an earlier attempt in the same run.")
                return work()
            except Exception as error:
                if not pauses or not may_pass(error):
                    raise
                pause = pauses.pop(0)
                print(f"previts: {message_of(error)}\nThe step is repeated in {pause:.0f} s.", file=sys.stderr)
                time.sleep(pause)
    except _RepeatedError:
        raise
    except Exception as error:
        final = isinstance(error, InputError) and not may_pass(error)
        _note(root, name, message_of(error), final=final)
        raise


def _note(root: str, name: str, reason: str, *, final: bool) -> None:
    """Write the note of a failure; without it, the failure itself still counts."""
    try:
        ends.note(root, name, reason, final=final)
    except Exception as error:  # the root may be what failed
        print(f"previts: the failure cannot be noted in {root}: {message_of(error)}", file=sys.stderr)


def run_stage(
    work: Callable[[], str], summary: str, metrics: dict[str, Any] | None = None, *, root: str = "", name: str = ""
) -> str:
    """Run a stage and describe its output.

    Args:
        work: Runs the stage and returns the URI of its output.
        summary: Path of the Markdown file that the KFP page shows.
        metrics: Filled with the counts of the output.
        root: As of `run`.
        name: As of `run`.

    Returns:
        The URI of the output.
    """
    return run_stages(lambda: [work()], summary, metrics, root=root, name=name)[0]


def run_stages(
    work: Callable[[], Outputs],
    summary: str,
    metrics: dict[str, Any] | None = None,
    *,
    root: str = "",
    name: str = "",
) -> Outputs:
    """Run a step that makes several outputs, and describe them as `run_stage` does."""
    machine.limit_threads()
    with readable_errors(), open(summary, "w") as page:
        made = _repeated(work, root, name)
        uris = list(dict.fromkeys(made.values() if isinstance(made, dict) else made))
        page.write("\n".join(map(outputs.describe, uris)))
        for uri in uris:
            if metrics is not None:
                prefix = f"{uri.rsplit('/', 1)[-1]} " if len(uris) > 1 else ""
                metrics.update({prefix + name: value for name, value in folders.read_manifest(uri).counts.items()})
    return made


def copy_file(uri: str, name: str, path: str) -> None:
    """Copy a file of a stage's output to the local file that the KFP page shows."""
    with open(path, "wb") as file:
        file.write(files.read_bytes(files.join(uri, name)))
