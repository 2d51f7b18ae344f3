"""Progress of long work: a bar on a terminal, a line now and then in a log."""

import io
import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

LOG_EVERY_SECONDS = 10.0


class _Lines(io.TextIOBase):
    """Turns the redrawn bar into lines, for streams that nobody can redraw (a pod's log, a pipe)."""

    def write(self, text: str) -> int:
        line = text.strip("\r\n ")
        if line:
            print(line, file=sys.stderr, flush=True)
        return len(text)


def progress(items: Iterable[Item], what: str, *, unit: str, total: int | None = None) -> "tqdm[Item]":
    """Return `items` with their progress shown on standard error.

    The result is tqdm's: `set_postfix` adds figures to the bar.
    """
    if sys.stderr.isatty():
        return tqdm(items, desc=what, unit=f" {unit}", total=total)
    return tqdm(
        items,
        desc=what,
        unit=f" {unit}",
        total=total,
        file=_Lines(),
        mininterval=LOG_EVERY_SECONDS,
        ncols=100,
        ascii=True,
    )
