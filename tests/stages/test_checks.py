"""Oracle: choices that are known to be valid or invalid; each message names what to change."""

from typing import Any

import pytest

from previts.config import paper
from previts.errors import InputError
from previts.stages import addresses, checks
from previts.storage import folders


def plan(row: str | None, *assignments: str) -> Any:
    return paper.resolve(row, "paper", assignments)


@pytest.mark.parametrize(
    ("launcher", "processes", "job", "message"),
    [
        ("moon", 1, [], "there is no launcher 'moon'; allowed: local, pytorchjob"),
        ("local", 0, [], "processes must be 1 or more, got 0"),
        ("local", 1, ["spot=true"], r"job settings \(spot=true\) are for --launcher pytorchjob, not for local"),
        ("pytorchjob", 1, ["spott=true"], "did you mean 'spot'"),
    ],
)
def test_an_invalid_launch_is_refused(launcher, processes, job, message):
    with pytest.raises(InputError, match=message):
        checks.check_launch(launcher, processes, job)


def test_a_valid_launch_is_accepted():
    checks.check_launch("local", 8)
    checks.check_launch("pytorchjob", 16, ["spot=true", "image=x"])


def test_a_benchmark_must_accept_the_model_of_the_row():
    checks.check_fit("1/vgg/moco", plan("1/vgg/moco"), ["voc07", "davis"])
    checks.check_fit("2/vgg/rspnet", plan("2/vgg/rspnet"), ["ucf101", "davis"])
    with pytest.raises(InputError, match=r"has the image model, which ucf101, jhmdb cannot evaluate; .*: voc07, in1k"):
        checks.check_fit("1/vgg/moco", plan("1/vgg/moco"), ["ucf101", "davis", "jhmdb"])
    with pytest.raises(InputError, match=r"has the video model, which voc07 cannot evaluate; .*: davis, ucf101"):
        checks.check_fit("2/vgg/rspnet", plan("2/vgg/rspnet"), ["voc07"])


@pytest.mark.parametrize("row", ["1/supervised", "2/weights"])
def test_a_row_of_given_weights_needs_weights(row):
    with pytest.raises(InputError, match=f"--set {row}:model.weights=URI"):
        checks.check_start(row, plan(row))
    checks.check_start(row, plan(row, "model.weights=a.pt"))


def test_missing_weights_are_refused(tmp_path):
    checks.check_weights(plan("1/supervised"))
    with pytest.raises(InputError, match=r"model\.weights: .*gone\.pt"):
        checks.check_weights(plan("1/supervised", f"model.weights={tmp_path}/gone.pt"))


def test_a_saliency_model_is_used_with_its_own_method_only(tmp_path):
    model = folders.address(str(tmp_path), "saliency_model", "rbd", {})
    folders.commit(model, {}, info={"method": "rbd"})
    checks.check_method("rbd", model)
    with pytest.raises(InputError, match=r"for saliency\.method=rbd, but here saliency\.method=mc; use the same"):
        checks.check_method("mc", model)


def test_the_row_of_tracking_without_labels_refuses_a_detector():
    labels = "saliency.method=supervised"
    for row, *settings in (["6d/unsupervised"], ["6d/supervised"], ["6d/none", labels], ["1/vgg/previts", labels]):
        checks.check_perception(row, plan(row, *settings))
    for row in ("6d/unsupervised", "6d-video/unsupervised"):
        with pytest.raises(InputError, match=f"{row} tracks without labels"):
            checks.check_perception(row, plan(row, labels))


def test_the_weights_that_a_row_lacks_are_named():
    found = {row: checks.missing_weights(row, plan(row)) for row in paper.ROWS}
    assert {row: name for row, name in found.items() if name} == {
        "1/supervised": "model.weights",
        "2/weights": "model.weights",
        "6d/supervised": "fit.weights",
        "6d-video/supervised": "fit.weights",
    }
    assert checks.missing_weights("6d/supervised", plan("6d/supervised", "fit.weights=x.pt")) == ""
    assert checks.missing_weights("6d/none", plan("6d/none", "saliency.method=supervised")) == ""


def index_of(root: str, method: str) -> str:
    """Commit the manifests of an index whose tubes follow the saliency of a method."""
    decided = {"saliency": {"method": method}}
    saliency = folders.address(root, "saliency", method, decided)
    tubes, index = (folders.address(root, stage, method, {}) for stage in ("tubes", "index"))
    folders.commit(saliency, decided)
    folders.commit(tubes, {}, inputs={"saliency": saliency})
    folders.commit(index, {}, inputs={"tubes": tubes})
    return index


def test_supervised_tubes_are_refused_by_other_rows_and_the_reverse(tmp_path):
    unsupervised, supervised = index_of(str(tmp_path), "rbd"), index_of(str(tmp_path), "supervised")
    checks.check_lineage("1/vgg/previts", plan("1/vgg/previts"), unsupervised)
    checks.check_lineage("6d/supervised", plan("6d/supervised"), supervised)
    checks.check_lineage("1/vgg/moco", plan("1/vgg/moco"), supervised)  # plain MoCo reads no tube
    with pytest.raises(InputError, match=r"needs tubes of saliency\.method=deepusps, but .* has tubes of supervised"):
        checks.check_lineage("1/vgg/previts", plan("1/vgg/previts"), supervised)
    with pytest.raises(InputError, match=r"needs tubes of saliency\.method=supervised, but .* has tubes of rbd"):
        checks.check_lineage("6d/supervised", plan("6d/supervised"), unsupervised)


def test_an_index_whose_earlier_outputs_were_deleted_is_accepted(tmp_path):
    index = folders.address(str(tmp_path), "index", "corpus", {})
    folders.commit(index, {}, inputs={"tubes": str(tmp_path / "tubes" / "gone-000000000000")})
    checks.check_lineage("1/vgg/previts", plan("1/vgg/previts"), index)


def test_a_checkpoint_is_accepted_by_rows_with_its_experiment_only(tmp_path):
    index = folders.address(str(tmp_path), "index", "corpus", {})
    folders.commit(index, {})
    trained = plan("1/vgg/previts")
    checkpoint = addresses.checkpoint_address(trained, index, str(tmp_path))
    decided = addresses.checkpoint_decided(trained, index)
    folders.commit(checkpoint, decided, info={"row": "1/vgg/previts", "profile": "paper"})
    checks.check_row("1/vgg/previts", trained, checkpoint)
    checks.check_row("6b/mu=0.3", plan("6b/mu=0.3"), checkpoint)
    checks.check_row("1/vgg/previts", plan("1/vgg/previts", "evaluation.limit=5"), checkpoint)
    with pytest.raises(InputError, match=r"not of row 6b/mu=0\.2 with these settings: sampling differ"):
        checks.check_row("6b/mu=0.2", plan("6b/mu=0.2"), checkpoint)
    with pytest.raises(InputError, match=r"of row 1/vgg/previts with profile paper, not of .*: optim, seed differ"):
        checks.check_row("1/vgg/previts", plan("1/vgg/previts", "seed=1", "optim.lr=0.1"), checkpoint)
