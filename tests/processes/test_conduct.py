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
        "PREVITS_CACHE": "/mnt/a:b:20GB",
        "HOME": "/root",
    }
    expected = Conduct(workers=0, accumulate=4, compile=True, checkpoint_seconds=30, cache=("/mnt/a:b", 20 * 10**9))
    assert read_conduct(environ) == expected
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


@pytest.mark.parametrize("text", ["/mnt/disk", "/mnt/disk:200", "gs://bucket/cache:2GB", ":2GB"])
def test_a_cache_is_a_folder_and_a_size(text):
    message = "PREVITS_CACHE must be a folder of this machine and a size in MB, GB or TB, such as /mnt/disk/cache:200GB"
    with pytest.raises(InputError, match=re.escape(f"{message}; got {text!r}")):
        read_conduct({"PREVITS_CACHE": text})
