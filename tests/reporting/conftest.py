"""A report of two checkpoints and five rows, which the tests of its parts share."""

import pytest
from report_world import (
    EVIL,
    Reader,
    World,
    attention_figure,
    fingerprint,
    make_checkpoint,
    make_corpus,
    make_result,
)

from previts.evals.outcome import Population
from previts.reporting import inputs
from previts.reporting.page import build_report

DAVIS = {"davis/j_mean": 0.3125, "davis/j_recall": 0.5, "davis/j_decay": 0.0, "davis/upsampled_j_mean": 0.29}
BETTER = DAVIS | {"davis/j_mean": 0.5, "davis/j_decay": -0.02}


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    corpus = make_corpus(root, [EVIL, *(f"video-{number}" for number in range(4)), "broken"], truth=True)
    moco, previts = make_checkpoint(root, "aaa", corpus, 0.0), make_checkpoint(root, "bbb", corpus, 3.0)
    results = [
        make_result(
            root, "voc07", moco, {"voc07/map": 31.25}, populations={"voc07/map": Population(4952, "images", 7.7)}
        ),
        make_result(root, "in1k", moco, {"in1k/top1": 12.0, "in1k/top5": None}),
        make_result(root, "davis", moco, DAVIS, figure=attention_figure(0.1)),
        make_result(root, "in9", moco, {}, error=f"{EVIL} was\nnot found | anywhere " + "x" * 5000),
        make_result(root, "voc07", previts, {"voc07/map": 34.5}),
        make_result(root, "davis", previts, BETTER, figure=attention_figure(0.9)),
    ]  # fmt: skip
    rows = [
        inputs.ReportRow(
            "1/moco", "MoCo", moco, fingerprint(moco), {"voc07/map": 68.3, "in1k/top1": 46.9, "in9/original": 77.9}
        ),
        inputs.ReportRow("1/previts", "+ PreViTS", previts, fingerprint(previts), {"voc07/map": 73.0}),
        inputs.ReportRow("1/same", "mu = 0.3", previts, fingerprint(previts), {"voc07/map": 73.0}),
        inputs.ReportRow(
            "1/gone", "never trained", str(root / "checkpoints" / "resnet-ccc"), "ccc", {"voc07/map": 1.0}
        ),
        inputs.ReportRow("6b/mu", EVIL, previts, fingerprint(previts), {"voc07/map": 73.0}),
    ]
    target = root / "report" / "r-0"
    return World(results, rows, target, build_report(results, str(target), rows, profile="demo", index=corpus))


@pytest.fixture(scope="package")
def page(world: World) -> Reader:
    return Reader(world.html)
