"""The model and the demo world that the tests of detection share."""

from dataclasses import replace
from pathlib import Path

import pytest
from colour_images import image_model

from previts.demo import TINY
from previts.demo.sets import world_images
from previts.models.moco import MoCo


@pytest.fixture(scope="package")
def model() -> MoCo:
    return image_model(groups=2)


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    world_images.write_voc(str(root / "voc"), replace(TINY, voc_images=8))
    world_images.write_coco(str(root / "coco"), TINY)
    return root
