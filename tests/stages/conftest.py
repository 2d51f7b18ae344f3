"""One call of every verb on a small synthetic world, shared by the tests of all verbs."""

from dataclasses import replace
from pathlib import Path

import pytest
from small_verbs import ODD, SMALL

from previts import demo, stages
from previts.storage import folders


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / ODD
    demo.make_world(str(folder), replace(demo.TINY, seed=1))
    return folder


@pytest.fixture(scope="session")
def made(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the URIs of one call of every verb. Verbs that share work run as two parts, the second part first."""
    root = str(tmp_path_factory.mktemp("root") / ODD)
    at = {"root": root, "crawl": str(world / "crawls" / "crawl-1.csv"), "data": str(world / "datasets")}
    for part in (1, 0):
        at["videos"] = stages.download(at["crawl"], root, "demo", SMALL, part, 2)
        assert folders.is_committed(at["videos"]) == (part == 0)
    at["model"] = stages.fit_saliency(at["videos"], root, "demo", SMALL)
    for part in (1, 0):
        at["saliency"] = stages.saliency(at["videos"], at["model"], root, "demo", SMALL, part, 2)
        at["tubes"] = stages.track(at["videos"], at["saliency"], root, "demo", SMALL, part, 2)
        assert folders.is_committed(at["tubes"]) == (part == 0)
    at["index"] = stages.index(at["videos"], at["tubes"], root)
    at["checkpoint"] = stages.pretrain("1/vgg/previts", at["index"], root, "demo", SMALL)
    at["result"] = stages.evaluate("1/vgg/previts", "davis", at["checkpoint"], at["data"], root, "demo", SMALL)
    at["report"] = stages.report(["1/vgg/previts", "6b"], at["index"], [at["result"]], root, "demo", SMALL)
    return at
