"""The names of the images, which the environment sets when the pipeline is compiled."""

import runpy
from pathlib import Path

from components import _images

SOURCE = str(Path(_images.__file__))


def test_an_image_is_named_by_its_digest_or_else_by_its_tag(monkeypatch):
    monkeypatch.setenv("PREVITS_REGISTRY", "host:5000/team")
    monkeypatch.setenv("PREVITS_TAG", "2.0")
    monkeypatch.setenv("PREVITS_DATA_DIGEST", "sha256:0123")
    for image in ("TRAIN", "LAUNCHER", "MLFLOW"):
        monkeypatch.delenv(f"PREVITS_{image}_DIGEST", raising=False)
    names = runpy.run_path(SOURCE)
    assert names["DATA_IMAGE"] == "host:5000/team/previts-data@sha256:0123"
    assert names["TRAIN_IMAGE"] == "host:5000/team/previts-train:2.0"
    assert len(set(names["IMAGES"])) == 4


def test_a_pretraining_step_that_starts_a_job_uses_the_small_image(monkeypatch):
    monkeypatch.setenv("PREVITS_LAUNCHER", "local")
    names = runpy.run_path(SOURCE)
    assert names["PRETRAIN_IMAGE"] == names["TRAIN_IMAGE"]
    monkeypatch.setenv("PREVITS_LAUNCHER", "pytorchjob")
    names = runpy.run_path(SOURCE)
    assert names["PRETRAIN_IMAGE"] == names["LAUNCHER_IMAGE"]
