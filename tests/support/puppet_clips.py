"""A small JHMDB whose classes are shown only by the colour of the person, or only by that of the background."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from previts.config.experiment import Experiment, ModelConfig, ObjectiveConfig, OptimConfig, SamplingConfig
from previts.evals.actions import classifier
from previts.evals.backgrounds.jhmdb import PuppetClip, PuppetClips, read_frames, read_masks
from previts.models.moco import MoCo
from previts.storage import files

WIDTH, HEIGHT = 72, 64
COLOURS = {"catch": (215, 45, 40), "jump": (40, 200, 50), "wave": (40, 60, 220)}
GREY = (128, 128, 128)


def scene(number: int, frames: int, inside: tuple[int, int, int], around: tuple[int, int, int], side: int = 26):
    """Return frames THWC and masks THW of a square of one noisy colour that moves on a background of another."""
    generator = np.random.default_rng(number)
    x, y = generator.integers(2, (WIDTH - side - frames, HEIGHT - side - frames))
    masks = np.zeros((frames, HEIGHT, WIDTH), bool)
    for t in range(frames):
        masks[t, y + t // 2 : y + t // 2 + side, x + t : x + t + side] = True
    noise = generator.integers(-30, 31, (frames, HEIGHT // 8, WIDTH // 8, 1)).repeat(8, 1).repeat(8, 2)
    pixels = np.where(masks[..., None], np.array(inside), np.array(around)) + noise
    return np.clip(pixels, 1, 255).astype(np.uint8), masks


def write_clip(root: Path, class_name: str, name: str, frames_THWC: np.ndarray, masks_THW: np.ndarray) -> None:
    folder = root / "Rename_Images" / class_name / name
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames_THWC, start=1):
        Image.fromarray(frame).save(folder / f"{number:05d}.png", compress_level=1)
    place = root / "puppet_mask" / class_name / name
    place.mkdir(parents=True)
    savemat(place / "puppet_mask.mat", {"part_mask": masks_THW.transpose(1, 2, 0).astype(np.uint8)})


def write_jhmdb(root: Path, shown_by: str = "background", train: int = 4, test: int = 3, frames: int = 10) -> Path:
    """Write clips of `frames` frames, every other one shorter, in three equal splits."""
    (root / "splits").mkdir(parents=True)
    for c, (class_name, colour) in enumerate(COLOURS.items()):
        lines = []
        for n in range(train + test):
            inside, around = (colour, GREY) if shown_by == "person" else (GREY, colour)
            name = f"clip_{class_name}_f_nm_{n}"
            write_clip(root, class_name, name, *scene(100 * c + n, frames - 3 * (n % 2), inside, around))
            lines.append(f"{name}.avi {1 if n < train else 2} \n")
        for split in (1, 2, 3):
            (root / "splits" / f"{class_name}_test_split{split}.txt").write_text("".join(lines))
    return root


def found(part: PuppetClips, class_name: str, number: int) -> PuppetClip:
    [clip] = [clip for clip in part.clips if clip.name == f"clip_{class_name}_f_nm_{number}"]
    return clip


def whole(clip: PuppetClip) -> tuple[np.ndarray, np.ndarray]:
    return read_frames(clip, range(len(clip.frames))), read_masks(clip)


def small_model() -> MoCo:
    """Return an untrained video model with few channels."""
    import torch

    torch.manual_seed(0)
    experiment = Experiment(
        model=ModelConfig(encoder="s3dg", width=0.16, embedding_dim=16, bn_momentum=0.2),
        sampling=SamplingConfig(clip_frames=8),
        objective=ObjectiveConfig(queue_size=16, batch_norm_groups=2),
        optim=OptimConfig(batch_size=8),
    )
    return MoCo(experiment).eval()


def write_classifier(path: Path, model: MoCo) -> str:
    """Write a classifier as ucf101 stores it, with other classes than those of JHMDB; it is untrained."""
    made = classifier.new_classifier(model, ("Archery", "Biking"), seed=5)
    files.write_bytes(str(path), classifier.classifier_bytes(made))
    return str(path)
