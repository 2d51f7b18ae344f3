"""The one exception for input that a person can mend.

The command line prints an `InputError` on one screen, cause first, remedy second, and exits with 2; every other
exception is a fault of ours and keeps its traceback.
"""


class InputError(ValueError):
    """What was given cannot be used: says which file or field, what was found, what is allowed, what to do."""
