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


@pytest.mark.parametrize("crawls", [0, 4])
def test_a_number_of_crawls_that_the_world_does_not_have_is_refused(tmp_path, crawls):
    with pytest.raises(InputError, match=f"crawls must be 1, 2 or 3, got {crawls}"):
        stages.world(str(tmp_path), crawls=crawls)
    assert not list(tmp_path.iterdir())


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(InputError, match="seed must be 0 or more, got -1"):
        stages.world(str(tmp_path), seed=-1)
