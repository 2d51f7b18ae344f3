"""Pairs a second of one loader worker if a bucket answers late, compared with the local disk in one interleaved run.

The corpus is in a store on this disk that waits before each answer (`counted_store.py`). The last variant keeps blocks
on this disk, and has read its batches before. Run it by `make bench`, or alone with `-m bench -s`.
`PREVITS_BENCH_ROUNDS` sets how often each variant runs, `PREVITS_BENCH_STEPS` its number of batches. Results are also
written to `bucket.json` in the folder `PREVITS_BENCH_OUT`.
"""

import json
import os
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import counted_store
import pyarrow as pa
import pytest
from loader_corpus import IMAGE, THREE_CLIPS, TWO_CLIPS, write_corpus
from one_core import one_thread

from previts.config.experiment import Experiment
from previts.corpus import tube_table, video_table
from previts.corpus.index_table import Crawl, Index
from previts.pretraining import dataset, loader
from previts.pretraining.schedule import Schedule

VIDEOS, SHARDS = 12, 40  # each shard has the same videos, so that near ranges are as rare as in a large corpus
BATCH = 32  # the share of a process of 256 pairs on 8 GPUs
ROUNDS = int(os.environ.get("PREVITS_BENCH_ROUNDS", "3"))
STEPS = int(os.environ.get("PREVITS_BENCH_STEPS", "4"))
LATENCIES = (0, 10, 30, 50)  # milliseconds


@dataclass(frozen=True)
class Rate:
    """What one variant took: pairs a second, CPU-milliseconds a pair and requests a pair."""

    pairs: float
    cpu_ms: float
    requests: float


@pytest.fixture(scope="module")
def index(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    made = write_corpus(real_data / "crawl", VIDEOS, tmp_path_factory.mktemp("bucket")).index
    (crawl,), table = made.crawls, made.table
    for shard in range(1, SHARDS):
        for folder, name in ((crawl.videos, video_table.tar_name), (crawl.tubes, tube_table.blob_name)):
            os.link(Path(folder, name(0)), Path(folder, name(shard)))
    place = table.schema.get_field_index("shard")
    field = table.schema.field(place)
    copies = [table.set_column(place, field, pa.array([n] * len(table), field.type)) for n in range(SHARDS)]
    return replace(made, table=pa.concat_tables(copies))


def rate(index: Index, experiment: Experiment, latency: float, cache: str = "") -> Rate:
    pairs = dataset.PairDataset(index, experiment, (cache, 10**10) if cache else None)
    counted_store.LATENCY = latency / 1e3
    batches = loader.load_batches(pairs, Schedule(len(pairs), BATCH, 10, 0), 0)
    next(batches)
    counted_store.REQUESTS.clear()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(STEPS):
        next(batches)
    count = BATCH * STEPS
    took = Rate(count / (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu) / count, 0)
    batches.close()
    return replace(took, requests=counted_store.REQUESTS["read"] / count)


@pytest.mark.bench
def test_a_worker_with_a_late_bucket(index: Index, tmp_path: Path):
    (crawl,) = index.crawls
    bucket = replace(index, crawls=(Crawl(f"counted://{crawl.videos}", f"counted://{crawl.tubes}"),))
    results: dict[str, dict[str, float]] = {}
    print(f"\n{BATCH} pairs a batch, {ROUNDS} rounds: pairs a second, its ratio to the local disk in the same round")
    print("(median, least), CPU-ms and requests a pair")
    with one_thread():
        for task, experiment in (("frames", IMAGE), ("2 x 16", TWO_CLIPS), ("3 x 16", THREE_CLIPS)):
            local: list[Rate] = []
            late: dict[str, list[Rate]] = {}
            for number in range(ROUNDS + 1):
                here = rate(index, experiment, 0)
                there = {f"{latency} ms": rate(bucket, experiment, latency) for latency in LATENCIES}
                there["30 ms, kept"] = rate(bucket, experiment, 30, str(tmp_path / task))
                if number:  # the first round warms up
                    local.append(here)
                    for name, each in there.items():
                        late.setdefault(name, []).append(each)
            for name, rates in {"local disk": local, **late}.items():
                ratios = [each.pairs / here.pairs for each, here in zip(rates, local, strict=True)]
                line = {
                    "pairs": statistics.median(each.pairs for each in rates),
                    "ratio": statistics.median(ratios),
                    "least": min(ratios),
                    "cpu_ms": statistics.median(each.cpu_ms for each in rates),
                    "requests": statistics.median(each.requests for each in rates),
                }
                results[f"{task}, {name}"] = line
                print(f"{task:8}{name:12}" + "".join(f"{value:9.2f}" for value in line.values()))
    if target := os.environ.get("PREVITS_BENCH_OUT"):
        Path(target).mkdir(parents=True, exist_ok=True)
        (Path(target) / "bucket.json").write_text(json.dumps(results, indent=1))
