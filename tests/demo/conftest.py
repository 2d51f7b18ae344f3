"""The demo world that the tests of this folder read."""

from pathlib import Path

import pytest

from previts.demo import TINY, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """The folder of a small world, and the counts that `make_world` returned."""
    root = tmp_path_factory.mktemp("world")
    return root, make_world(str(root), TINY)
