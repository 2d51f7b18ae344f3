"""Progress of long work: a bar on a terminal, a line every few seconds in a log."""

import io
import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

LOG_EVERY_SECONDS = 10.0


class _Lines(io.TextIOBase):
    """Writes the bar as lines, for streams that cannot redraw a line (the log of a pod, a pipe)."""

    def write(self, text: str) -> int:
        line = text.strip("\r\n ")
        if line:
            print(line, file=sys.stderr, flush=True)
        return len(text)


def progress(items: Iterable[Item], what: str, *, unit: str, total: int | None = None) -> "tqdm[Item]":
    """Return `items`; iterating over them shows the progress on standard error.

    The result is a tqdm object: `set_postfix` adds numbers to the bar.
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
