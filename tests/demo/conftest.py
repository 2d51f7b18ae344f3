"""The demo world that the tests of this folder read."""

from pathlib import Path

import pytest

from previts.demo import TINY, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """The folder of a small world that two processes drew, and the counts that `make_world` returned."""
    root = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREVITS_WORKERS", "2")
        return root, make_world(str(root), TINY)
