"""States from which a training run resumes: numbered files in one folder, of which the newest few are kept.

A state is written under a temporary name and renamed; then its checksum is written (`tensors.write_checked`). Only the
holder of the lease on the folder may save. The training decides what a state contains and when it is saved.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch

from previts.errors import InputError
from previts.storage import fences, files
from previts.storage.tensors import delete_checked, read_checked, reason, write_checked

State = dict[str, Any]


class States:
    """The states of one training.

    Args:
        folder: URI of the folder.
        name: File name with a field for the number, such as "step-{:08d}.pt". Without a field there is one state,
            and each save replaces it.
        keep: Number of states to keep. Only states that this object has saved or restored count as intact.
        sound: Number of the state from which the training resumed, if another object restored it.
    """

    def __init__(self, folder: str, name: str, *, keep: int = 1, sound: int | None = None) -> None:
        self.folder, self.name = folder, name
        self._keep, self._sound = keep, [] if sound is None else [sound]
        self._file = re.compile(re.sub(r"\\{.*\\}", r"(\\d+)", re.escape(name)))

    def numbers(self) -> list[int]:
        """Return the numbers of all states in order, including damaged ones; 0 for a name without a field."""
        found = (self._file.fullmatch(name) for name in files.names(self.folder))
        return sorted(int(match[1]) if self._file.groups else 0 for match in found if match)

    def uri(self, number: int) -> str:
        """Return the URI of the file of a state."""
        return files.join(self.folder, self.name.format(number))

    def save(self, number: int, state: State) -> None:
        """Write a state, then delete all except the newest intact ones."""
        fences.check(self.folder)
        files.sweep(self.folder, deep=False)
        write_checked(self.uri(number), state)
        self._sound = [*(old for old in self._sound if old != number), number][-self._keep :]
        # Higher numbers too: the training did not resume from them, so they are damaged.
        for old in self.numbers() if self._file.groups else ():
            if old not in self._sound:
                delete_checked(self.uri(old))

    def read(self, number: int, device: torch.device | str = "cpu") -> State | None:
        """Return a state, or None if it is missing, incomplete or damaged."""
        return read_checked(self.uri(number), device)

    @contextlib.contextmanager
    def restoring(self, number: int) -> Iterator[None]:
        """Raise an InputError in place of the errors of a block that restores a state whose content is wrong."""
        try:
            yield
        except (KeyError, IndexError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{self.uri(number)} is not a state of this training ({reason(error)}); delete it and run the same "
                "command again"
            ) from None

    def newest(
        self, device: torch.device | str = "cpu", is_own: Callable[[State], bool] = lambda state: True
    ) -> tuple[int, State] | None:
        """Return the newest intact state and its number, or None; print a message for each damaged state.

        Args:
            device: Device for its tensors.
            is_own: Returns whether a state belongs to this training.

        Raises:
            InputError: If the state belongs to another experiment, or is not a state of a training.
        """
        for number in reversed(self.numbers()):
            state = self.read(number, device)
            if state is None:
                continue
            with self.restoring(number):
                own = is_own(state)
            if not own:
                raise InputError(
                    f"{self.folder} has states of another experiment ({self.name.format(number)}); "
                    "delete the folder, or use the experiment to which the states belong"
                )
            self._sound = [number]
            return number, state
        return None

    def sweep(self) -> None:
        """Delete all states; the training is finished."""
        for number in self.numbers():
            delete_checked(self.uri(number))
