"""The start of a verb as several processes, and the check of its output."""

import pytest

from previts.errors import InputError
from previts.launch.start import start
from previts.storage import folders


@pytest.mark.slow
def test_a_verb_runs_in_each_process_and_its_folder_must_be_finished(tmp_path, capfd):
    uri = str(tmp_path / "checkpoints" / "a")
    # `show` writes no folder.
    with pytest.raises(InputError, match="has no manifest"):
        start("show", uri, ["1/vgg/previts"], launcher="local", processes=2)
    folders.commit(uri, {})
    assert start("show", uri, ["1/vgg/previts"], launcher="local", processes=2) == uri


def test_a_job_must_fill_its_nodes(tmp_path):
    with pytest.raises(InputError, match="12 processes do not fill nodes of 8 evenly"):
        start("pretrain", str(tmp_path), [], launcher="pytorchjob", processes=12)


def test_a_job_needs_a_cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(InputError, match="found no Kubernetes cluster"):
        start("pretrain", str(tmp_path), [], launcher="pytorchjob", processes=16, job=["image=registry/train:1"])
