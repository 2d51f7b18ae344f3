"""Text of CSV files, safe to open in a spreadsheet.

A spreadsheet runs a cell that begins with one of `= + - @` as a formula, even behind blanks or quotes. Texts come from
crawls of strangers, so such a text gets an apostrophe in front. Numbers stay numbers.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence

Cell = str | int | float | None

# Some programs also take the full-width forms of the signs, and a leading tab or line break, for a formula.
_FORMULA = re.compile(r"[ \"']*[\t\r\n]|[\s\"']*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return a CSV with a line of column names and a line for each row; None is an empty cell.

    A carriage return in a text becomes a line break, because Python does not quote it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(
        [escape(cell.replace("\r", "\n")) if isinstance(cell, str) else cell for cell in row] for row in rows
    )
    return text.getvalue()


def escape(text: str) -> str:
    """Return a text with an apostrophe in front if a spreadsheet could take it for a formula.

    Different texts stay different.
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text
