"""Parser of `name=value` settings; sets and checks the fields of nested dataclasses, each against its own type.

This module depends on no configuration. `experiment.py` contains one.
"""

import dataclasses
import difflib
import json
import math
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from previts.errors import InputError

Config = TypeVar("Config")


def require(name: str, value: object, allowed: str, holds: bool) -> None:
    """Raise an InputError with the name of a field, the allowed values and its value, unless `holds`."""
    if not holds:
        raise InputError(f"{name} must be {allowed}, got {value}")


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.0) -> str:
    """Return " (did you mean ...?)" with the most similar known name, or "" if its similarity is below `cutoff`."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" (did you mean {close[0]!r}?)" if close else ""


def unknown_name(name: str, known: Iterable[str], what: str) -> InputError:
    """Return the error about a name that does not exist, with the closest known name and the names next to it.

    Dotted names are compared as a whole and by their last part: `lr` is close to `optim.lr`. Of dotted names, the
    message lists only the section of the closest one.

    Args:
        name: The unknown name.
        known: The allowed names.
        what: Word for such a name in messages: field, job option, parameter, benchmark.
    """
    closest = max(known, key=lambda path: _similarity(name, path))
    prefix = closest[: closest.rfind(".") + 1]
    parts = (path.removeprefix(prefix).partition(".") for path in known if path.startswith(prefix))
    allowed = dict.fromkeys(f"{part}.*" if dot else part for part, dot, _ in parts)
    place = f" in {prefix.rstrip('.')}" if prefix else ""
    return InputError(f"there is no {what} {name!r} (did you mean {closest!r}?); allowed{place}: {', '.join(allowed)}")


def _similarity(name: str, path: str) -> tuple[float, float]:
    """Return how similar two dotted names are: by the better of the whole name and its last part, then by the whole."""
    whole = difflib.SequenceMatcher(None, name, path).ratio()
    last = difflib.SequenceMatcher(None, name.rpartition(".")[2], path.rpartition(".")[2]).ratio()
    return max(whole, last), whole


def split_setting(text: str, known: Collection[str], what: str, form: str = "name=value") -> tuple[str, str]:
    """Return the name and the value of a text such as `parts=32`.

    Args:
        text: The setting, from a command line or a parameter of a pipeline.
        known: The allowed names.
        what: Word for such a name in messages: field, job option, parameter.
        form: Expected form of the text, for messages.

    Raises:
        InputError: If the text has no "=", or the name is unknown. The message suggests the closest name.
    """
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals:
        raise InputError(f"cannot read {what} {text!r}: expected {form}")
    if name not in known:
        raise unknown_name(name, known, what)
    return name, value


def assign(config: type, values: dict[str, Any], keys: Sequence[str], text: str, path: str) -> None:
    """Set one field of nested dataclasses from text, checked against the type of the field.

    Args:
        config: The outermost dataclass.
        values: Its fields as plain data, such as `dataclasses.asdict` returns; changed in place.
        keys: Names of the fields from the outermost to the one to set; all must exist.
        text: The value as text.
        path: Name of the field in messages.

    Raises:
        InputError: If the text is not a value of the field.
    """
    hint = typing.get_type_hints(config)[keys[0]]
    if len(keys) > 1:
        assign(hint, values[keys[0]], keys[1:], text, path)
    else:
        values[keys[0]] = _parse(hint, text, path)


def paths(config: type, prefix: str = "") -> list[str]:
    """Return the dotted names of all fields of a dataclass and of the dataclasses in it, such as `inner.rate`."""
    found = []
    for name, hint in typing.get_type_hints(config).items():
        found += (
            paths(hint, f"{prefix}{name}.")
            if isinstance(hint, type) and dataclasses.is_dataclass(hint)
            else [prefix + name]
        )
    return found


def _parse(hint: Any, text: str, path: str) -> Any:
    """Return the value of type `hint` that `text` denotes."""
    if typing.get_origin(hint) is Literal or hint is str:
        return _checked(hint, text, path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{path} must be {_describe(hint)}, got {text[:80]!r}") from None
    return _checked(hint, value, path)


def _checked(hint: Any, value: Any, path: str) -> Any:
    """Return `value` as type `hint`; a JSON list becomes a tuple, and a whole number a float if `hint` is float."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Literal and value in arguments:
        return value
    if typing.get_origin(hint) is tuple and isinstance(value, list | tuple) and len(value) == len(arguments):
        return tuple(_checked(argument, item, path) for argument, item in zip(arguments, value, strict=True))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise InputError(f"{path} must be {_describe(hint)}, got {value!r}")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"a list of {len(typing.get_args(hint))} numbers"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[hint]


def from_plain(config: type[Config], values: Any, path: str) -> Config:
    """Return the dataclass that plain data, such as parsed JSON, describes.

    Args:
        config: The dataclass to make.
        values: Its fields as plain data.
        path: Prefix of the field names in messages, with a dot at its end; "" for the outermost dataclass.

    A field that is missing has its default: an earlier version did not have it. A new field needs a default with which
    the program does what it did before.

    Raises:
        InputError: If a field is unknown, has no default and is missing, or is of the wrong type.
    """
    hints = typing.get_type_hints(config)
    needed = {
        item.name
        for item in dataclasses.fields(typing.cast(Any, config))
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    }
    if not isinstance(values, dict) or not needed <= set(values) <= set(hints):
        found = ", ".join(sorted(values)) if isinstance(values, dict) else type(values).__name__
        raise InputError(f"{path or 'experiment'} must have the fields {', '.join(sorted(hints))}, got {found}")
    return config(
        **{
            name: from_plain(hint, values[name], f"{path}{name}.")
            if isinstance(hint, type) and dataclasses.is_dataclass(hint)
            else _checked(hint, values[name], path + name)
            for name, hint in hints.items()
            if name in values
        }
    )


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested settings as `{"optim.lr": 0.03, ...}`."""
    found: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
