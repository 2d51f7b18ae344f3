"""The output of a stage: whether it is finished, who works on it, its description, and the share of one worker."""

import contextlib
import contextvars
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from previts.corpus import members
from previts.errors import InputError
from previts.processes import prefetch
from previts.storage import files, folders, holders, leases
from previts.storage.folders import MANIFEST, damage, is_committed, read_manifest

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_begun: contextvars.ContextVar[list[str]] = contextvars.ContextVar("begun")  # outputs that the running verb works on

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


def exclusive(verb: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorate a verb: at its end, the leases are released that `done` and `fan_out` took for it.

    If the verb fails, the folders of outputs are deleted in which it has written nothing.
    """

    @functools.wraps(verb)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        begun: list[str] = []
        before = _begun.set(begun)
        try:
            with leases.working(verb.__name__):
                return verb(*args, **kwargs)
        except BaseException:
            for uri in begun:
                leases.remove_if_empty(uri)
            raise
        finally:
            _begun.reset(before)

    return call


def done(uri: str, *, take: bool = True, sweep: Callable[[], object] = lambda: None) -> bool:
    """Return whether the output is finished. If it is not, this process alone works on it until the verb ends.

    If another process works on the output, this function first waits for its end.

    Args:
        uri: The output.
        take: False if other processes do the work, or share it by `fan_out`.
        sweep: Deletes what a process left that was killed after its commit; it is called only if there was one.

    Raises:
        InputError: If the output is not finished and cannot be written.
    """
    files.sweep(uri)
    if not is_committed(uri):
        _begun.get([]).append(uri)
        files.check_writable(uri)
        if damage(uri) and not _follows():
            _delete_damaged(uri)
        if not take or not _finished_by_another(uri):
            return False
    elif files.local_path(uri) is not None:  # in an object store, this would take a request
        _release_dead(uri, sweep)
    print(f"already there: {uri}", file=sys.stderr)
    return True


def _finished_by_another(uri: str) -> bool:
    """Wait until this process holds the lease on an output, and return whether the output is finished by then."""
    if _follows():
        output, training = leases.Lease(uri, leases.OUTPUT), holders.training()
        leases.wait(lambda: is_committed(uri) or getattr(output.holder(), "training", "") == training, lambda: [])
        return is_committed(uri)
    lease = leases.take(uri, leases.OUTPUT)
    if is_committed(uri):
        lease.release()
        return True
    for name in leases.names(uri):  # a worker tries a shard again whose download failed, or was killed after its end
        if name != leases.OUTPUT:
            leases.take(uri, name).release()
    return False


def _follows() -> bool:
    """Return whether this process belongs to a training whose process 0 holds the lease for all."""
    return os.environ.get("RANK", "0") != "0" and bool(holders.training())


def _delete_damaged(uri: str) -> None:
    """Delete a damaged manifest, because the files that it lists cannot be read; another process may do so first."""
    lease = leases.take(uri, leases.OUTPUT)
    if why := damage(uri):
        print(f"{why}; it is made again", file=sys.stderr)
        files.delete(files.join(uri, MANIFEST))
    lease.release()


def _release_dead(uri: str, sweep: Callable[[], object]) -> None:
    """Delete what is left, and the leases on a finished output whose holders were killed before they could do so."""
    for name in leases.names(uri):
        lease = leases.Lease(uri, name)
        with contextlib.suppress(OSError, InputError):  # the folder may be read-only
            if (holder := lease.holder()) and holder.is_dead() and lease.take():
                sweep()
                lease.release()


def made(uri: str) -> str:
    """Print the URI and the counts of a finished output, and return the URI."""
    manifest = read_manifest(uri)
    counts = ", ".join(f"{name} {value}" for name, value in list(manifest.counts.items())[:8])
    print(f"made: {uri} ({counts})" if counts else f"made: {uri}", file=sys.stderr)
    for error, count in manifest.errors.items():
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


def fan_out(
    uri: str,
    total: int,
    part: int,
    parts: int,
    *,
    is_done: Callable[[int], bool],
    work: Callable[[int], object],
    again: Callable[[int], bool] = lambda shard: False,
    before: int = 0,
) -> bool:
    """Do the unfinished shards of this worker, and return whether the shards of all workers are finished now.

    A shard on which another process works is left to that process: this one takes the next free shard, and waits only
    if there is none. If all shards are finished, the verb calls `done` and commits the output.

    Args:
        uri: The output.
        total: Number of shards.
        part: Number of this worker.
        parts: Number of workers.
        is_done: Returns whether a shard is finished.
        work: Does the work of a shard.
        again: Returns whether a finished shard is tried again.
        before: Number of shards of the outputs that the workers share before this one.
    """
    output, attempts = leases.Lease(uri, leases.OUTPUT), {}
    for shard in range((part - before) % parts, total, parts):
        if not is_done(shard) or again(shard):
            attempts[shard] = leases.Lease(uri, f"shard-{shard:05d}")

    def do_free_shards() -> bool:
        for shard, lease in list(attempts.items()):
            if not lease.take():
                continue
            if is_committed(uri):
                attempts.clear()
            elif output.holder() is not None and not output.take():  # another process commits the output
                lease.release()
                continue
            elif not is_done(shard) or again(shard):
                work(shard)
            output.release()
            lease.release()
            attempts.pop(shard, None)
        return not attempts

    leases.wait(do_free_shards, lambda: list(attempts.values()))
    return all(is_done(shard) for shard in range(total))


def of_each_crawl(
    videos: str,
    uri: str,
    decided: Mapping[str, Any],
    inputs: Mapping[str, str],
    address: Callable[[str], str],
    of_crawl: Callable[[str, int], str],
) -> str:
    """Do this worker's part of a stage for each crawl of a corpus, and return the output of the corpus.

    The output of one crawl is the output of a corpus that has no other.

    Args:
        videos: The videos of the corpus.
        uri: The output of the corpus.
        decided: Decisions of this output.
        inputs: What the stage reads, for this output.
        address: Returns the output of the stage for the videos of one crawl.
        of_crawl: Does this worker's part of the videos of one crawl, given the number of shards of those before it, and
            returns their output.
    """
    found = members.read(videos)
    if len(found) == 1:
        return of_crawl(videos, 0)
    if done(uri, take=False):
        return uri
    uris = list(prefetch.requested([member.uri for member in found], address))
    members.write(uri, [members.Member(one, member.shards) for one, member in zip(uris, found, strict=True)])
    for member, before, is_finished in zip(found, members.starts(found), announce(uris), strict=True):
        if not is_finished:
            of_crawl(member.uri, before)
    if not all(members.are_finished(uris)):
        return part_done(uri)
    if not done(uri):
        counts, _ = members.combine(uris)
        folders.commit(uri, decided, inputs=inputs, counts=counts, files=[members.MEMBERS])
        made(uri)
    return uri


def announce(uris: Sequence[str]) -> list[bool]:
    """Return which outputs of the crawls of a corpus are finished, and say how many.

    What a process left in them that was killed after its commit is deleted, as by `done`.
    """
    finished = members.are_finished(uris)
    for uri, is_finished in zip(uris, finished, strict=True):
        if is_finished and files.local_path(uri) is not None:
            files.sweep(uri)
            _release_dead(uri, lambda: None)
    print(f"{sum(finished)} of {len(uris)} crawls are already there", file=sys.stderr)
    return finished
