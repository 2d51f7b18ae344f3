"""The exceptions of the project: errors that the user can fix, and videos that cannot be used.

The command line prints an `InputError` without a traceback and exits with 2. A `VideoError` becomes a row in the table
of its shard.
"""


class InputError(ValueError):
    """An input that cannot be used; the message names the file or field, what was found, and what to do."""


class TemporaryError(InputError):
    """A failure whose cause may pass, such as an outage that another process met; a later attempt may succeed."""


class PeerLostError(ConnectionError):
    """Another process of the same training ended unexpectedly; its own error is the cause."""


class VideoError(Exception):
    """A video that cannot be used; the message is its reason in the table of its shard."""


class FetchError(VideoError):
    """A video that this machine could not fetch or decode now; `retryable` is true if the cause may be temporary."""

    def __init__(self, reason: str, *, retryable: bool) -> None:
        super().__init__(reason)
        self.retryable = retryable


class RefusedError(FetchError):
    """An address that a crawl may not name; the message says which variable allows it, so a later run may succeed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, retryable=True)
