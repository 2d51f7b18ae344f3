"""Oracle: the settings and the messages, written out for each variable."""

import re

import pytest

from previts.errors import InputError
from previts.processes.conduct import Conduct, read_conduct


def test_an_empty_environment_gives_the_defaults():
    assert read_conduct({}) == read_conduct({"PREVITS_WORKERS": "", "PREVITS_COMPILE": ""}) == Conduct()
    assert Conduct() == Conduct(workers=None, accumulate=1, compile=False, checkpoint_seconds=600)


def test_each_variable_sets_its_field():
    environ = {
        "PREVITS_WORKERS": "0",
        "PREVITS_ACCUMULATE": "4",
        "PREVITS_COMPILE": "1",
        "PREVITS_CHECKPOINT_SECONDS": "30",
        "HOME": "/root",
    }
    assert read_conduct(environ) == Conduct(workers=0, accumulate=4, compile=True, checkpoint_seconds=30)
    assert not read_conduct({"PREVITS_COMPILE": "0"}).compile


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("PREVITS_WORKERS", "many", "0 or more"),
        ("PREVITS_WORKERS", "-1", "0 or more"),
        ("PREVITS_ACCUMULATE", "0", "1 or more"),
        ("PREVITS_COMPILE", "yes", "from 0 to 1"),
        ("PREVITS_COMPILE", "2", "from 0 to 1"),
        ("PREVITS_CHECKPOINT_SECONDS", "1.5", "1 or more"),
        ("PREVITS_CHECKPOINT_SECONDS", "0", "1 or more"),
    ],
)
def test_the_error_for_a_bad_value_names_its_variable(variable, text, allowed):
    message = f"the environment variable {variable} must be a whole number, {allowed}; got {text!r}"
    with pytest.raises(InputError, match=re.escape(message)):
        read_conduct({variable: text})
