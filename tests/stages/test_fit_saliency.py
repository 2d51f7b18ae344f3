"""The verb `fit_saliency` where nothing is trained. Oracle: the settings that decide a model, written down by hand."""

import pytest

from previts import stages
from previts.errors import InputError
from previts.storage import folders


@pytest.fixture
def videos(tmp_path):
    uri = folders.address(str(tmp_path), "videos", "crawl", {})
    folders.commit(uri, {})
    return uri


@pytest.mark.parametrize("method", ["rbd", "mc", "dsr", "hs", "none"])
def test_a_model_without_training_records_its_method_and_uses_no_labels(method, videos, tmp_path):
    model = stages.fit_saliency(videos, str(tmp_path), "paper", [f"saliency.method={method}"])
    manifest = folders.read_manifest(model)
    assert manifest.info == {"method": method, "labels": "none: nothing is learned"}
    assert manifest.inputs == {"videos": videos}


def test_training_settings_do_not_decide_a_model_without_training(videos, tmp_path):
    models = {
        stages.fit_saliency(videos, str(tmp_path), "paper", ["saliency.method=rbd", *more])
        for more in ([], ["fit.frames=12"], ["saliency.every=5"])
    }
    assert len(models) == 1


def test_a_supervised_model_needs_weights(videos, tmp_path):
    with pytest.raises(InputError, match=r"saliency\.method=supervised needs fit\.weights"):
        stages.fit_saliency(videos, str(tmp_path), "paper", ["saliency.method=supervised"])
