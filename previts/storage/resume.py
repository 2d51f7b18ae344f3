"""States to resume from: numbered files in the folder of one training, of which the newest few stay.

A state is written under a temporary name and moved into place, then its checksum (`tensors.write_checked`). Of several
processes only one may save. What a state contains, and when it is saved, is decided by the training.
"""

import re
from collections.abc import Callable
from typing import Any

import torch

from previts.errors import InputError
from previts.storage import files
from previts.storage.tensors import delete_checked, read_checked, write_checked

State = dict[str, Any]


class States:
    """The states of one training.

    Args:
        folder: URI of their folder.
        name: Name of a file with a field for the number, such as "step-{:08d}.pt"; without a field there is one state,
            and each save replaces it.
        keep: How many states stay. Only states that this object has saved or restored count as sound.
        sound: Number of the state that the training has resumed from, if another object has restored it.
        unchecked: Whether a state without a checksum is read too; earlier versions of `fit_saliency` wrote none.
    """

    def __init__(
        self, folder: str, name: str, *, keep: int = 1, sound: int | None = None, unchecked: bool = False
    ) -> None:
        self.folder, self.name, self.unchecked = folder, name, unchecked
        self._keep, self._sound = keep, [] if sound is None else [sound]
        self._file = re.compile(re.sub(r"\\{.*\\}", r"(\\d+)", re.escape(name)))
        self._left = re.compile(self._file.pattern + r"\..*\.tmp")  # by a process that was killed while it wrote

    def numbers(self) -> list[int]:
        """Return the numbers of the states in order, damaged ones included; 0 for a name without a field."""
        found = (self._file.fullmatch(name) for name in files.names(self.folder))
        return sorted(int(match[1]) if self._file.groups else 0 for match in found if match)

    def uri(self, number: int) -> str:
        """Return the URI of the file of a state."""
        return files.join(self.folder, self.name.format(number))

    def save(self, number: int, state: State) -> None:
        """Write a state, then delete all but the newest sound ones."""
        for name in files.names(self.folder):
            if self._left.fullmatch(name):
                files.delete(files.join(self.folder, name))
        write_checked(self.uri(number), state)
        self._sound = [*(old for old in self._sound if old != number), number][-self._keep :]
        # Higher numbers too: they were damaged, else the training would have resumed from them.
        for old in self.numbers() if self._file.groups else ():
            if old not in self._sound:
                delete_checked(self.uri(old))

    def read(self, number: int, device: torch.device | str = "cpu") -> State | None:
        """Return a state, or None where it is missing, incomplete or damaged."""
        return read_checked(self.uri(number), device, unchecked=self.unchecked)

    def newest(
        self, device: torch.device | str = "cpu", is_own: Callable[[State], bool] = lambda state: True
    ) -> tuple[int, State] | None:
        """Return the newest sound state and its number, or None; a message names each damaged one.

        Args:
            device: Where its tensors are wanted.
            is_own: Whether a state belongs to the training that asks.

        Raises:
            InputError: If the state belongs to another experiment.
        """
        for number in reversed(self.numbers()):
            state = self.read(number, device)
            if state is None:
                continue
            if not is_own(state):
                raise InputError(
                    f"{self.folder} has states of another experiment ({self.name.format(number)}); "
                    "give an empty folder, or the experiment that they are of"
                )
            self._sound = [number]
            return number, state
        return None

    def sweep(self) -> None:
        """Delete all states; the training is finished."""
        for number in self.numbers():
            delete_checked(self.uri(number))
