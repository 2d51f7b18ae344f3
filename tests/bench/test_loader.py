"""CPU cost of a pair of frames or clips on one core: ours compared with decord on long GOPs, in one interleaved run.

It also measures how long a training step waits for its batch. Run it by `make bench`, or alone with `-m bench -s`,
after `.venv/bin/pip install decord`. (No extra installs decord, because it has no wheel for every machine.)
`PREVITS_BENCH_VIDEOS`, `PREVITS_BENCH_PAIRS` and `PREVITS_BENCH_ROUNDS` set how much is measured,
`PREVITS_BENCH_WORKERS` how many loaders feed the synthetic training step. Results are also written to `loader.json` in
the folder `PREVITS_BENCH_OUT`.
"""

import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from loader_corpus import FRAMES, IMAGE, THREE_CLIPS, TWO_CLIPS, Corpus, write_corpus
from one_core import one_thread
from PIL import Image, ImageFilter
from torchvision import transforms
from torchvision.transforms import functional as pil

from previts.config.experiment import Experiment
from previts.models import pixels
from previts.pretraining import augment, clip_sampling, crop_sampling, dataset, loader
from previts.pretraining.schedule import Schedule

VIDEOS = int(os.environ.get("PREVITS_BENCH_VIDEOS", "12"))
PAIRS = int(os.environ.get("PREVITS_BENCH_PAIRS", "24"))  # of each variant and round
ROUNDS = int(os.environ.get("PREVITS_BENCH_ROUNDS", "3"))
WORKERS = int(os.environ.get("PREVITS_BENCH_WORKERS", "1"))
STEP_PAIRS = 8  # batch of the synthetic training step


@pytest.fixture(scope="module")
def corpus(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    pytest.importorskip(
        "decord", reason="decord, the reader to compare with, is not installed: .venv/bin/pip install decord"
    )
    return write_corpus(real_data / "crawl", VIDEOS, tmp_path_factory.mktemp("loader"))


def ours(corpus: Corpus, experiment: Experiment, *, augmented: bool) -> Callable[[int], None]:
    """Return a function that makes a batch of `PAIRS` pairs, with or without the colours of the training device."""
    pairs = dataset.PairDataset(corpus.index, experiment)
    schedule = Schedule(len(pairs), PAIRS, 1000, 0)

    def run(number: int) -> None:
        batch = next(loader.load_batches(pairs, schedule, number))
        assert not batch.damaged
        for side in (batch.query, batch.key, batch.other):
            if augmented and side is not None:
                augment.augment(side.clips, side.matrices, side.masks, side.draws)

    return run


def wanted_frames(corpus: Corpus, experiment: Experiment, number: int) -> tuple[int, list[list[int]]]:
    """Return the number of a video and the frames of its clips, drawn as ours are."""
    generator = np.random.default_rng([number, 11])
    chosen = int(generator.integers(len(corpus.files)))
    task = experiment.objective.speed_weight > 0
    pair = clip_sampling.sample_pair(corpus.index[chosen], experiment.sampling, generator, speed_task=task)
    speeds = clip_sampling.draw_speeds(experiment.sampling, generator) if task else clip_sampling.Speeds(1, 1)
    starts = [(pair.query, speeds.pair), (pair.key, speeds.pair), (pair.other, speeds.other)]
    return chosen, [
        clip_sampling.clip_indices(start, FRAMES, experiment.sampling, speed)
        for start, speed in starts
        if start is not None
    ]


def decord_frames(corpus: Corpus) -> Callable[[int], None]:
    """Return the usual recipe: decord, then torchvision's transforms on PIL images, masks from PNG files."""
    import decord

    jitter, grey = transforms.ColorJitter(0.4, 0.4, 0.4, 0.4), transforms.RandomGrayscale(0.2)
    finish = transforms.Compose([transforms.ToTensor(), transforms.Normalize(pixels.MEAN, pixels.STD)])

    def view(frame: np.ndarray, mask: Image.Image) -> None:
        image = Image.fromarray(frame)
        crop = transforms.RandomResizedCrop.get_params(image, [0.4, 1.0], [3 / 4, 4 / 3])
        image = pil.resized_crop(image, *crop, [224, 224], transforms.InterpolationMode.BILINEAR)
        mask = pil.resized_crop(mask, *crop, [224, 224], transforms.InterpolationMode.NEAREST)
        image = grey(jitter(image))
        if np.random.random() < 0.5:
            image = image.filter(ImageFilter.GaussianBlur(np.random.uniform(0.1, 2.0)))
        if np.random.random() < 0.5:
            image, mask = pil.hflip(image), pil.hflip(mask)
        finish(image), pil.to_tensor(mask)

    def run(number: int) -> None:
        for place in range(PAIRS):
            chosen, clips = wanted_frames(corpus, IMAGE, number * PAIRS + place)
            frames = [clip[0] for clip in clips]
            reader = decord.VideoReader(str(corpus.files[chosen]), num_threads=1)
            images = reader.get_batch(frames).asnumpy()
            for frame, image in zip(frames, images, strict=True):
                view(image, Image.open(corpus.masks[chosen] / f"{frame:05d}.png"))

    return run


def decord_clips(corpus: Corpus, experiment: Experiment) -> Callable[[int], None]:
    """Return the least work to read clips by decord: the frames and one crop of each; no masks, no colours."""
    import decord

    size = experiment.augment.size

    def run(number: int) -> None:
        for place in range(PAIRS):
            chosen, clips = wanted_frames(corpus, experiment, number * PAIRS + place)
            wanted = sorted(set(itertools.chain(*clips)))
            reader = decord.VideoReader(str(corpus.files[chosen]), num_threads=1)
            images = dict(zip(wanted, reader.get_batch(wanted).asnumpy(), strict=True))
            for clip in clips:
                height, width = images[clip[0]].shape[:2]
                crop = crop_sampling.sample_crop(
                    None, height, width, config=experiment.sampling, generator=np.random.default_rng(number)
                )
                left, top, right, bottom = crop
                np.stack([cv2.resize(images[frame][top:bottom, left:right], (size, size)) for frame in clip])

    return run


def stall(corpus: Corpus, experiment: Experiment, step_seconds: float) -> float:
    """Return the share of time that a training step of `step_seconds` waits for its batch, with `WORKERS` loaders."""
    pairs = dataset.PairDataset(corpus.index, experiment)
    coming = loader.load_batches(pairs, Schedule(len(pairs), STEP_PAIRS, 1000, 0), 0, workers=WORKERS)
    waited, begun = 0.0, 0.0
    for number in range(28):
        if number == 8:  # workers have started and prefetched
            waited, begun = 0.0, time.perf_counter()
        before = time.perf_counter()
        next(coming)
        waited += time.perf_counter() - before
        time.sleep(step_seconds)  # like a GPU that computes: no CPU time is used
    return waited / (time.perf_counter() - begun)


@pytest.mark.bench
def test_a_pair_costs_less_than_by_decord(corpus: Corpus):
    tasks = {
        "frames": {
            "ours": ours(corpus, IMAGE, augmented=False),
            "ours + augmentation": ours(corpus, IMAGE, augmented=True),
            "decord": decord_frames(corpus),
        },
        "2 x 16": {"ours": ours(corpus, TWO_CLIPS, augmented=False), "decord": decord_clips(corpus, TWO_CLIPS)},
        "3 x 16": {"ours": ours(corpus, THREE_CLIPS, augmented=False), "decord": decord_clips(corpus, THREE_CLIPS)},
    }
    seconds: dict[str, dict[str, list[float]]] = {task: {name: [] for name in runs} for task, runs in tasks.items()}
    with one_thread():
        for number in range(ROUNDS + 1):
            for task, runs in tasks.items():
                for name in list(runs)[:: 1 if number % 2 else -1]:
                    before = time.process_time()
                    runs[name](number)
                    if number:  # the first round warms up
                        seconds[task][name].append((time.process_time() - before) / PAIRS)
    stored = sum(row.size for row in corpus.index) / len(corpus.index) / 1024
    long = sum(path.stat().st_size for path in corpus.files) / len(corpus.files) / 1024
    results: dict[str, dict[str, float]] = {}
    print(f"\n{len(corpus.index)} videos of 10 s, {PAIRS} pairs, {ROUNDS} rounds, one thread: CPU-ms a pair (median),")
    print("and decord's time over ours in the same round: median, least")
    for task, of_task in seconds.items():
        for name, row in of_task.items():
            ratios = np.array(of_task["decord"]) / np.array(row)
            line = {"ms": 1e3 * float(np.median(row)), "faster": float(np.median(ratios)), "least": float(min(ratios))}
            results[f"{task}, {name}"] = line
            print(f"{task:8}{name:22}" + "".join(f"{value:10.2f}" for value in line.values()))
    print(f"KiB a video: ours {stored:.0f}, one GOP {long:.0f}, ratio {stored / long:.2f}")
    results["store"] = {"ours_kib": stored, "long_kib": long, "ratio": stored / long}
    for task, experiment in (("frames", IMAGE), ("2 x 16", TWO_CLIPS), ("3 x 16", THREE_CLIPS)):
        # from a step that is as long as the loaders need for its pairs, to a step three times as long
        alone = results[f"{task}, ours"]["ms"] / 1e3 * STEP_PAIRS / WORKERS
        shares = {f"step_{ratio}": stall(corpus, experiment, ratio * alone) for ratio in (1, 1.5, 2, 3)}
        results[f"{task}, stall"] = {"alone_ms": 1e3 * alone, **shares}
        shown = ", ".join(f"{share:.1%} at {name.removeprefix('step_')}x" for name, share in shares.items())
        print(
            f"{task:8}waits of a step of {STEP_PAIRS} pairs, {WORKERS} workers that need {1e3 * alone:.0f} ms: {shown}"
        )
    if target := os.environ.get("PREVITS_BENCH_OUT"):
        Path(target).mkdir(parents=True, exist_ok=True)
        (Path(target) / "loader.json").write_text(json.dumps(results, indent=1))
    print(json.dumps(results, indent=1))
