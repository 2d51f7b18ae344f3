"""The sizes of the steps: those of the profile, with the user's changes."""

import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from previts.config import profiles
from previts.errors import InputError
from previts.runs import sizes


def test_each_profile_has_sizes():
    assert set(sizes.PROFILES) == {profile.name for profile in profiles.PROFILES.values()}


def test_changes_replace_the_sizes_of_the_profile():
    changed = sizes.sizes("demo", {"cpu": "2", "training_memory": "6Gi"})
    assert changed == replace(sizes.PROFILES["demo"], cpu="2", training_memory="6Gi")
    assert sizes.sizes("paper", {}) == sizes.PROFILES["paper"]


@pytest.mark.parametrize("value", ["1", "8", "900m", "1.5", "0.5"])
def test_cores_of_kubernetes_are_accepted(value):
    assert sizes.sizes("demo", {"cpu": value}).cpu == value


@pytest.mark.parametrize("value", ["", "0", "0.0", "0m", "-1", "two", "2Gi", "1,5", " 2", 2, None])
def test_other_values_of_cores_are_refused(value):
    with pytest.raises(InputError, match=r"sizes: report_cpu must be cores such as 2 or 900m, as text, got"):
        sizes.sizes("demo", {"report_cpu": value})


@pytest.mark.parametrize("value", ["", "0Gi", "6", "6GB", "6 Gi", "Gi", 6, None])
def test_other_values_of_memory_are_refused(value):
    with pytest.raises(InputError, match=r"sizes: data_memory must be memory such as 6Gi, as text, got"):
        sizes.sizes("demo", {"data_memory": value})


def test_an_unknown_size_is_refused_with_the_closest_name():
    with pytest.raises(InputError, match=r"no size 'training_mem' \(did you mean 'training_memory'\?\)"):
        sizes.sizes("paper", {"training_mem": "6Gi"})


def test_the_documentation_has_the_sizes():
    text = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    table = text.split("| name in `sizes` |")[1].split("\n\n")[0]
    written: dict[str, dict[str, str]] = {"paper": {}, "demo": {}}
    for line in table.splitlines()[2:]:
        names, _, paper, demo = (cell.strip() for cell in line.strip("|").split("|"))
        for number, name in enumerate(re.findall(r"`(\w+)`", names)):
            written["paper"][name], written["demo"][name] = (cell.split(", ")[number] for cell in (paper, demo))
    assert written == {name: asdict(item) for name, item in sizes.PROFILES.items()}


def test_no_size_is_an_empty_text():
    # KFP's driver fails on an empty amount.
    assert all(value for profile in sizes.PROFILES.values() for value in asdict(profile).values())
