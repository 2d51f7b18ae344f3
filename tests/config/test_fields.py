"""Oracles: messages and values written down by hand."""

import re
from dataclasses import dataclass, field
from typing import Literal

import pytest

from previts.config import fields
from previts.errors import InputError

KNOWN = ("parts", "profile", "rows")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("parts=3", ("parts", "3")),
        ("rows=a=b", ("rows", "a=b")),
        ("profile=", ("profile", "")),
        (" parts = 3 ", ("parts", " 3 ")),
    ],
)
def test_a_setting_is_split_at_its_first_equals_sign(text, expected):
    assert fields.split_setting(text, KNOWN, "parameter") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prts=3", "there is no parameter 'prts' (did you mean 'parts'?); allowed: parts, profile, rows"),
        ("=3", "there is no parameter '' (did you mean"),
        ("parts", "cannot read parameter 'parts': expected name=value"),
    ],
)
def test_an_unknown_setting_is_reported_with_the_closest_one(text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        fields.split_setting(text, KNOWN, "parameter")


def test_no_name_is_suggested_that_is_too_different():
    assert fields.did_you_mean("v003", ["v004", "w999"], cutoff=0.6) == " (did you mean 'v004'?)"
    assert fields.did_you_mean("qqqq", ["v004"], cutoff=0.6) == ""


@pytest.mark.parametrize(
    ("name", "suggestion", "allowed"),
    [
        ("min_overlap", "sampling.min_overlap", "allowed in sampling: min_overlap, overlap"),
        ("lr", "optim.lr", "allowed in optim: lr"),
        ("train.lr", "optim.lr", "allowed in optim: lr"),
        ("sampling.min_overlp", "sampling.min_overlap", "allowed in sampling: min_overlap, overlap"),
        ("augment.siz", "augment.size", "allowed in augment: size"),
        ("sead", "seed", "allowed: sampling.*, optim.*, augment.*, video.*, seed"),
    ],
)
def test_a_field_is_suggested_by_its_last_part_with_the_fields_of_its_section(name, suggestion, allowed):
    known = ("sampling.min_overlap", "sampling.overlap", "optim.lr", "augment.size", "video.sizes", "seed")
    with pytest.raises(InputError) as error:
        fields.split_setting(f"{name}=1", known, "field")
    assert str(error.value) == f"there is no field {name!r} (did you mean {suggestion!r}?); {allowed}"


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    count: int = 1


def test_a_field_is_set_by_its_dotted_name():
    assert fields.paths(Outer) == ["inner.rate", "inner.kind", "count"]
    values = {"inner": {"rate": 0.5, "kind": "a"}, "count": 1}
    fields.assign(Outer, values, ["inner", "rate"], "2", "inner.rate")
    fields.assign(Outer, values, ["count"], "7", "count")
    assert fields.from_plain(Outer, values, "") == Outer(Inner(2.0, "a"), 7)
    with pytest.raises(InputError, match=re.escape("inner.kind must be one of a, b, got 'c'")):
        fields.assign(Outer, values, ["inner", "kind"], "c", "inner.kind")


def test_flatten_names_nested_settings_by_their_path():
    nested = {"seed": 0, "optim": {"lr": 0.03, "deep": {"on": True}}, "sizes": (1, 2)}
    assert fields.flatten(nested) == {"seed": 0, "optim.lr": 0.03, "optim.deep.on": True, "sizes": (1, 2)}
