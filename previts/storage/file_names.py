"""The rules for file names in the user's folders: which are hidden, which are videos, which are images.

Crawls (PreViTS section 4.1) and labelled datasets (sections 4.2 to 4.7) use the same rules. This module lists
folders and opens no files.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from previts.storage.files import open_fs

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


def is_video(name: str) -> bool:
    """Return whether the ending of a name is that of a video, in small or capital letters."""
    return name.lower().endswith(VIDEO_SUFFIXES)


def is_image(name: str) -> bool:
    """Return whether the ending of a name is that of an image, in small or capital letters."""
    return name.lower().endswith(IMAGE_SUFFIXES)


@dataclass
class LeftAside:
    """The files of a folder that are not used.

    Attributes:
        hidden: Number of hidden files.
        other: Number of files with other endings, by ending.
        unreadable: Names that are not UTF-8, which no table can store.
    """

    hidden: int = 0
    other: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.hidden or self.other or self.unreadable)

    def __str__(self) -> str:
        parts = [f"{self.hidden} hidden"] if self.hidden else []
        parts += [f"{count} {suffix}" for suffix, count in sorted(self.other.items())]
        if self.unreadable:
            parts.append(f"{len(self.unreadable)} whose names are not UTF-8 (such as {self.unreadable[0]!r})")
        return ", ".join(parts)


@dataclass(frozen=True)
class Listing:
    """The files below a folder: the sorted names of the wanted ones, relative to it, and what was left aside."""

    names: tuple[str, ...]
    left_aside: LeftAside


def below(uri: str, suffixes: Sequence[str]) -> Listing:
    """List the files at any depth below a folder that are not hidden and end in one of `suffixes` (small letters)."""
    fs, path = open_fs(uri)
    root = path.rstrip("/") + "/"
    return choose((str(name).removeprefix(root) for name in fs.find(path)), suffixes)


def choose(names: Iterable[str], suffixes: Sequence[str]) -> Listing:
    """Divide relative names into the wanted ones and those left aside; see `below`."""
    wanted, aside = [], LeftAside()
    for name in sorted(names):
        if is_hidden(name):
            aside.hidden += 1
        elif not name.lower().endswith(tuple(suffixes)):
            dot = name.rsplit("/", 1)[-1].rpartition(".")
            aside.other[f".{dot[2].lower()}" if dot[1] else "without an ending"] += 1
        elif not _is_utf8(name):
            aside.unreadable.append(name)
        else:
            wanted.append(name)
    return Listing(tuple(wanted), aside)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
