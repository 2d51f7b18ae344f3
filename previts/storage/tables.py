"""Parquet tables of dataclass rows; the dataclass gives the schema, which never depends on the data.

A table contains checksums of its pages, and the place that it was written to (`folders.place`). So a damaged table, and
a copy of the table of another shard or result, are found even while the folder is not finished.
"""

import functools
import hashlib
import io
import math
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, TypeVar, get_args, get_origin

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from previts.errors import InputError
from previts.storage import fences, files, folders, leases

Row = TypeVar("Row")

REMEDY = f"delete {folders.MANIFEST} next to it, if it exists, and run the stage that writes it again"

_PLACE, _ERASED_FROM = b"previts.place", b"previts.erased_from"
_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), bytes: pa.binary()}


@dataclass(frozen=True)
class Within:
    """The least and the largest value of a number, both allowed; a row type states them as `Annotated[int, Within]`."""

    low: float = -math.inf
    high: float = math.inf


# Numbers that many tables have. The limits are far above what is stored, and far below what fills the memory.
Count = Annotated[int, Within(0, 10**8)]  # of frames or shards
Side = Annotated[int, Within(0, 2**15)]  # of a frame, in pixels
Place = Annotated[int, Within(0, 2**61)]  # in a file, in bytes
Crc = Annotated[int, Within(0, 2**32 - 1)]
Share = Annotated[float, Within(0, 1)]
Positive = Annotated[float, Within(0)]
Rate = Annotated[float, Within(0, 10**5)]  # frames a second


def schema(row_type: type) -> pa.Schema:
    """Return the Arrow schema of a dataclass; fields are str, int, float, bool, bytes, lists or optionals of these."""
    hints = _hints(row_type)
    return pa.schema([(item.name, _arrow_type(hints[item.name])) for item in fields(row_type)])


@functools.cache
def _hints(row_type: type) -> dict[str, Any]:
    return typing.get_type_hints(row_type, include_extras=True)


def _arrow_type(hint: Any) -> pa.DataType:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _arrow_type(arguments[0])
    if origin in (list, tuple):
        return pa.list_(_arrow_type(arguments[0]))
    if origin in (types.UnionType, typing.Union):
        return _arrow_type(next(argument for argument in arguments if argument is not type(None)))
    if origin is typing.Literal:
        return pa.string()
    return _ARROW[hint]


def write_shard(
    folder: str, shard: int, data: str, create: Callable[[str], None], row_type: type[Row], rows: Iterable[Row]
) -> None:
    """Write the data of a shard, then its table. Both are always of one process, also if two processes write at once.

    Args:
        folder: URI of the folder.
        shard: Number of the shard.
        data: Name of the file that the table describes.
        create: Creates the file at a URI, and raises a FileExistsError if it exists.
        row_type: Type of the rows.
        rows: Rows of the table.

    Raises:
        LostError: If another process has taken over the shard.
    """
    table = files.join(folder, table_name(shard))
    fences.check(folder)
    leases.delete(table)  # a table of an earlier file must not exist next to the new one
    leases.replace(files.join(folder, data), create)
    leases.replace(table, lambda uri: write_records(uri, row_type, rows, create=True))


def write_records(uri: str, row_type: type[Row], rows: Iterable[Row], *, create: bool = False) -> None:
    """Write rows to a Parquet file; a reader sees the complete file or no file.

    Raises:
        FileExistsError: If the file exists and `create` is true.
        LostError: If another process has taken over the work on the folder.
    """
    write_table(uri, to_table(row_type, rows), create=create)


def to_table(row_type: type[Row], rows: Iterable[Row]) -> pa.Table:
    """Return rows as an Arrow table with the schema of their dataclass."""
    rows, columns = list(rows), schema(row_type)
    return pa.table({name: [getattr(row, name) for row in rows] for name in columns.names}, schema=columns)


def write_table(uri: str, table: pa.Table, *, create: bool = False, erased_from: str = "") -> None:
    """Write an Arrow table to a Parquet file, like `write_records`; `erased_from` is that of `erase_rows`."""
    fences.check(uri)
    note = {_ERASED_FROM: erased_from.encode()} if erased_from else {}
    table = table.replace_schema_metadata({_PLACE: folders.place(uri).encode(), **note})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    files.write_bytes(uri, buffer.getvalue(), create=create)


def parse(data: bytes) -> pa.Table:
    """Return the table in the bytes of a Parquet file."""
    return _open(data).read(use_threads=False)


def _open(data: bytes) -> pq.ParquetFile:
    """Return the bytes of a Parquet file as a file from which columns are read with `use_threads=False`.

    No thread of Arrow takes part. `pq.read_table` would start one in any case, for its scanner of data sets. The thread
    may be the last to release the Python object that holds the bytes. If the interpreter is ending at that moment, the
    process is aborted after its work is done.
    """
    return pq.ParquetFile(io.BytesIO(data), pre_buffer=False, page_checksum_verification=True)


def read_table(uri: str, row_type: type, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a Parquet file of a result folder as an Arrow table; `row` returns one of its rows.

    Args:
        uri: The file.
        row_type: Type of the rows.
        columns: Names of the columns that are read and checked; by default all.

    Raises:
        InputError: If the file is missing, is damaged, is not the one that the stage wrote to this place, its columns
            are not the fields of `row_type`, or a value is not one that a field allows.
    """
    try:
        data = folders.read_file(*uri.rsplit("/", 1))
    except FileNotFoundError:
        raise InputError(f"{uri} is missing; {REMEDY}") from None
    try:
        file = _open(data)
        table, found = file.read(columns, use_threads=False), file.schema_arrow
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{uri} is damaged ({error}); delete it, {REMEDY}") from None
    expected = schema(row_type)
    if found.names != expected.names:
        raise InputError(f"{uri} has the columns {found.names}, expected {expected.names}; {REMEDY}")
    if not found.equals(expected):
        types_found = [
            f"{column.name} is {column.type}, expected {wanted.type}"
            for column, wanted in zip(found, expected, strict=True)
            if column.type != wanted.type
        ]
        raise InputError(f"{uri} has columns of other types: {', '.join(types_found)}; delete it, {REMEDY}")
    place = (found.metadata or {}).get(_PLACE, b"").decode(errors="replace")
    if not folders.is_at(place, uri):
        raise InputError(f"{uri} is a copy of {place or 'a table of another program'}; delete it, {REMEDY}")
    hints = _hints(row_type)
    for name in table.column_names:
        if wrong := _fault(hints[name], table.column(name).combine_chunks()):
            raise InputError(f"{uri}: the column {name} has {wrong}; delete it, {REMEDY}")
    return table


def erase_rows(folder: str, name: str, row_type: type[Row], erased: Callable[[Row], Row]) -> bool:
    """Replace rows of a table of a finished folder by rows without content, and list the new table in the manifest.

    The new table names the digest of the one that it was made from. So if this process is killed before it changes the
    manifest, the next call knows that the table is not damaged.

    Args:
        folder: The folder.
        name: The file of the table.
        row_type: Type of the rows.
        erased: Returns what is left of a row; the row itself if it stays.

    Returns:
        Whether a row had to be erased.

    Raises:
        InputError: If the table is missing or is damaged.
    """
    uri, listed = files.join(folder, name), folders.read_manifest(folder).files.get(name, "")
    try:
        data = files.read_bytes(uri)
        table = parse(data)
        rows = [row_type(**values) for values in table.to_pylist()]
    except (FileNotFoundError, pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise InputError(f"{uri} cannot be read ({error}); delete it, {REMEDY}") from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != listed:
        if (table.schema.metadata or {}).get(_ERASED_FROM, b"").decode(errors="replace") != listed:
            folders.check_file(folder, name, data)
        folders.list_again(folder, name, digest)
    left = [erased(item) for item in rows]
    if left == rows:
        return digest != listed
    write_table(uri, to_table(row_type, left), erased_from=digest)
    folders.list_again(folder, name, hashlib.sha256(files.read_bytes(uri)).hexdigest())
    return True


def _fault(hint: Any, values: pa.Array, *, optional: bool = False, limits: Within = Within()) -> str:
    """Return which values of a column its field does not allow, or ""."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fault(arguments[0], values, optional=optional, limits=arguments[1])
    if origin in (types.UnionType, typing.Union):
        return _fault(next(argument for argument in arguments if argument is not type(None)), values, optional=True)
    if values.null_count and not optional:
        return f"{values.null_count} empty cells"
    if origin in (list, tuple):
        return _fault(arguments[0], values.flatten())
    if origin is typing.Literal:
        unknown = sorted(set(values.unique().to_pylist()) - {*arguments, None})
        return f"the value {unknown[0][:80]!r}, expected one of {', '.join(arguments)}" if unknown else ""
    if hint not in (int, float):
        return ""
    numbers = values.drop_null().to_numpy(zero_copy_only=False)
    outside = ~np.isfinite(numbers) | (numbers < limits.low) | (numbers > limits.high)
    if not outside.any():
        return ""
    allowed = "finite numbers" if math.isinf(limits.low) else f"numbers from {limits.low:g} to {limits.high:g}"
    return f"the value {numbers[outside][0]}, expected {allowed}"


def row(table: pa.Table, row_type: type[Row], number: int) -> Row:
    """Return one row of a table as its dataclass."""
    return row_type(**{name: table.column(name)[number].as_py() for name in table.column_names})


def read_records(uri: str, row_type: type[Row]) -> list[Row]:
    """Return all rows of a Parquet file; raises the errors of `read_table`."""
    return [row_type(**values) for values in read_table(uri, row_type).to_pylist()]


def num_rows(uri: str) -> int:
    """Return the number of rows of a Parquet file; reads only its footer.

    Raises:
        InputError: If the file is missing or damaged.
    """
    fs, path = files.open_fs(uri)
    try:
        files.check_regular(uri)
        with fs.open(path, "rb") as file:
            return int(pq.read_metadata(file).num_rows)
    except FileNotFoundError:
        raise InputError(f"{uri} is missing; {REMEDY}") from None
    except pa.ArrowException as error:
        raise InputError(f"{uri} is damaged ({error}); delete it, {REMEDY}") from None


def shard_count(uri: str) -> int:
    """Return the number of shards of a finished folder.

    Raises:
        InputError: If the folder is not finished, or its manifest counts other shards than it lists.
    """
    manifest = folders.read_manifest(uri)
    listed = sorted(name for name in manifest.files if name.startswith("shard-"))
    count = manifest.counts.get("shards")
    if not listed or count != len(listed) or listed != [table_name(shard) for shard in range(len(listed))]:
        raise InputError(
            f"{files.join(uri, folders.MANIFEST)}: counts.shards must be the number of tables that it lists, "
            f"{len(listed)}, and at least 1, got {count}; delete it and run the stage that writes it again"
        )
    return len(listed)


def table_names(shards: int) -> list[str]:
    """Return the file names of the tables of a number of shards."""
    return [table_name(shard) for shard in range(shards)]


def table_name(shard: int) -> str:
    """Return the file name of the table of a shard."""
    return f"shard-{shard:05d}.parquet"
