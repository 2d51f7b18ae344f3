"""How the steps of a pipeline run ended: notes in the root, which the next attempt of a step and the last step read.

KFP starts a failed step again whatever its exit code is, because it cannot see whether a pod was lost or the input is
wrong. With the note of a failure that would repeat, the next attempt ends at once. The last step tells from the notes
how the run ended: KFP's own account is not available after a step was driven twice (docs/cluster.md, Retries).

A note belongs to one run, whose id is in the environment. Without an id, no note is written.
"""

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass

from previts import origin
from previts.storage import files

FOLDER, LAST = "ends", "finished"
STRANGERS = "videos"  # folder of notes of the step `download`, which may write only below folders of this name
FRESH_SECONDS = 900.0  # KFP waits for minutes before the next attempt; a later one was started by the user


@dataclass(frozen=True)
class End:
    """The end of a step.

    Attributes:
        step: Name of the step, with its part.
        reason: Its error message; "" for the last step of a run that finished.
        final: Whether the same failure would repeat, because the input is wrong.
        time: When it ended, in seconds since the epoch.
    """

    step: str
    reason: str
    final: bool
    time: float


def _folder(root: str) -> str:
    run = os.environ.get(origin.RUN, "")
    return files.join(root, FOLDER, run) if root and run else ""


def note(root: str, step: str, reason: str, *, final: bool) -> None:
    """Write down that a step failed."""
    if folder := _folder(root):
        end = End(step, reason, final, time.time())
        files.write_json(files.join(folder, f"{step}.json"), asdict(end))


def note_finish(root: str) -> None:
    """Write down that the last step of the run succeeded."""
    note(root, LAST, "", final=True)


def final_failure(root: str, step: str) -> str:
    """Return why an attempt of a step failed in this run some minutes ago, or "" if another attempt may succeed."""
    end = _read(files.join(folder, f"{step}.json")) if (folder := _folder(root)) else None
    return end.reason if end and end.final and time.time() - end.time < FRESH_SECONDS else ""


def collect(root: str) -> tuple[bool, list[End]]:
    """Return whether the run finished, and the failures of its steps in order of time. Delete its notes."""
    folder = _folder(root)
    if not folder:
        return False, []
    finished = _read(files.join(folder, f"{LAST}.json")) is not None
    places = (folder, files.join(folder, STRANGERS))
    found = [
        _read(files.join(place, name)) for place in places for name in files.names(place) if name != f"{LAST}.json"
    ]
    files.delete_folder(folder)
    if at := files.local_path(files.join(root, FOLDER)):
        with contextlib.suppress(OSError):  # another run has notes there
            os.rmdir(at)
    return finished, sorted((end for end in found if end), key=lambda end: end.time)


def _read(uri: str) -> End | None:
    """Return a note, or None if there is none that can be read: the work itself shows what is wrong with the root."""
    try:
        end = json.loads(files.read_bytes(uri))
        return End(str(end["step"]), str(end["reason"]), bool(end["final"]), float(end["time"]))
    except Exception:  # stores raise many types; the work itself meets the same store, and reports it
        return None
