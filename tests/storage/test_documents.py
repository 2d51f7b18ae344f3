"""Oracles: documents whose damage is known, and the dataclass that a document was written from."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from previts.errors import InputError
from previts.storage import documents


@dataclass(frozen=True)
class Inner:
    unit: str
    share: float | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    kind: Literal["a", "b"]
    count: int
    rates: dict[str, int | float]
    inner: dict[str, Inner]
    places: tuple[str, ...] = ()
    anything: dict[str, Any] = field(default_factory=dict)


GOOD = Outer("x", "b", 3, {"p": 0.5, "q": 2}, {"i": Inner("m", 0.25), "j": Inner("s")}, ("u", "v"), {"deep": [1, None]})


def test_a_document_is_read_back_as_it_was_written() -> None:
    text = json.dumps(dataclasses.asdict(GOOD))
    assert documents.from_json(Outer, documents.parse_json(text.encode(), "it", "delete it"), "it", "") == GOOD


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": "3"}, "count must be a whole number, got '3'"),
        ({"count": True}, "count must be a whole number, got True"),
        ({"count": 3.5}, "count must be a whole number, got 3.5"),
        ({"kind": "c"}, "kind must be one of a, b, got 'c'"),
        ({"rates": []}, r"rates must be an object, got \[\]"),
        ({"rates": {"p": "x"}}, "rates.p must be a whole number or a number, got 'x'"),
        ({"rates": {"p": True}}, "rates.p must be a whole number or a number, got True"),
        ({"inner": {"i": {"unit": "m", "share": "x"}}}, "inner.i.share must be a number or null, got 'x'"),
        ({"inner": {"i": {}}}, r"inner.i must be an object with the fields unit, \[share\], got the fields \(none\)"),
        ({"inner": {"i": {"unit": "m", "share": 10**400}}}, "inner.i.share must be a number or null, got 1000"),
        ({"places": ["u", 1]}, r"places\[1\] must be text, got 1"),
        ({"name": None}, "name must be text, got None"),
        ({"other": 1}, "it must be an object with the fields name, .*got the fields name, .* other"),
    ],
)
def test_a_field_of_another_type_is_named_with_what_is_expected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^the file: {message}.*; delete it$"):
        documents.from_json(Outer, {**dataclasses.asdict(GOOD), "places": ["u"], **changes}, "the file", "delete it")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Expecting value"),
        (b"{", "property name"),
        (b'{"a": NaN}', "NaN is not a finite number"),
        (b'{"a": -Infinity}', "-Infinity is not a finite number"),
        (b'{"a": 1e999}', "1e999 is not a finite number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "4300 digits"),
        (b'{"a": 1, "b": 2, "a": 3}', "the name 'a' occurs twice"),
        ('{"a": 1}'.encode("utf-16"), "codec can't decode"),
        (b'{"a": "\xff"}', "codec can't decode"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b"\x80\x04\x95", "codec can't decode"),
    ],
    ids=range(12),
)
def test_bytes_that_are_no_document_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=rf"^the file is damaged or not JSON \(.*{message}.*\); delete it$"):
        documents.parse_json(data, "the file", "delete it")


def test_a_byte_order_mark_is_accepted() -> None:
    assert documents.parse_json(b'\xef\xbb\xbf{"a": 1}', "the file", "delete it") == {"a": 1}
