"""Options of a job: parsing, the checks of their values, and the division of processes over nodes."""

import dataclasses
import json
import re

import pytest

from previts.errors import InputError
from previts.launch.options import JobOptions, option_types, parse, read_options


def test_options_are_parsed_and_the_last_value_of_a_key_counts():
    tolerations = [{"key": "spot", "operator": "Exists"}]
    texts = ["spot=true", "shm=1Gi", f"tolerations={json.dumps(tolerations)}", "shm=2Gi", "image=host:5000/a=b"]
    options = read_options(texts)
    assert options == JobOptions(spot=True, shm="2Gi", tolerations=tolerations, image="host:5000/a=b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spott=true", "did you mean 'spot'"),
        ("spot", "expected key=value"),
        ("spot=yes", "job option spot must be true or false, got 'yes'"),
        ("restarts=-1", "restarts must be a whole number of 0 or more"),
        ("restarts=true", "restarts must be a whole number"),
        ("namespace=Team", "namespace must be a lower-case name"),
        ("shm=lots", "shm must be a quantity such as 16Gi, got 'lots'"),
        ("tolerations=[1]", "tolerations must be a JSON list in which each item is a JSON object"),
        ("secrets=[{}]", "secrets must be a JSON list in which each item is text"),
        ('resources={"limits": {"memory": "much"}}', "resources memory must be a quantity"),
        ('resources={"requests": 1}', "resources requests must be a JSON object, got 1"),
        ("processes_per_node=0", "processes_per_node must be 1 or more"),
        ("lease_seconds=5", "lease_seconds must be 0, or 60 or more"),
    ],
)
def test_the_error_names_the_option_and_what_is_allowed(text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read_options([text])


def test_processes_are_divided_evenly_over_nodes():
    assert JobOptions().nodes(16) == (2, 8)
    assert JobOptions().nodes(4) == (1, 4)
    assert JobOptions(resources={"limits": {"nvidia.com/gpu": "4"}}).nodes(16) == (4, 4)
    with pytest.raises(InputError, match="12 processes do not fill nodes of 8"):
        JobOptions().nodes(12)


def test_the_text_form_of_each_default_is_parsed_to_the_default():
    for name, kind in option_types().items():
        value = getattr(JobOptions(), name)
        assert parse(name, value if kind is str else json.dumps(value)) == value
    assert set(option_types()) == {item.name for item in dataclasses.fields(JobOptions)}
