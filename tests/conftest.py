import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real videos and labelled sets, for measuring; the project runs and is tested without them."""
    folder = Path(os.environ.get("PREVITS_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set PREVITS_REAL_DATA to a folder with crawl/, davis/, voc/, in9/, ...")
    return folder
