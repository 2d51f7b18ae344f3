"""The output of a stage: whether it is finished, its description, and the share of one worker."""

import sys
from collections.abc import Callable

from previts.errors import InputError
from previts.storage import files
from previts.storage.folders import MANIFEST, damage, is_committed, read_manifest

# Options that take an output of a stage; those of the other stages have the name of their stage.
OPTIONS = {"saliency_model": "model", "checkpoints": "checkpoint"}


def finished(uri: str, stage: str) -> str:
    """Return the fingerprint of an input, which a verb takes as the option of its stage.

    Raises:
        InputError: If the input is not finished, or is an output of another stage than `stage`.
    """
    option = f"--{OPTIONS.get(stage, stage)}"
    try:
        manifest = read_manifest(uri)
    except InputError as error:
        raise InputError(f"{option} {error}") from None
    if manifest.stage != stage:
        raise InputError(
            f"{option} {uri} is an output of stage {manifest.stage!r}; expected an output of stage {stage!r}"
        )
    return manifest.fingerprint


def describe(uri: str) -> str:
    """Return a short Markdown description of a stage's output: its URI and its counts."""
    if not is_committed(uri):
        return f"`{uri}`\n\nThis part is finished. Other parts are not.\n"
    manifest = read_manifest(uri)
    lines = [f"### {manifest.stage} {manifest.fingerprint}", "", f"`{uri}`", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in manifest.counts.items()]
    return "\n".join(lines) + "\n"


def done(uri: str) -> bool:
    """Return whether the output is finished; delete the temporary files that killed processes left in it.

    Raises:
        InputError: If it is not finished and cannot be written.
    """
    files.sweep(uri)
    if not is_committed(uri):
        if why := damage(uri):
            print(f"{why}; it is made again", file=sys.stderr)
            files.delete(files.join(uri, MANIFEST))  # else the files that it lists could not be read
        files.check_writable(uri)
        return False
    print(f"already there: {uri}", file=sys.stderr)
    return True


def made(uri: str) -> str:
    """Print the URI and the counts of a finished output, and return the URI."""
    manifest = read_manifest(uri)
    counts = ", ".join(f"{name} {value}" for name, value in list(manifest.counts.items())[:8])
    print(f"made: {uri} ({counts})" if counts else f"made: {uri}", file=sys.stderr)
    for error, count in manifest.info.get("errors", {}).items():
        print(f"  {count} x {error}", file=sys.stderr)
    return uri


def part_done(uri: str) -> str:
    """Print that this worker's part of an output is finished and other parts are not, and return the URI."""
    print(f"this part is finished, other parts are not: {uri}", file=sys.stderr)
    return uri


def check_part(part: int, parts: int) -> None:
    """Raise an InputError if `part` is not from 0 to parts - 1."""
    if parts < 1 or not 0 <= part < parts:
        raise InputError(f"parts must be 1 or more and part from 0 to parts - 1, got {part = }, {parts = }")


def fan_out(total: int, part: int, parts: int, is_done: Callable[[int], bool], work: Callable[[int], object]) -> bool:
    """Do the unfinished shards of this worker, and return whether the shards of all workers are finished now."""
    for shard in range(part, total, parts):
        if not is_done(shard):
            work(shard)
    return all(is_done(shard) for shard in range(total))
