"""The leakage guard of `index`. Oracle: which videos of a crawl were made from test items, and which were not."""

import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from small_verbs import SMALL, snapshot
from source_videos import write_source

from previts import cli, stages, withdraw
from previts.corpus import index_table
from previts.demo.files import write_avi, write_jpeg
from previts.errors import InputError
from previts.storage import folders

FPS, FRAMES = 8, 16
CLASSES = ("Run", "Swim")


def scene(seed: int, count: int = FRAMES) -> list[np.ndarray]:
    """Return frames (96, 128, 3) of smooth textures that drift, others for each seed."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:96, :128]
    waves = [
        (random.uniform(20, 40), *random.uniform(-0.25, 0.25, 2), random.uniform(-0.3, 0.3), random.uniform(0, 6))
        for _ in range(12)
    ]
    frames = []
    for number in range(count):
        level = 127 + sum(a * np.sin(y * rows + x * columns + speed * number + at) for a, y, x, speed, at in waves)
        frames.append(np.repeat(np.clip(level, 0, 255).astype(np.uint8)[..., None], 3, axis=2))
    return frames


class Made(NamedTuple):
    videos: str
    tubes: str
    data: Path


def write_ucf101(folder: Path) -> None:
    """Write UCF-101; split 1 tests with scenes 10 and 11 and trains on 20 and 21, split 2 and 3 the other way."""
    lists = folder / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("".join(f"{n} {name}\n" for n, name in enumerate(CLASSES, start=1)))
    for split in (1, 2, 3):
        parts: dict[str, list[str]] = {"train": [], "test": []}
        for number, name in enumerate(CLASSES):
            for group in (1, 2):
                path = f"{name}/v_{name}_g{group:02d}_c01.avi"
                write_avi(str(folder / "UCF-101" / path), scene(10 * group + number), 25.0)
                is_test = (group == 1) == (split == 1)
                parts["test" if is_test else "train"].append(path if is_test else f"{path} {number + 1}")
        for part, lines in parts.items():
            (lists / f"{part}list{split:02d}.txt").write_text("\n".join(lines) + "\n")


def write_imagenet(folder: Path) -> None:
    """Write ImageNet: scenes 30 and 31 in val, scenes 40 and 41 in train."""
    for split, first in (("val", 30), ("train", 40)):
        for number in (0, 1):
            write_jpeg(str(folder / split / "n01" / f"{split}_{number}.jpg"), scene(first + number)[0])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A crawl of videos of test items, of training items, and of neither; and the labelled sets."""
    folder = tmp_path_factory.mktemp("leaks")
    (folder / "crawl").mkdir()
    small = [frame[::2, ::2] for frame in scene(10, 2 * FRAMES)]  # the test clip goes on in it
    videos = {
        "of_test": (small, {"crf": "35"}),
        "of_training": (scene(20), {}),
        "of_neither": (scene(50), {}),
        "with_image": ([*scene(51)[:6], *[scene(30)[0]] * 6, *scene(51)[6:]], {"crf": "32"}),
        "with_training_image": ([*scene(52)[:6], *[scene(40)[0]] * 6, *scene(52)[6:]], {"crf": "32"}),
    }
    for name, (frames, options) in videos.items():
        write_source(str(folder / "crawl" / f"{name}.mp4"), frames, fps=25 if name.startswith("of_t") else 8,
                     options=options)  # fmt: skip
    write_ucf101(folder / "data" / "ucf101")
    write_imagenet(folder / "data" / "imagenet")
    root = str(folder / "root")
    stored = stages.download(str(folder / "crawl"), root, "demo", SMALL)
    model = stages.fit_saliency(stored, root, "demo", SMALL)
    regions = stages.saliency(stored, model, root, "demo", SMALL)
    return Made(stored, stages.track(stored, regions, root, "demo", SMALL), folder / "data")


def index(made: Made, root: Path, *settings: str, data: Path | None = None) -> str:
    where = "" if data is None else str(data)
    return stages.index(made.videos, made.tubes, str(root), "demo", [*SMALL, *settings], data=where)


def leaks(uri: str) -> dict[str, str]:
    return {video.video_id: video.detail for video in index_table.read_quality(uri) if video.reason == "leak"}


def counts(uri: str) -> dict[str, float]:
    return {name: value for name, value in folders.read_manifest(uri).counts.items() if "leak" in name}


def test_videos_that_show_test_items_are_left_out(made, tmp_path):
    uri = index(made, tmp_path, data=made.data)
    assert leaks(uri) == {"of_test": "shows ucf101/v_Run_g01_c01", "with_image": "shows imagenet/val_0"}
    kept = {row.video_id for row in index_table.read_index(uri)}
    assert kept == {"of_training", "of_neither", "with_training_image"}
    assert counts(uri) == {"filtered_leak": 2, "leak_sets": 2, "leak_items": 4, "leak_unreadable": 0}
    known = folders.read_manifest(uri).info["leak_sets"]
    assert {name: (found["items"], found["causes"]) for name, found in known.items()} == {
        "ucf101": (2, {}), "imagenet": (2, {}),
    }  # fmt: skip


def test_the_test_items_are_those_of_the_splits_that_are_evaluated(made, tmp_path):
    uri = index(made, tmp_path, "evaluation.actions.split=all", data=made.data)
    assert sorted(leaks(uri)) == ["of_test", "of_training", "with_image"]
    uri = index(made, tmp_path, "evaluation.actions.split=2", data=made.data)
    assert sorted(leaks(uri)) == ["of_training", "with_image"]


@pytest.mark.parametrize("how", ["off", "no data"])
def test_without_the_guard_all_videos_are_kept(made, tmp_path, how):
    uri = index(made, tmp_path, "filter.leakage=off", data=made.data) if how == "off" else index(made, tmp_path)
    assert leaks(uri) == {}
    assert len(index_table.read_index(uri)) == 5
    assert counts(uri) == {"filtered_leak": 0, "leak_sets": 0, "leak_items": 0, "leak_unreadable": 0}
    assert not (tmp_path / "leaks").exists()


def test_the_index_depends_on_the_leaks_alone(made, tmp_path):
    without = index(made, tmp_path)
    assert index(made, tmp_path, "filter.leakage=off", data=made.data) == without
    data = tmp_path / "data"
    shutil.copytree(made.data / "ucf101", data / "ucf101")
    with_ucf101 = index(made, tmp_path, data=data)
    assert with_ucf101 != without
    write_jpeg(str(data / "imagenet" / "val" / "n01" / "other.jpg"), scene(60)[0])
    assert index(made, tmp_path, data=data) == with_ucf101
    assert counts(with_ucf101) == {"filtered_leak": 1, "leak_sets": 2, "leak_items": 3, "leak_unreadable": 0}
    shutil.copytree(made.data / "imagenet", data / "imagenet", dirs_exist_ok=True)
    assert index(made, tmp_path, data=data) not in (with_ucf101, without)
    # Nothing of a set without leaks: the index without any set now knows that it was compared.
    shutil.rmtree(data / "ucf101")
    shutil.rmtree(data / "imagenet" / "val" / "n01")
    write_jpeg(str(data / "imagenet" / "val" / "n01" / "other.jpg"), scene(60)[0])
    assert index(made, tmp_path, data=data) == without
    assert counts(without) == {"filtered_leak": 0, "leak_sets": 1, "leak_items": 1, "leak_unreadable": 0}
    assert len(index_table.read_index(without)) == 5


def test_a_table_that_was_changed_is_not_accepted_by_a_later_comparison(made, tmp_path):
    uri = index(made, tmp_path)
    table = Path(uri) / "quality.parquet"
    table.write_bytes((Path(uri) / "index.parquet").read_bytes())
    write_jpeg(str(tmp_path / "data" / "imagenet" / "val" / "n01" / "other.jpg"), scene(60)[0])
    with pytest.raises(InputError, match=r"quality\.parquet was changed after manifest\.json was written"):
        index(made, tmp_path, data=tmp_path / "data")


def test_a_second_call_writes_nothing(made, tmp_path):
    uri = index(made, tmp_path, data=made.data)
    before = snapshot(str(tmp_path))
    assert index(made, tmp_path, data=made.data) == uri
    assert snapshot(str(tmp_path)) == before


def test_items_that_cannot_be_read_are_named_and_stop_nothing(made, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(made.data, data)
    (data / "ucf101" / "UCF-101" / "Swim" / "v_Swim_g01_c01.avi").write_bytes(b"no video")
    (data / "imagenet" / "val" / "n01" / "val_1.jpg").write_bytes(b"no image")
    write_jpeg(str(data / "imagenet" / "val" / "n01" / "white.jpg"), np.full((96, 128, 3), 255, np.uint8))
    (data / "voc" / "VOCdevkit").mkdir(parents=True)
    (data / "voc" / "readme.txt").write_text("no dataset")
    (data / "coco" / "annotations").mkdir(parents=True)
    (data / "coco" / "annotations" / "instances_val2017.json").write_text("no JSON")
    (data / "davis").mkdir()  # empty
    uri = index(made, tmp_path, data=data)
    assert sorted(leaks(uri)) == ["of_test", "with_image"]
    assert counts(uri) == {"filtered_leak": 2, "leak_sets": 2, "leak_items": 2, "leak_unreadable": 3}
    causes = {name: found["causes"] for name, found in folders.read_manifest(uri).info["leak_sets"].items()}
    assert {name: sorted(found) for name, found in causes.items()} == {
        "voc": [""], "imagenet": ["val_1", "white"], "coco": [""], "ucf101": ["v_Swim_g01_c01"],
    }  # fmt: skip
    assert "cannot be read as an image" in causes["imagenet"]["val_1"]
    assert "uniform" in causes["imagenet"]["white"]


def test_a_folder_without_labelled_sets_is_refused(made, tmp_path):
    (tmp_path / "data" / "ucf").mkdir(parents=True)
    with pytest.raises(InputError, match="has none of the labelled sets voc, imagenet, "):
        index(made, tmp_path, data=tmp_path / "data")
    assert not list(tmp_path.glob("index/*"))


def test_a_killed_run_keeps_the_sets_that_are_finished(made, tmp_path):
    data, root = tmp_path / "data", tmp_path / "root"
    shutil.copytree(made.data, data)
    for number in range(400):  # the sets are hashed in the order voc, imagenet, ..., ucf101
        shutil.copy(
            made.data / "imagenet" / "val" / "n01" / "val_1.jpg", data / "imagenet" / "val" / f"n01/{number}.jpg"
        )
    for path in (data / "ucf101" / "UCF-101").glob("*/*01_c01.avi"):
        write_avi(str(path), scene(70, 16) * 60, 25.0)  # takes a while
    command = [sys.executable, "-m", "previts", "index", "--videos", made.videos, "--tubes", made.tubes]
    command += ["--root", str(root), "--profile", "demo", "--set", *SMALL, "--data", str(data)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(root.glob("held_out/imagenet-*/manifest.json")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (kept,) = root.glob("held_out/imagenet-*/manifest.json")
    assert not list(root.glob("held_out/ucf101-*/manifest.json"))
    before = kept.stat().st_mtime_ns
    uri = index(made, root, data=data)
    assert kept.stat().st_mtime_ns == before
    assert counts(uri)["leak_items"] == 404


def test_a_finished_index_with_data_imports_no_heavy_package(made, tmp_path):
    index(made, tmp_path, data=made.data)
    program = (
        "import sys; from previts import stages; "
        f"stages.index({made.videos!r}, {made.tubes!r}, {str(tmp_path)!r}, 'demo', {SMALL!r}, {str(made.data)!r});"
        "print([name for name in ('torch', 'pyarrow', 'cv2', 'sklearn', 'scipy', 'av', 'PIL') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("[]")


def test_the_command_after_a_withdrawal_compares_with_the_same_sets(made: Made, tmp_path: Path, capsys):
    root = tmp_path / "root"
    shutil.copytree(Path(made.videos).parents[1], root)
    at = [str(root / Path(uri).relative_to(Path(made.videos).parents[1])) for uri in made[:2]]
    before = index(Made(*at, made.data), root, data=made.data)
    (kept, *_), known = kept_and_reasons(before)
    said = withdraw.withdraw([kept], str(root), "request 7")
    command = next(line.strip() for line in said.splitlines() if line.startswith("  previts index"))
    cli.main([*shlex.split(command)[1:], "--profile", "demo"])
    ids, reasons = kept_and_reasons(capsys.readouterr().out.strip())
    assert kept not in ids
    assert {name for name, reason in reasons.items() if reason == "leak"} == {
        name for name, reason in known.items() if reason == "leak"
    }


def kept_and_reasons(uri: str) -> tuple[list[str], dict[str, str]]:
    ids = [row.video_id for row in index_table.read_index(uri)]
    return ids, {row.video_id: row.reason for row in index_table.read_quality(uri)}
