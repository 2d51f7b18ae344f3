"""Labelled videos of the demo world, in the official layouts of DAVIS, UCF-101, JHMDB and mini-Kinetics.

The paper evaluates on these datasets in sections 4.2, 4.4 and 4.6. The videos are drawn; the folders and file formats
are official. Nothing here trains or evaluates.
"""

import io
import re

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from previts.demo.cast.casting import Shot, compose, family_for, generator, kind_of
from previts.demo.cast.kinds import CLASSES
from previts.demo.cast.motion import ACTIONS, Action
from previts.demo.config import WorldConfig
from previts.demo.files import write_avi, write_jpeg, write_mask, write_mp4, write_png, write_text
from previts.demo.scene import Frame, Mask, render
from previts.media import masks as mask_tools
from previts.storage import files

# Names of the actions in the style of the benchmarks.
NAMES: dict[Action, str] = {
    "walk": "WalkAbout",
    "bounce": "BounceBall",
    "spin": "SpinRound",
    "swing": "SwingOnRope",
    "pulse": "PulseInOut",
    "hop": "HopAlong",
    "zigzag": "ZigzagRun",
    "slide": "SlideAcross",
}
_SIZE, _FPS = (160, 120), 25.0
_SPLITS = (1, 2, 3)
_MAT_TEXT = 116  # bytes of free text at the start of a MATLAB 5 file


def _film(config: WorldConfig, name: str, shot: Shot, frames: int, fps: float) -> list[Frame]:
    scene = compose(config.seed, name, shot)
    return [render(scene, number / fps) for number in range(frames)]


def write_davis(uri: str, config: WorldConfig) -> int:
    """Write `{JPEGImages,Annotations}/480p/<sequence>` and `ImageSets/480p/*.txt`; return the number of sequences."""
    lines = []
    names = list(CLASSES)
    for number in range(config.davis_sequences):
        c, action = number % len(names), ACTIONS[(3 * number) % len(ACTIONS)]
        rng = generator(config.seed, f"davis/{number}")
        shot = Shot(
            kind_of(rng, names[c]),
            family_for(rng, c, config.background_correlation),
            action,
            320,
            180,
            config.davis_frames / 12,
        )
        sequence = f"{shot.kind}-{action}" + (f"-{number}" if number >= len(names) else "")
        for place, frame in enumerate(_film(config, f"davis/{number}", shot, config.davis_frames, 12.0)):
            paths = (f"/JPEGImages/480p/{sequence}/{place:05d}.jpg", f"/Annotations/480p/{sequence}/{place:05d}.png")
            write_jpeg(files.join(uri, paths[0]), frame.image)
            write_mask(files.join(uri, paths[1]), frame.masks[0])
            lines.append(" ".join(paths))
    for name in ("val", "trainval"):
        write_text(files.join(uri, "ImageSets", "480p", f"{name}.txt"), lines)
    return config.davis_sequences


def _actions(config: WorldConfig) -> list[Action]:
    return list(NAMES)[: config.action_classes]


def _trains(number: int, split: int) -> bool:
    """Return whether a clip is in the training part of a split: a third of them is, unlike in the real sets.

    Fine-tuning takes most of the time of a benchmark, and the test clips decide how exact its number is.
    """
    return number % 3 == split - 1


def _action_film(config: WorldConfig, dataset: str, action: Action, number: int, frames: int) -> list[Frame]:
    """Return the frames of an object of any class; the background family depends on the action, not on the class."""
    rng = generator(config.seed, f"{dataset}/{action}/{number}")
    family = family_for(rng, ACTIONS.index(action), config.background_correlation)
    kind = kind_of(rng, list(CLASSES)[int(rng.integers(len(CLASSES)))])
    shot = Shot(kind, family, action, *_SIZE, max(2.0, frames / _FPS), clutter=bool(rng.random() < 0.15))
    # At double speed, a video of one or two seconds shows at least half a cycle of the action.
    return _film(config, f"{dataset}/{action}/{number}", shot, frames, _FPS / 2)


def write_ucf101(uri: str, config: WorldConfig) -> int:
    """Write `UCF-101/<Class>/v_<Class>_gXX_cXX.avi` and `ucfTrainTestlist` (3 splits); return the number of videos."""
    actions = sorted(_actions(config), key=lambda action: NAMES[action])
    jobs = [(action, number) for action in actions for number in range(config.ucf_clips)]
    for action, number in jobs:
        frames = _action_film(config, "ucf101", action, number, config.ucf_frames)
        write_avi(files.join(uri, "UCF-101", _ucf_path(action, number)), [frame.image for frame in frames], _FPS)
    lists = files.join(uri, "ucfTrainTestlist")
    numbered = [f"{number} {NAMES[action]}" for number, action in enumerate(actions, 1)]
    write_text(files.join(lists, "classInd.txt"), numbered)
    for split in _SPLITS:
        train = [f"{_ucf_path(action, n)} {actions.index(action) + 1}" for action, n in jobs if _trains(n, split)]
        test = [_ucf_path(action, n) for action, n in jobs if not _trains(n, split)]
        write_text(files.join(lists, f"trainlist{split:02d}.txt"), train)
        write_text(files.join(lists, f"testlist{split:02d}.txt"), test)
    return len(jobs)


def _ucf_path(action: Action, number: int) -> str:
    return f"{NAMES[action]}/v_{NAMES[action]}_g{number + 1:02d}_c01.avi"


def write_jhmdb(uri: str, config: WorldConfig) -> int:
    """Write `Rename_Images`, `puppet_mask` and `splits` of JHMDB; return the number of videos."""
    actions = _actions(config)
    jobs = [(action, number) for action in actions for number in range(config.jhmdb_clips)]
    for action, number in jobs:
        clip = f"demo_{action}_f_nm_np1_{number}"
        frames = _action_film(config, "jhmdb", action, number, config.jhmdb_frames)
        for place, frame in enumerate(frames, 1):
            write_png(files.join(uri, "Rename_Images", action, clip, f"{place:05d}.png"), frame.image)
        masks: list[Mask] = [frame.masks[0] for frame in frames]
        files.write_bytes(files.join(uri, "puppet_mask", action, clip, "puppet_mask.mat"), _mat(np.stack(masks, 2)))
    for action in actions:
        for split in _SPLITS:
            # 1: training, 2: testing.
            clips = range(config.jhmdb_clips)
            lines = [f"demo_{action}_f_nm_np1_{n}.avi {1 if _trains(n, split) else 2}" for n in clips]
            write_text(files.join(uri, "splits", f"{action}_test_split{split}.txt"), lines)
    return len(jobs)


def write_minikinetics(uri: str, config: WorldConfig) -> int:
    """Write `videos/<class>/<id>.mp4`, `boxes/<class>/<id>.csv` and `{train,val}.csv`; return the number of videos.

    The box of the object replaces the box of a detected person; `evals/backgrounds/minikinetics.py` defines box files.
    """
    counts = {"train": config.minikinetics_train, "val": config.minikinetics_val}
    jobs = [(split, action, n) for split, count in counts.items() for action in _actions(config) for n in range(count)]
    lists = {split: ["label,youtube_id,time_start,time_end,split"] for split in counts}
    seconds = config.minikinetics_frames / _FPS
    for split, action, number in jobs:
        # Kinetics writes class names in lower case, with spaces.
        label, clip = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", NAMES[action]).lower(), f"{split}_{action}_{number:04d}"
        frames = _action_film(config, f"minikinetics/{split}", action, number, config.minikinetics_frames)
        write_mp4(files.join(uri, "videos", label, f"{clip}.mp4"), (frame.image for frame in frames), _FPS)
        boxes = ((place, mask_tools.box(frame.masks[0])) for place, frame in enumerate(frames))
        rows = [f"{place},{','.join(f'{side:g}' for side in box)}" for place, box in boxes if box is not None]
        write_text(files.join(uri, "boxes", label, f"{clip}.csv"), ["frame,x0,y0,x1,y1", *rows])
        lists[split].append(f"{label},{clip},0,{seconds:g},{split}")
    for split, lines in lists.items():
        write_text(files.join(uri, f"{split}.csv"), lines)
    return len(jobs)


def _mat(masks: NDArray[np.bool_]) -> bytes:
    """Return a MATLAB file of the masks HWT; its header has no date, so that equal masks give equal bytes."""
    buffer = io.BytesIO()
    savemat(buffer, {"part_mask": masks.astype(np.uint8)}, do_compression=True)
    return b"MATLAB 5.0 MAT-file, previts demo world".ljust(_MAT_TEXT) + buffer.getvalue()[_MAT_TEXT:]
