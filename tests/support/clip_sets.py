"""Small labelled sets of videos in the layouts of UCF-101 and HMDB-51, whose class is a colour or a motion."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from previts.config.evaluation import ActionsConfig, EvaluationConfig
from previts.config.experiment import Experiment, ModelConfig, ObjectiveConfig, OptimConfig, SamplingConfig
from previts.demo.files import write_avi
from previts.evals.actions.video_sets import LabelledClips, Pixels
from previts.media.video_reader import Footage, steady
from previts.models.moco import MoCo

WIDTH, HEIGHT = 64, 48
COLOURS = {"Blue": (40, 60, 210), "Green": (40, 200, 60), "Red": (210, 50, 40)}


def coloured(colour: tuple[int, int, int], frames: int, seed: int) -> list[Pixels]:
    """Return frames of one colour with coarse noise that changes from frame to frame."""
    generator = np.random.default_rng(seed)
    noise = generator.integers(-40, 40, (frames, HEIGHT // 8, WIDTH // 8, 3)).repeat(8, 1).repeat(8, 2)
    return list(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


def numbered(frames: int) -> list[Pixels]:
    """Return frames that encode their number in six bands from top to bottom, white for 1."""
    bits = (np.arange(frames)[:, None] >> np.arange(6)) & 1
    rows = (230 * bits + 12).repeat(HEIGHT // 6, axis=1)
    return list(np.broadcast_to(rows[:, :, None, None], (frames, HEIGHT, WIDTH, 3)).astype(np.uint8))


def write_ucf101(root: Path, videos: int = 4, frames: int = 20) -> Path:
    """Write UCF-101 with a class for each colour; the last video of each class is for the test, in all splits."""
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("".join(f"{n} {name}\n" for n, name in enumerate(COLOURS, start=1)))
    train, test = [], []
    for number, (name, colour) in enumerate(COLOURS.items(), start=1):
        for video in range(videos):
            path = f"{name}/v_{name}_g{video + 1:02d}_c01.avi"
            write_avi(str(root / "UCF-101" / path), coloured(colour, frames, 100 * number + video), 25.0)
            (test if video == videos - 1 else train).append(path if video == videos - 1 else f"{path} {number}")
    for split in (1, 2, 3):
        (lists / f"trainlist{split:02d}.txt").write_text("\n".join(train) + "\n")
        (lists / f"testlist{split:02d}.txt").write_text("\r\n".join(test) + "\r\n")
    return root


def write_hmdb51(root: Path, folder: str = "videos", frames: int = 20) -> Path:
    """Write HMDB-51 with a class for each colour: two training videos, one test video, one in neither part."""
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    for number, (name, colour) in enumerate(COLOURS.items()):
        name = name.lower()
        names = [f"#{video}_(a)[b]_{name}_u_nm_np1_fr_goo_{video}.avi" for video in range(4)]
        for video, file in enumerate(names):
            write_avi(str(root / folder / name / file), coloured(colour, frames, 100 * number + video), 30.0)
        for split in (1, 2, 3):
            marks = [(video + split) % 4 for video in range(4)]
            marked = {0: 0, 1: 1, 2: 1, 3: 2}
            lines = [f"{file} {marked[mark]} \n" for file, mark in zip(names, marks, strict=True)]
            (lists / f"{name}_test_split{split}.txt").write_text("".join(lines))
    return root


def planted(kind: str, count: int, seed: int, frames: int = 12) -> LabelledClips:
    """Return videos in memory whose class is their "colour" (three classes) or their "motion" (up or down)."""
    classes = tuple(COLOURS) if kind == "colour" else ("Down", "Up")
    labels = tuple(number % len(classes) for number in range(count))

    def open_planted(uri: str) -> Footage:
        number = int(uri)
        if kind == "colour":
            frames_THWC = np.stack(coloured(list(COLOURS.values())[labels[number]], frames, 1000 * seed + number))
        else:
            frames_THWC = moving(4 if labels[number] else -4, frames, 1000 * seed + number)
        return steady(frames, 25.0, lambda numbers: frames_THWC[list(numbers)])

    return LabelledClips(classes, tuple(map(str, range(count))), labels, open_planted)


def moving(step: int, frames: int, seed: int) -> Pixels:
    """Return frames of a grey texture that moves up by `step` pixels per frame and wraps around."""
    texture = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 1)).repeat(8, 0).repeat(8, 1)
    return np.stack([np.roll(texture, -step * number, 0) for number in range(frames)]).repeat(3, 3).astype(np.uint8)


def small_model(seed: int = 0) -> MoCo:
    """Return an untrained video model with few channels."""
    torch.manual_seed(seed)
    experiment = Experiment(
        model=ModelConfig(encoder="s3dg", width=0.08, embedding_dim=16, bn_momentum=0.2),
        sampling=SamplingConfig(clip_frames=8),
        objective=ObjectiveConfig(queue_size=16, batch_norm_groups=2),
        optim=OptimConfig(batch_size=8),
    )
    return MoCo(experiment).eval()


def small_settings(**changes: Any) -> EvaluationConfig:
    """Return settings with which a classifier is fine-tuned in seconds."""
    settings = ActionsConfig(epochs=2, lr=0.05, batch_size=8, frames=8, size=64, test_clips=2)
    return EvaluationConfig(actions=replace(settings, **changes))
