"""Oracle: the rows that were written."""

import contextlib
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from previts.errors import InputError
from previts.storage import files, folders, tables


@dataclass(frozen=True)
class Line:
    name: str
    count: int
    share: float
    good: bool
    header: bytes
    frames: list[int]
    spans: list[list[int]]
    start: float | None


LINES = [
    Line("a", 1, 0.5, True, b"\x00\xff", [1, 2], [[0, 3], [5, 9]], None),
    Line("b", 2**40, -1.0, False, b"", [], [], 2.5),
]


@pytest.mark.parametrize("rows", [LINES, LINES[:1], []])
def test_read_rows_equal_the_written_rows(tmp_path, rows):
    uri = str(tmp_path / "table.parquet")
    tables.write_records(uri, Line, rows)
    assert tables.read_records(uri, Line) == rows
    table = tables.read_table(uri, Line)
    assert [tables.row(table, Line, number) for number in range(table.num_rows)] == rows


def test_the_schema_does_not_depend_on_the_rows(tmp_path):
    empty, full = str(tmp_path / "empty"), str(tmp_path / "full")
    tables.write_records(empty, Line, [])
    tables.write_records(full, Line, LINES)
    assert tables.read_table(empty, Line).schema == tables.read_table(full, Line).schema
    assert tables.schema(Line).field("spans").type == pa.list_(pa.list_(pa.int64()))


def test_errors_for_missing_damaged_and_foreign_tables_name_the_file(tmp_path):
    @dataclass(frozen=True)
    class Other:
        name: str

    uri = str(tmp_path / "table.parquet")
    with pytest.raises(InputError, match=r"table\.parquet is missing"):
        tables.read_records(uri, Line)
    tables.write_records(uri, Line, LINES)
    with pytest.raises(InputError, match="has the columns"):
        tables.read_records(uri, Other)
    files.write_bytes(uri, files.read_bytes(uri)[:-20])
    with pytest.raises(InputError, match=r"table\.parquet is damaged"):
        tables.read_records(uri, Line)


def test_the_number_of_rows_is_read_from_the_footer(tmp_path):
    for rows in ([], LINES):
        tables.write_records(str(tmp_path / "table"), Line, rows)
        assert tables.num_rows(str(tmp_path / "table")) == len(rows)


def test_table_names_sort_like_their_shards():
    names = [tables.table_name(shard) for shard in (0, 9, 10, 99999)]
    assert names[0] == "shard-00000.parquet"
    assert names == sorted(names)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux lists the threads of a process")
def test_reading_starts_no_thread_that_could_abort_the_end_of_the_process(tmp_path):
    uri = str(tmp_path / "table.parquet")
    tables.write_records(uri, Line, LINES)
    program = (
        "import os, sys\n"
        "from previts.storage import files, tables\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "tables.parse(files.read_bytes(sys.argv[1])).to_pylist()\n"
        "tables.num_rows(sys.argv[1])\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    run = subprocess.run([sys.executable, "-c", program, uri], capture_output=True, text=True, check=True)
    assert run.stdout == "0\n"


def test_any_changed_byte_of_a_table_is_found(tmp_path):
    uri = str(tmp_path / "table.parquet")
    tables.write_records(uri, Line, LINES)
    data = files.read_bytes(uri)
    for position in range(0, len(data), 7):
        changed = bytearray(data)
        changed[position] ^= 0x55
        files.write_bytes(uri, bytes(changed))
        with contextlib.suppress(InputError):
            assert tables.read_records(uri, Line) == LINES  # a byte without a meaning


def test_a_copy_of_another_table_is_refused_and_a_moved_or_renamed_folder_is_not(tmp_path):
    one, other = (str(tmp_path / f"x-{digit * 12}") for digit in "ab")
    for folder in (one, other):
        for shard in range(2):
            tables.write_records(files.join(folder, tables.table_name(shard)), Line, LINES)
    for source in (f"{one}/shard-00001.parquet", f"{other}/shard-00000.parquet"):
        files.upload(source, f"{one}/shard-00000.parquet")
        with pytest.raises(InputError, match=r"shard-00000\.parquet is a copy of [ab]{12}/shard-0000[01].*delete it"):
            tables.read_records(f"{one}/shard-00000.parquet", Line)
    for name in (f"renamed-{'b' * 12}", "mine", "of-202611291509/mine"):  # the last: in a root named by its time
        (tmp_path / name).mkdir(parents=True)
        files.upload(f"{other}/shard-00000.parquet", f"{tmp_path}/{name}/shard-00000.parquet")
        assert tables.read_records(f"{tmp_path}/{name}/shard-00000.parquet", Line) == LINES


def test_columns_of_another_type_and_tables_of_other_programs_are_refused(tmp_path):
    @dataclass(frozen=True)
    class Typed:
        name: str
        count: float

    @dataclass(frozen=True)
    class Known:
        name: str
        count: int

    uri = str(tmp_path / "table.parquet")
    tables.write_records(uri, Typed, [Typed("a", 0.5)])
    with pytest.raises(InputError, match="has columns of other types: count is double, expected int64; delete it"):
        tables.read_records(uri, Known)
    pq.write_table(pa.Table.from_pylist([{"name": "a", "count": 1}]), uri)
    with pytest.raises(InputError, match="is a copy of a table of another program; delete it"):
        tables.read_records(uri, Known)


@pytest.mark.parametrize(
    ("written", "count", "found"), [([0, 1, 2], 3, 3), ([0, 1, 2], 2, 0), ([0, 2], 2, 0), ([], 0, 0), ([0], "1", 0)]
)
def test_the_shards_are_those_that_the_manifest_lists(tmp_path, written, count, found):
    uri = folders.address(str(tmp_path), "videos", "x", {})
    names = [tables.table_name(shard) for shard in written]
    for name in names:
        tables.write_records(files.join(uri, name), Line, LINES)
    folders.commit(uri, {}, counts={"shards": count}, files=names)
    if found:
        assert tables.shard_count(uri) == found
    else:
        with pytest.raises(InputError, match=r"counts\.shards must be .*delete (it|manifest\.json) and run"):
            tables.shard_count(uri)


@dataclass(frozen=True)
class Limited:
    count: Annotated[int, tables.Within(0, 9)]
    share: Annotated[float, tables.Within(0, 1)] | None
    places: list[Annotated[int, tables.Within(0, 9)]]
    kind: Literal["a", "b"]
    free: float


GOOD = Limited(9, None, [0, 9], "a", -1e300)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("count", -1, r"the value -1, expected numbers from 0 to 9"),
        ("count", 2**62, "the value 4611686018427387904, expected"),
        ("count", None, "1 empty cells"),
        ("share", 1.5, "the value 1.5, expected numbers from 0 to 1"),
        ("share", float("nan"), "the value nan, expected"),
        ("places", None, "1 empty cells"),
        ("places", [1, None], "1 empty cells"),
        ("places", [1, 10], "the value 10, expected"),
        ("kind", "c", "the value 'c', expected one of a, b"),
        ("kind", None, "1 empty cells"),
        ("free", float("inf"), "the value inf, expected finite numbers"),
    ],
)
def test_values_outside_the_limits_of_a_field_are_refused(tmp_path, field, value, message):
    uri = str(tmp_path / "table.parquet")
    tables.write_records(uri, Limited, [GOOD])
    assert tables.read_records(uri, Limited) == [GOOD]
    tables.write_records(uri, Limited, [GOOD, replace(GOOD, **{field: value})])
    with pytest.raises(InputError, match=rf"table\.parquet: the column {field} has {message}.*; delete it"):
        tables.read_records(uri, Limited)


def test_text_that_is_not_utf8_is_refused(tmp_path):
    uri = str(tmp_path / "table.parquet")
    tables.write_records(uri, Line, LINES)
    names = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"b"]).buffers())
    table = tables.parse(files.read_bytes(uri))
    pq.write_table(table.set_column(0, table.schema.field(0), names), uri)
    with pytest.raises(InputError, match=r"table\.parquet is damaged"):
        tables.read_records(uri, Line)


def test_the_number_of_rows_of_a_damaged_table_is_not_known(tmp_path):
    path = tmp_path / "table"
    with pytest.raises(InputError, match="table is missing"):
        tables.num_rows(str(path))
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="table is damaged"):
        tables.num_rows(str(path))
