"""What every step does around its work: readable errors, and what the KFP page shows.

The compiled YAML calls these functions by name. In addition it calls only verbs of `previts.stages` and functions
of `previts.runs.check` and `previts.runs.steps`. Other modules can change without a new compile.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from previts.processes.exits import readable_errors
from previts.stages import outputs
from previts.storage import files, folders

Result = TypeVar("Result")
Outputs = TypeVar("Outputs", dict[str, str], list[str])


def run(work: Callable[[], Result]) -> Result:
    """Do the work of a step, and end the process with a readable message if it fails."""
    with readable_errors():
        return work()


def run_stage(work: Callable[[], str], summary: str, metrics: dict[str, Any] | None = None) -> str:
    """Run a stage and describe its output.

    Args:
        work: Runs the stage and returns the URI of its output.
        summary: Path of the Markdown file that the KFP page shows.
        metrics: Filled with the counts of the output.

    Returns:
        The URI of the output.
    """
    with readable_errors(), open(summary, "w") as page:
        uri = work()
        page.write(outputs.describe(uri))
        if metrics is not None:
            metrics.update(folders.read_manifest(uri).counts)
    return uri


def run_stages(work: Callable[[], Outputs], summary: str, metrics: dict[str, Any] | None = None) -> Outputs:
    """Run a step that makes several outputs, and describe them as `run_stage` does."""
    with readable_errors(), open(summary, "w") as page:
        made = work()
        uris = list(dict.fromkeys(made.values() if isinstance(made, dict) else made))
        for uri in uris:
            page.write(outputs.describe(uri) + "\n")
            if metrics is not None:
                prefix = f"{uri.rsplit('/', 1)[-1]} " if len(uris) > 1 else ""
                metrics.update({prefix + name: value for name, value in folders.read_manifest(uri).counts.items()})
    return made


def copy_file(uri: str, name: str, path: str) -> None:
    """Copy a file of a stage's output to the local file that the KFP page shows."""
    with open(path, "wb") as file:
        file.write(files.read_bytes(files.join(uri, name)))
