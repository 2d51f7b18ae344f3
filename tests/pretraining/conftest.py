from pathlib import Path

import pytest
from moving_squares import make_index

from previts.corpus.index_table import Index


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Ten videos of moving squares; tests that change files copy them first."""
    folder: Path = tmp_path_factory.mktemp("corpus")
    return make_index(folder, 10)
