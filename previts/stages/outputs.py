"""The state of a stage's output: whether it is finished, and what is printed about it."""

import sys
from collections.abc import Callable

from previts.errors import InputError
from previts.storage import files
from previts.storage.folders import is_committed, read_manifest


def finished(uri: str, stage: str) -> str:
    """Return the fingerprint of a finished input, or say that it is the wrong thing."""
    manifest = read_manifest(uri)
    if manifest.stage != stage:
        raise InputError(f"{uri} is an output of stage {manifest.stage!r}; expected an output of stage {stage!r}")
    return manifest.fingerprint


def describe(uri: str) -> str:
    """Return a short Markdown account of a stage's output: where it is and what it counts."""
    if not is_committed(uri):
        return f"`{uri}`\n\nThis part is done; others still work on the whole.\n"
    manifest = read_manifest(uri)
    lines = [f"### {manifest.stage} {manifest.fingerprint}", "", f"`{uri}`", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in manifest.counts.items()]
    return "\n".join(lines) + "\n"


def done(uri: str) -> bool:
    """Return whether the output is finished; if not, make sure that it can be written before anything is computed."""
    if not is_committed(uri):
        files.check_writable(uri)
        return False
    print(f"already there: {uri}", file=sys.stderr)
    return True


def made(uri: str) -> str:
    """Say that an output is finished, and return it."""
    manifest = read_manifest(uri)
    counts = ", ".join(f"{name} {value}" for name, value in list(manifest.counts.items())[:8])
    print(f"made: {uri} ({counts})" if counts else f"made: {uri}", file=sys.stderr)
    for error, count in manifest.info.get("errors", {}).items():
        print(f"  {count} x {error}", file=sys.stderr)
    return uri


def part_done(uri: str) -> str:
    """Say that only this worker's part of an output is there, and return it."""
    print(f"this part is done, other parts are not yet: {uri}", file=sys.stderr)
    return uri


def check_part(part: int, parts: int) -> None:
    """Raise an InputError if there is no such part."""
    if parts < 1 or not 0 <= part < parts:
        raise InputError(f"part must be in [0, parts) and parts 1 or more, got {part = }, {parts = }")


def fan_out(total: int, part: int, parts: int, is_done: Callable[[int], bool], work: Callable[[int], object]) -> bool:
    """Do this worker's shards that are not done, and return whether now all shards of all workers are."""
    for shard in range(part, total, parts):
        if not is_done(shard):
            work(shard)
    return all(is_done(shard) for shard in range(total))
