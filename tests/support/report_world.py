"""A small set of outputs for the report, written by the functions of the stages, and a parser of the report page."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from previts.config import experiment
from previts.config.experiment import Experiment
from previts.config.perception import FilterConfig, TrackConfig
from previts.corpus import index_table
from previts.corpus.region_table import SaliencyRecord
from previts.corpus.truth import write_masks
from previts.evals.outcome import ITEMS, ItemScores, Population, pack
from previts.evals.result import Result, write_result
from previts.ingest import shards
from previts.ingest.crawls import CrawlItem
from previts.media import masks, normalisation
from previts.reporting.inputs import ReportRow, Seed
from previts.reporting.page import build_report
from previts.storage import files, folders, tables
from previts.tracking import tracker

EVIL = '<script>alert("x")</script>'
WORLD_SECONDS, FPS, HEIGHT, WIDTH = 2, 8, 72, 128


def moving_square(number: int, frames: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield frames with a bright square on a gradient, and its mask; square `number` leaves after some frames."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for frame in range(frames):
        image = np.stack([columns, rows * 2, (columns + rows + 20 * number) % 200], axis=-1).astype(np.uint8)
        left, top = 8 + (3 * frame + 17 * number) % (WIDTH - 44), 12 + (5 * number) % 24
        mask = np.zeros((HEIGHT, WIDTH), bool)
        if number != 3 and frame < frames - 3 * number:
            mask[top : top + 26, left : left + 30] = True
        image[mask] = (240, 230, 60)
        yield image, mask


def make_corpus(root: Path, names: list[str], *, truth: bool = False, config: FilterConfig | None = None) -> str:
    """Write a corpus by the functions of the stages and return the URI of its index; the last video cannot be decoded.

    With `truth` exact masks are written next to the crawl, for every video whose name can be a file name.
    """
    config = config or FilterConfig()
    source = root / "source"
    source.mkdir(parents=True)
    items, exact = [], {}
    for number, name in enumerate(names):
        path = source / f"{number}.mp4"
        items.append(CrawlItem(name, str(path), None, None, "square", "train"))
        if number == len(names) - 1:
            path.write_bytes(b"not a video")
            continue
        frames = list(moving_square(number, WORLD_SECONDS * FPS))
        normalisation.encode_video([image for image, _ in frames], FPS, str(path))
        exact[name] = [mask for _, mask in frames]
        if truth and "/" not in name:
            write_masks(str(source / "masks" / f"{name}.npz"), np.stack(exact[name]))
    videos, saliency, tracked, indexed = (
        str(root / stage) for stage in ("videos/c-0", "saliency/s-0", "tubes/t-0", "index/i-0")
    )
    rows = shards.build_shard(items, 0, videos, experiment.VideoConfig())
    errors = {row.error: 1 for row in rows if row.status == "failed"}
    counts = {"videos": len(rows), "ok": len(rows) - len(errors), "failed": len(errors), "shards": 1}
    inputs = {"crawl": str(source / "crawl.csv")}
    folders.commit(videos, {}, inputs=inputs, counts=counts, info={"errors": errors}, files=tables.table_names(1))
    salient = [
        SaliencyRecord(
            row.video_id,
            frame,
            row.height,
            row.width,
            [masks.encode_rle(exact[row.video_id][frame])] if exact[row.video_id][frame].any() else [],
            0.5 + 0.1 * number if frame == 0 else None,
        )
        for number, row in enumerate(rows)
        if row.status == "ok"
        for frame in range(row.num_frames)
    ]
    tables.write_records(files.join(saliency, tables.table_name(0)), SaliencyRecord, salient)
    folders.commit(saliency, {}, inputs={"videos": videos}, counts={"shards": 1}, files=tables.table_names(1))
    tracker.track_shard(videos, saliency, 0, TrackConfig(), tracked)
    inputs = {"videos": videos, "saliency": saliency}
    folders.commit(tracked, {}, inputs=inputs, counts={"shards": 1}, files=tables.table_names(1))
    joined = index_table.join_shard(videos, tracked, 0)
    counts = index_table.write_index(indexed, [joined], config)
    decided = {"filter": asdict(config)}
    inputs = {"videos": videos, "tubes": tracked}
    folders.commit(indexed, decided, inputs=inputs, counts=counts, files=(index_table.TABLE, index_table.QUALITY))
    return indexed


def make_checkpoint(root: Path, name: str, corpus: str, attention_weight: float, steps: int = 40) -> str:
    uri = str(root / "checkpoints" / f"resnet-{name}")
    plain = json.loads(Experiment().to_json())
    plain["objective"]["attention_weight"] = attention_weight
    files.write_json(files.join(uri, "experiment.json"), plain)
    random = np.random.default_rng(len(name))
    lines = []
    for step in range(0, steps * 10, 10):
        entry = {"step": step, "epoch": step / 100, "loss_contrastive": 7 * math.exp(-step / 200) + random.random() / 3}
        if attention_weight:
            entry |= {"loss_attention": 0.8 * math.exp(-step / 300), "attention_iou": 0.6 - 0.4 * math.exp(-step / 150)}
        entry["loss"] = entry["loss_contrastive"] + attention_weight * entry.get("loss_attention", 0)
        lines.append(json.dumps(entry | {"lr": 0.03, "pairs_per_second": 80 + random.random()}))
    files.write_bytes(files.join(uri, "log.jsonl"), ("\n".join(lines) + '\n{"step": 99').encode())
    folders.commit(uri, {"name": name}, inputs={"index": corpus}, files=("experiment.json", "log.jsonl"))
    return uri


def fingerprint(uri: str) -> str:
    """Return the fingerprint of a finished folder."""
    return folders.read_manifest(uri).fingerprint


def attention_figure(quality: float, names: tuple[str, ...] = ("dog", "boat")) -> bytes:
    frames, truth = zip(*moving_square(0, 7), strict=True)
    cams = np.random.default_rng(0).random((len(names), 6, 7, 7)) * (1 - quality)
    for number, mask in enumerate(truth[1:]):
        cells = np.array(
            [[part.mean() for part in np.array_split(band, 7, axis=1)] for band in np.array_split(mask, 7)]
        )
        cams[:, number] += quality * cells
    file = io.BytesIO()
    np.savez_compressed(
        file, names=np.array(names), frames=np.stack([np.stack(frames[1:])] * len(names)), cams=cams.astype(np.float16),
        masks=np.stack([np.stack(truth[1:])] * len(names)), key_frames=np.stack([frames[0]] * len(names)),
        key_masks=np.stack([truth[0]] * len(names)),
    )  # fmt: skip
    return file.getvalue()


def class_figure(predicted: str) -> bytes:
    """Two videos of two frames. The first has the class "Hop", and its left half has the attention."""
    file = io.BytesIO()
    frames, cams = np.full((2, 2, 64, 64, 3), 120, np.uint8), np.zeros((2, 2, 2, 2), np.float16)
    cams[0, :, :, 0] = 1
    names, classes = np.array(["a.avi", EVIL]), np.array(["Hop", "Spin"])
    np.savez_compressed(
        file, names=names, classes=classes, predicted=np.array([predicted, EVIL]), frames=frames, cams=cams
    )
    return file.getvalue()


def make_result(
    root: Path,
    benchmark: str,
    checkpoint: str,
    metrics: dict[str, float | None],
    *,
    error: str = "",
    figure: bytes = b"",
    name: str = "attention.npz",
    populations: dict[str, Population] | None = None,
    items: Mapping[str, ItemScores] | None = None,
) -> str:
    fingerprint = folders.read_manifest(checkpoint).fingerprint
    number = len(list((root / "results").glob("*")))
    uri = str(root / "results" / f"{benchmark}-{fingerprint}-r{number}")
    result = Result(
        row="",
        benchmark=benchmark,
        checkpoint=fingerprint,
        status="failed" if error else "ok",
        error=error,
        metrics=metrics,
        populations=populations or {},
        protocol={"limit": 0, "costs": [0.1, 1.0], "rows": [{"name": EVIL}] * 50},
        seconds=12.3,
        figures=(name,) if figure else (),
    )
    write_result(uri, result)
    if figure:
        files.write_bytes(files.join(uri, "figures", name), figure)
    if items:
        files.write_bytes(files.join(uri, ITEMS), pack(items))
    folders.commit(
        uri,
        {"number": number},
        inputs={"checkpoint": checkpoint, "data": str(root / "datasets")},
        counts={key: value for key, value in metrics.items() if value is not None},
        files=["result.json", *([f"figures/{name}"] if figure else []), *([ITEMS] if items else [])],
    )
    return uri


@dataclass
class World:
    results: list[str]
    rows: list[ReportRow]
    target: Path
    counts: dict[str, int | float]

    @property
    def html(self) -> str:
        return (self.target / "report.html").read_text()

    @property
    def markdown(self) -> str:
        return (self.target / "report.md").read_text()

    @property
    def cells(self) -> dict[tuple[str, str], dict[str, str]]:
        lines = csv.DictReader(io.StringIO((self.target / "report.csv").read_text()))
        return {(line["row"], line["metric"]): line for line in lines}


class Reader(HTMLParser):
    """Collects the elements, the rows of tables and the text of a page."""

    VOID = frozenset({"meta", "link", "br", "img", "rect", "path", "use"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        while self.open[-1] == "li" != tag:  # HTML closes these implicitly
            self.open.pop()
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.rows[-1] and "tr" in self.open:
            self.rows[-1][-1] += data

    def row(self, start: str) -> list[str]:
        """Return the title and the cells of the first row whose title starts like this, from all parts of its table."""
        rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]
        title = next(cells[0] for cells in rows if cells and cells[0].startswith(start))
        return [title, *(cell for cells in rows if cells and cells[0] == title for cell in cells[1:])]


@dataclass(frozen=True)
class SeededArm:
    """An arm for `make_seeded`: numbers by seed (None: not trained), and the paper's."""

    name: str
    numbers: Mapping[int, Mapping[str, float | None] | None]
    reported: Mapping[str, float]
    title: str = ""
    items: Mapping[int, Mapping[str, ItemScores]] | None = None


def make_seeded(root: Path, arms: Sequence[SeededArm], **options: Any) -> World:
    """Write checkpoints and results of arms with several seeds, and build their report."""
    rows, results = [], []
    for arm in arms:
        seeds = []
        for seed, numbers in arm.numbers.items():
            uri = str(root / "checkpoints" / f"resnet-{arm.name.replace('/', '-')}-{seed}")
            seeds.append(Seed(seed, uri, f"absent-{arm.name}-{seed}"))
            if numbers is None:
                continue
            folders.commit(uri, {"arm": arm.name, "seed": seed})
            seeds[-1] = Seed(seed, uri, fingerprint(uri))
            for benchmark in dict.fromkeys(key.split("/")[0] for key in numbers):
                mine = {key: value for key, value in numbers.items() if key.split("/")[0] == benchmark}
                scores = {key: item for key, item in (arm.items or {}).get(seed, {}).items() if key in mine}
                results.append(make_result(root, benchmark, uri, mine, items=scores))
        first = seeds[0]
        rows.append(
            ReportRow(
                arm.name,
                arm.title or arm.name,
                first.checkpoint,
                first.fingerprint,
                dict(arm.reported),
                seeds=tuple(seeds),
            )
        )
    target = root / "out"
    return World(results, rows, target, build_report(results, str(target), rows, profile="demo", **options))
