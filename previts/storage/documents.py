"""JSON documents that are read back, checked by the type of each field.

A document may have been damaged or edited since it was written, and some come from the user. So nothing in it is
believed: an error names the file, the field, what was expected and what was found.
"""

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

from previts.errors import InputError

Document = TypeVar("Document")
MAX_DIGITS = 64  # of a number in a text
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)


def parse_json(data: bytes, name: str, remedy: str) -> Any:
    """Return the JSON document in some bytes.

    Stricter than `json`: UTF-8 only, finite numbers only, and no name twice in an object.

    Args:
        data: The bytes.
        name: What they are, for messages, such as the URI of their file.
        remedy: What to do if they are damaged, for messages.

    Raises:
        InputError: If the bytes are not such a document.
    """
    try:
        return json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=_without_repetition,
            parse_constant=_finite,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"{name} is damaged or not JSON ({reason}); {remedy}") from None


def number(text: str) -> float:
    """Return the finite decimal number that a field of a file denotes.

    Raises:
        ValueError: If it is not one. `float` would also take nan, inf, 1_0 and the digits of other alphabets.
    """
    if len(text) > MAX_DIGITS or not _NUMBER.fullmatch(text.strip()) or not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:MAX_DIGITS]!r} is not a number")
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return value


def from_json(kind: type[Document], value: Any, name: str, remedy: str) -> Document:
    """Return a parsed JSON document as a dataclass.

    The fields may be str, int, float, bool, Any, dataclasses, and lists, tuples, mappings or unions of these. A field
    with a default may be missing. A whole number is a float where one is expected.

    Args:
        kind: The dataclass.
        value: The parsed document.
        name: What it is, for messages, such as the URI of its file.
        remedy: What to do if it has another form, for messages.

    Raises:
        InputError: If a field is unknown, missing or of another type.
    """
    try:
        found: Document = _checked(kind, value, "")
    except _MismatchError as error:
        raise InputError(f"{name}: {error}; {remedy}") from None
    return found


class _Fields(str):
    """A description of an object that is shown as it is."""


class _MismatchError(ValueError):
    def __init__(self, path: str, expected: str, value: Any) -> None:
        text = str(value) if isinstance(value, _Fields) else repr(value)
        super().__init__(f"{path or 'it'} must be {expected}, got {text if len(text) <= 80 else text[:77] + '...'}")


def _checked(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _dataclass(hint, value, path)
    if origin in (types.UnionType, typing.Union):
        for argument in arguments:
            try:
                return _checked(argument, value, path)
            except _MismatchError:
                continue
    if origin is Literal and any(type(value) is type(known) and value == known for known in arguments):
        return value
    if hint is float and type(value) in (int, float):
        try:
            return float(value)
        except OverflowError:  # a whole number that no float can hold
            pass
    if hint in (str, int, bool, type(None)) and type(value) is hint:
        return value
    if origin in (list, tuple, Sequence) and isinstance(value, list):
        items = [_checked(arguments[0], item, f"{path}[{place}]") for place, item in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {key: _checked(arguments[1], item, f"{path}.{key}".lstrip(".")) for key, item in value.items()}
    raise _MismatchError(path, _describe(hint), value)


def _dataclass(kind: type, value: Any, path: str) -> Any:
    hints = typing.get_type_hints(kind)
    required = [
        item.name
        for item in dataclasses.fields(kind)
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    if not isinstance(value, dict) or set(value) - set(hints) or set(required) - set(value):
        found = _Fields(f"the fields {', '.join(value) or '(none)'}") if isinstance(value, dict) else value
        known = ", ".join(name if name in required else f"[{name}]" for name in hints)
        raise _MismatchError(path, f"an object with the fields {known}", found)
    prefix = f"{path}." if path else ""
    return kind(**{name: _checked(hints[name], item, prefix + name) for name, item in value.items()})


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(dict.fromkeys(_describe(argument) for argument in arguments))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (list, tuple, Sequence):
        return "a list"
    if origin in (dict, Mapping):
        return "an object"
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    return names.get(hint, "an object")
