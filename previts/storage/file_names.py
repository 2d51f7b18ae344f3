"""The rules for file names in the user's folders: which are hidden, which are videos, which are images.

Crawls (PreViTS section 4.1) and labelled datasets (sections 4.2 to 4.7) use the same rules. This module
lists no folders; `listings.py` does.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

# By FFmpeg's name of a format: the endings of its video files. Playlists (hls, concat, dash, sdp) are not allowed,
# because they make the decoder open other files.
VIDEO_FORMATS = {
    "mov": (".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".mj2"),
    "matroska": (".mkv", ".webm", ".mk3d"),
    "avi": (".avi", ".divx"),
    "mpegts": (".ts", ".mts", ".m2ts", ".m2t"),
    "mpeg": (".mpg", ".mpeg", ".mpe", ".vob"),
    "mpegvideo": (".m1v", ".m2v"),
    "flv": (".flv",),
    "asf": (".wmv", ".asf"),
    "ogg": (".ogv", ".ogm"),
    "gif": (".gif",),
    "ivf": (".ivf",),
    "mxf": (".mxf",),
    "nut": (".nut",),
    "dv": (".dv",),
    "rm": (".rm", ".rmvb"),
    "m4v": (),  # MPEG-4 without a container; its files are named like those of "mov"
}
VIDEO_SUFFIXES = tuple(suffix for suffixes in VIDEO_FORMATS.values() for suffix in suffixes)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# Files and folders that operating systems and tools leave in any folder, in small letters. Others start with a dot.
_LEFT_BEHIND = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin"})


def is_hidden(name: str) -> bool:
    """Return whether a name, or a part of a relative path, belongs to a tool and not to the user's data."""
    return any(part.startswith(".") or part.lower() in _LEFT_BEHIND for part in name.split("/"))


def by_number(name: str) -> list[int | str]:
    """Return a sort key that compares the numbers in names by value: `2.png` comes before `10.png`."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split("([0-9]+)", name))]


def shown(names: Iterable[str]) -> list[str]:
    """Return the names that are not hidden."""
    return [name for name in names if not is_hidden(name)]


@dataclass
class LeftAside:
    """The files of a folder that are not used.

    Attributes:
        hidden: Number of hidden files.
        other: Number of files with other endings, by ending.
        misplaced: Number of files outside a folder of a class.
        not_utf8: Names that are not UTF-8, which no table can store.
    """

    hidden: int = 0
    other: Counter[str] = field(default_factory=Counter)
    misplaced: int = 0
    not_utf8: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.hidden or self.other or self.misplaced or self.not_utf8)

    def is_used(self, name: str, suffixes: Sequence[str]) -> bool:
        """Return whether a relative name is not hidden and ends in one of `suffixes` (small letters); else count it."""
        if is_hidden(name):
            self.hidden += 1
        elif not name.lower().endswith(tuple(suffixes)):
            stem, dot, ending = name.rsplit("/", 1)[-1].rpartition(".")
            self.other[f".{ending.lower()}" if stem and dot else "without an ending"] += 1
        else:
            return True
        return False

    def report(self, uri: str) -> None:
        """Print what was left aside in a folder, if anything, on standard error."""
        if self:
            print(f"left aside in {uri}: {self}", file=sys.stderr)

    def __str__(self) -> str:
        parts = [f"{self.hidden} hidden"] if self.hidden else []
        parts += [f"{count} {suffix}" for suffix, count in sorted(self.other.items())]
        parts += [f"{self.misplaced} outside a folder of a class"] if self.misplaced else []
        if self.not_utf8:
            parts.append(f"{len(self.not_utf8)} whose names are not UTF-8 (such as {self.not_utf8[0]!r})")
        return ", ".join(parts)
