"""Oracle: the rows that were written."""

from dataclasses import dataclass

import pyarrow as pa
import pytest

from previts.errors import InputError
from previts.storage import files, tables


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
