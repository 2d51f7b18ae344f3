"""Readers of the tables of crawls: the lines of a CSV or Parquet file, with their fields as text.

A table often comes from strangers. A line that cannot be read gets a `fault`, which does not affect the other lines.
What the fields mean is decided in `crawls.py`.
"""

import csv
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from previts.errors import InputError
from previts.storage import contents
from previts.storage.files import open_fs, read_bytes

F = TypeVar("F")
T = TypeVar("T")

MAX_TABLE_BYTES = 1 << 30
MAX_PLAIN_BYTES = 4 << 30  # of a Parquet file after decompression
MAX_ROWS = 10_000_000
EMPTY_SHOWN = 10  # at most this many empty crawls are named


class EmptyCrawlError(InputError):
    """A crawl has no line."""

    def __init__(self, uri: str) -> None:
        super().__init__(f"the crawl {uri} is empty; expected at least one video")


def each(tables: Iterable[tuple[str, F]], read: Callable[[str, F], T]) -> Iterator[T]:
    """Yield what `read` makes of each crawl of a corpus; empty ones are left aside and named on stderr.

    Args:
        tables: The crawls, each with what `crawls.find` returned.
        read: Reads a crawl; may raise an `EmptyCrawlError`.

    Raises:
        EmptyCrawlError: If all are empty.
    """
    empty: dict[str, EmptyCrawlError] = {}
    is_any = False
    for uri, found in tables:
        try:
            made = read(uri, found)
        except EmptyCrawlError as error:
            empty[uri] = error
            continue
        is_any = True
        yield made
    if empty and not is_any:
        raise next(iter(empty.values()))
    if empty:
        more = f" and {len(empty) - EMPTY_SHOWN} more" if len(empty) > EMPTY_SHOWN else ""
        shown = ", ".join(list(empty)[:EMPTY_SHOWN])
        print(f"previts: empty crawls are left aside until they have videos: {shown}{more}", file=sys.stderr)


@dataclass(frozen=True)
class Line:
    """A line of a table: its number for messages and its fields by column; `fault` if the whole line is broken."""

    number: int
    fields: dict[str, str]
    fault: str = ""


def csv_rows(uri: str, data: bytes) -> list[tuple[int, list[str], str]]:
    """Return the rows of a CSV file that are not empty: line number, fields without outer spaces, fault or "".

    Raises:
        EmptyCrawlError: If the file has no row.
        InputError: If the file has too many rows, is UTF-16, or has a quote that is never closed.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{uri} is UTF-16 text; save it as UTF-8")
    text = data.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    csv.field_size_limit(MAX_TABLE_BYTES)  # a long field is a fault of its line, not of the file
    rows = []
    for row in _rows(uri, text):
        if row[2] or any(row[1]):
            rows.append(row)
            _check_rows(uri, len(rows))
    if not rows:
        raise EmptyCrawlError(uri)
    return rows


def _rows(uri: str, text: str) -> Iterator[tuple[int, list[str], str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    whole = text.isascii()
    while True:
        first = reader.line_num + 1
        try:
            row = [field.strip() for field in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise InputError(
                    f"{uri}, line {first}: a quote is not closed up to the end of the file; put quotes around fields "
                    "with quotes or line breaks"
                ) from None
            place = "" if reader.line_num == first else f" up to line {reader.line_num}"
            yield first, [], f"the quotes are wrong{place}; put quotes around fields with quotes or line breaks"
            continue
        try:
            whole or "".join(row).encode()
        except UnicodeEncodeError:
            yield first, row, "the line is not UTF-8 text; save the file as UTF-8"
            continue
        yield reader.line_num, row, ""


def csv_lines(uri: str, columns: list[str], rows: Sequence[tuple[int, list[str], str]], kept: set[str]) -> list[Line]:
    """Return rows of a CSV file as lines with the fields of the kept columns."""
    _check_distinct(uri, columns, kept)
    places = {name: place for place, name in enumerate(columns) if name in kept}
    lines = []
    for number, row, fault in rows:
        wrong = "" if len(row) == len(columns) else f"{len(row)} fields, expected {len(columns)} ({listed(columns)})"
        fields = {} if fault else {name: row[place] for name, place in places.items() if place < len(row)}
        lines.append(Line(number, fields, fault or wrong))
    return lines


def parquet_lines(uri: str, data: bytes, required: Sequence[str], kept: set[str]) -> list[Line]:
    """Return the rows of a Parquet file as lines with the fields of the kept columns.

    Raises:
        InputError: If the file is too large or damaged, or a required column is missing.
    """
    try:
        content = io.BytesIO(data)
        leaves = {column.path for column in pq.ParquetFile(content, pre_buffer=False).schema}
        # As dictionaries, because a small file can repeat a long text a million times.
        file = pq.ParquetFile(content, pre_buffer=False, read_dictionary=sorted(kept & leaves))
        check_columns(uri, file.schema_arrow.names, required)
        _check_distinct(uri, file.schema_arrow.names, kept)
        if sum(file.metadata.row_group(n).total_byte_size for n in range(file.num_row_groups)) > MAX_PLAIN_BYTES:
            raise InputError(f"{uri} has more than {MAX_PLAIN_BYTES >> 20} MiB of data, too much for a crawl; split it")
        _check_rows(uri, file.metadata.num_rows)
        table = file.read([name for name in file.schema_arrow.names if name in kept], use_threads=False)
        columns = {name: _texts(name, table.column(name)) for name in table.column_names}
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{uri} is not a readable Parquet file: {str(error)[:300]}") from error
    lines = []
    for place in range(table.num_rows):
        found = {name: column[place] for name, column in columns.items()}
        faults = [fault for _, fault in found.values() if fault]
        lines.append(Line(place + 1, {name: text for name, (text, _) in found.items()}, faults[0] if faults else ""))
    return lines


def _texts(name: str, column: pa.ChunkedArray) -> list[tuple[str, str]]:
    """Return each value of a column as text, with a fault or ""."""
    texts: list[tuple[str, str]] = []
    for chunk in column.chunks:
        if isinstance(chunk, pa.DictionaryArray):
            words = [_text(name, word) for word in chunk.dictionary]
            texts += [words[place] if place is not None else ("", "") for place in chunk.indices.to_pylist()]
        else:
            texts += [_text(name, value) for value in chunk]
    return texts


def _text(name: str, scalar: Any) -> tuple[str, str]:
    try:
        value = scalar.as_py()
        value = value.decode() if isinstance(value, bytes) else value
        # A column of whole numbers with a gap is often stored as floats.
        value = int(value) if isinstance(value, float) and value.is_integer() else value
    except (ValueError, ArithmeticError, pa.ArrowException):
        return "", f"{name} cannot be read as text"
    if isinstance(value, list | dict | tuple):
        return "", f"{name} is a list or a structure, expected text or a number"
    return "" if value is None or value != value else str(value).strip(), ""


def check_columns(uri: str, found: Sequence[str], required: Sequence[str]) -> None:
    """Raise an `InputError` if a table lacks required columns."""
    missing = [name for name in required if name not in found]
    if missing:
        raise InputError(
            f"{uri} has no column {' and '.join(missing)}, only {listed(found)}; add it, a manifest needs both"
        )


def _check_rows(uri: str, rows: int) -> None:
    if rows > MAX_ROWS:
        raise InputError(f"{uri} has more than {MAX_ROWS} rows, too many for a crawl; split it")


def _check_distinct(uri: str, columns: Sequence[str], kept: set[str]) -> None:
    double = sorted(name for name in kept if columns.count(name) > 1)
    if double:
        raise InputError(f"{uri} has the column {listed(double)} twice; remove or rename one of them")


def listed(names: Sequence[str]) -> str:
    """Return the first names of columns for a message."""
    text = ", ".join(names[:10])
    return text[:200] + (", ..." if len(names) > 10 or len(text) > 200 else "")


def read_table(uri: str) -> bytes:
    """Return the bytes of the table of a crawl.

    Raises:
        InputError: If the file is too large, or of another kind, such as an archive.
    """
    fs, path = open_fs(uri)
    if (fs.size(path) or 0) > MAX_TABLE_BYTES:
        raise InputError(f"{uri} has more than {MAX_TABLE_BYTES >> 20} MiB, too much for a crawl; split it")
    data = read_bytes(uri)
    if data and (what := contents.describe(data)):
        raise InputError(f"{uri} is {what}")
    return data
