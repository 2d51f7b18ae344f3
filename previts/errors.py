"""The exceptions for what is not our fault: input that a person can mend, and videos that cannot be used.

The command line prints an `InputError` on one screen, cause first, remedy second, and exits with 2; a `VideoError`
becomes a row of a shard's table. Every other exception is a fault of ours and keeps its traceback.
"""


class InputError(ValueError):
    """What was given cannot be used: says which file or field, what was found, what is allowed, what to do."""


class VideoError(Exception):
    """A video that cannot be used, with one readable reason: it becomes a row of the shard's table."""


class FetchError(VideoError):
    """A video that did not arrive; `retryable` says whether it may arrive another day."""

    def __init__(self, reason: str, *, retryable: bool) -> None:
        super().__init__(reason)
        self.retryable = retryable
