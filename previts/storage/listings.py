"""Listings of the user's folders, by the rules of `file_names.py`.

PreViTS section 4: labelled datasets whose classes are folders. This module opens no files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from previts.storage.file_names import LeftAside
from previts.storage.files import absolute, open_fs


class Folders:
    """The files at any depth below folders, with what their store tells about them; no folder is listed twice."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, dict[str, Any]]] = {}

    def files(self, uri: str) -> dict[str, dict[str, Any]]:
        """Return for each file below a folder, by its path in the store, what fsspec's `find` tells about it."""
        uri = absolute(uri).rstrip("/")
        for folder, found in self._found.items():
            if uri == folder:
                return found
            if uri.startswith(f"{folder}/"):
                root = open_fs(uri)[1].rstrip("/") + "/"
                return {name: info for name, info in found.items() if name.startswith(root)}
        fs, path = open_fs(uri)
        self._found[uri] = {str(name): info for name, info in fs.find(path, detail=True).items()}
        return self._found[uri]


@dataclass(frozen=True)
class Listing:
    """The files below a folder: the sorted names of the wanted ones, relative to it, and what was left aside."""

    names: tuple[str, ...]
    left_aside: LeftAside


def below(uri: str, suffixes: Sequence[str], *, in_classes: bool = False) -> Listing:
    """List the files at any depth below a folder that are not hidden and have one of some endings; report the others.

    Args:
        uri: The folder.
        suffixes: The endings, in small letters; those of the files may have capital letters.
        in_classes: Whether the files must be in subfolders.
    """
    fs, path = open_fs(uri)
    root = path.rstrip("/") + "/"
    wanted, aside = [], LeftAside()
    found = fs.find(path, detail=True)
    kinds = {str(name).removeprefix(root): info.get("type") for name, info in found.items()}
    for name in sorted(kinds):
        if not aside.is_used(name, suffixes):
            continue
        if kinds[name] == "other":  # opening a pipe would wait for its writer without end
            aside.other["not a regular file"] += 1
            continue
        if in_classes and "/" not in name:
            aside.misplaced += 1
        elif not _is_utf8(name):
            aside.not_utf8.append(name)
        else:
            wanted.append(name)
    aside.report(uri)
    return Listing(tuple(wanted), aside)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
