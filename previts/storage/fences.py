"""Fences: a process that has lost its right to work on a folder writes nothing there that readers believe.

`leases.py` gives the right and notices its loss. Writers call `check` before each such file.
"""

from typing import Protocol

from previts.errors import InputError


class LostError(InputError):
    """Another process has taken over the work of this one."""

    def __init__(self, message: str = "another process has taken over the work of this one") -> None:
        super().__init__(message)


class Right(Protocol):
    """The right of this process to work on a folder."""

    @property
    def folder(self) -> str:
        """URI of the folder."""

    def check(self) -> None:
        """Raise a LostError if the right is lost."""


held: list[Right] = []  # the rights of this process


def check(uri: str) -> None:
    """Raise a LostError if this process has lost the right to work on a folder that contains `uri`."""
    for right in list(held):
        if f"{uri.rstrip('/')}/".startswith(f"{right.folder.rstrip('/')}/"):
            right.check()
