"""The check of a benchmark's test files before any training, so that a damaged file is not found hours later.

PreViTS section 4. A number over fewer files than the benchmark has is not comparable, so no file is left out.
"""

from collections.abc import Callable, Sequence

from previts.errors import InputError
from previts.processes import distributed, prefetch
from previts.processes.prefetch import Item
from previts.processes.progress import progress

FAULTS_SHOWN = 10  # at most this many files are listed in an error


def check_readable(items: Sequence[Item], load: Callable[[Item], object], what: str) -> None:
    """Load every item of a test set, so that a damaged file is reported before any training.

    Processes share the items, and each gets the faults of all; every process of a group must call this.

    Args:
        items: The arguments of `load`.
        load: Raises an InputError that names the file; called from several threads.
        what: Text of the progress line and of the error.

    Raises:
        InputError: If an item cannot be loaded; the message has the first `FAULTS_SHOWN` faults.
    """

    def fault(item: Item) -> str:
        try:
            load(item)
        except InputError as error:
            return str(error)
        return ""

    mine = items[distributed.rank() :: distributed.world_size()]
    checked = prefetch.loaded(([item] for item in mine), fault, ahead=prefetch.THREADS)
    shown = progress(checked, f"{what} check", unit="file", total=len(mine))
    faults = distributed.gather_lists([text for [text] in shown if text])
    if faults:
        more = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise InputError(
            f"{len(faults)} of the {len(items)} files of {what} cannot be used:\n  "
            + "\n  ".join(sorted(faults)[:FAULTS_SHOWN])
            + more
        )
