"""Oracles: another process, and values that are equal or differ in one place."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from previts.storage import fingerprints


@dataclass(frozen=True)
class Config:
    rate: float
    names: tuple[str, ...]


def test_a_fingerprint_is_the_same_in_another_process_and_with_another_order_of_keys():
    value = {"b": [1, 2.5, None, True], "a": {"x": "é"}}
    program = (
        "from previts.storage import fingerprints\n"
        "print(fingerprints.fingerprint({'a': {'x': 'é'}, 'b': (1, 2.5, None, True)}))"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == fingerprints.fingerprint(value)
    assert len(fingerprints.fingerprint(value)) == 12


def test_a_dataclass_is_fingerprinted_as_its_fields():
    assert fingerprints.fingerprint(Config(0.5, ("a",))) == fingerprints.fingerprint({"rate": 0.5, "names": ["a"]})
    assert fingerprints.fingerprint(Config(0.5, ("a",))) != fingerprints.fingerprint(Config(0.25, ("a",)))


@pytest.mark.parametrize("value", [{1, 2}, object(), b"x", {1: "a"}])
def test_a_value_without_a_single_json_form_is_refused(value):
    with pytest.raises(TypeError, match="fingerprint"):
        fingerprints.fingerprint(value)


def test_a_number_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="finite"):
        fingerprints.fingerprint({"a": float("nan")})
