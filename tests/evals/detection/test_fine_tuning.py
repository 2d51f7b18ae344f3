"""Oracles: learning rates by hand, squares of two colours."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from detection_settings import SMALL
from PIL import Image

from previts.evals.detection import fine_tuning
from previts.evals.run import evaluate
from previts.models.moco import MoCo


def test_the_learning_rate_warms_up_and_drops():
    voc = fine_tuning.Schedule(24_000, (3 / 4, 11 / 12), 100, (480, 800), masks=False)
    rates = [voc.factor(step) for step in (0, 50, 100, 17_999, 18_000, 21_999, 22_000, 23_999)]
    assert rates == pytest.approx([0.001, 0.5005, 1, 1, 0.1, 0.1, 0.01, 0.01])
    for steps, drops in ((90_000, (60_000, 80_000)), (180_000, (120_000, 160_000))):
        coco = fine_tuning.Schedule(steps, (2 / 3, 8 / 9), 1000, (640, 800), masks=True)
        rates = [coco.factor(step) for drop in drops for step in (drop - 1, drop)]
        assert rates == pytest.approx([1, 0.1, 0.1, 0.01])
    assert fine_tuning.Schedule(30, (3 / 4, 11 / 12), 100, (64, 96), masks=False).factor(3) == 1


def write_squares(root: Path, count: int) -> None:
    """VOC with a red or a green square before noise."""
    base = root / "voc" / "VOCdevkit" / "VOC2007"
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (base / folder).mkdir(parents=True)
    for split, first in (("trainval", 0), ("test", 500)):
        names = [f"{first + n:06d}" for n in range(count)]
        for n, name in enumerate(names):
            generator = np.random.default_rng(first + n)
            pixels = generator.integers(90, 130, (96, 96, 3), dtype=np.uint8)
            side = int(generator.integers(36, 60))
            x, y = (int(value) for value in generator.integers(0, 96 - side, 2))
            pixels[y : y + side, x : x + side] = (220, 20, 20) if n % 2 else (20, 220, 20)
            Image.fromarray(pixels).save(base / "JPEGImages" / f"{name}.jpg", quality=95)
            (base / "Annotations" / f"{name}.xml").write_text(
                f"<annotation><size><width>96</width><height>96</height><depth>3</depth></size><object>"
                f"<name>{'red' if n % 2 else 'green'}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin>"
                f"<ymin>{y + 1}</ymin><xmax>{x + side}</xmax><ymax>{y + side}</ymax></bndbox></object></annotation>"
            )
        (base / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
        for label in ("green", "red"):
            (base / "ImageSets" / "Main" / f"{label}_{split}.txt").write_text("\n".join(f"{name} 1" for name in names))


@pytest.mark.slow
def test_squares_are_found_after_some_training(model: MoCo, tmp_path: Path):
    write_squares(tmp_path, 16)
    config = replace(
        SMALL, limit=0, detection=replace(SMALL.detection, lr=0.02, batch_size=4, voc_steps=50, voc_sides=(64, 64))
    )
    assert evaluate("voc_det", model, str(tmp_path), config).metrics["voc_det/ap50"] > 30


TOGETHER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
from previts.evals.run import evaluate
from previts.processes import distributed
from colour_images import image_model
from detection_settings import SMALL

with distributed.process_group():
    config = replace(SMALL, limit=5, detection=replace(SMALL.detection, voc_steps=2, voc_sides=(64, 64)))
    print(json.dumps(evaluate("voc_det", image_model(groups=2), sys.argv[2], config, folder=sys.argv[3]).metrics))
"""


@pytest.mark.slow
def test_two_processes_share_training_and_test(world: Path, tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, str(Path(__file__).parents[2] / "support"), str(world), str(tmp_path)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    numbers = [json.loads(text.splitlines()[-1]) for text in outputs]
    # Each process returns the numbers of all images. Only one writes states.
    assert numbers[0] == numbers[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state-00000002.pt", "state-00000002.pt.sha256"]
