"""The verb `world`. `tests/demo` checks what it draws."""

import pytest

from previts import stages
from previts.errors import InputError
from previts.stages.addresses import FORMATS
from previts.storage import folders


def test_a_finished_world_is_not_made_again(tmp_path):
    decided = {"seed": 3, "format": FORMATS["world"]}
    uri = folders.address(str(tmp_path), "world", "demo", decided)
    folders.commit(uri, decided)
    assert stages.world(str(tmp_path), seed=3) == uri
    assert [path.name for path in (tmp_path / "world").rglob("*") if path.is_file()] == ["manifest.json"]


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(InputError, match="seed must be 0 or more, got -1"):
        stages.world(str(tmp_path), seed=-1)
