"""A corpus of many crawls without videos: its crawl manifests, and the tables and manifests of all finished stages.

The formats and addresses are those of the project, because its own functions write and compute them. The tars are
empty. Each video lasts 10 s, as in section 4.1 of PreViTS, has 40 random hashes and an object in two spans.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from previts import stages
from previts.config import paper
from previts.corpus import members, video_table
from previts.corpus.tube_table import TubeRecord, blob_name
from previts.corpus.video_table import VideoRecord
from previts.ingest import crawl_identity, crawls
from previts.media.frame_hashes import HASH_BYTES
from previts.stages.addresses import FORMATS
from previts.storage import files, folders, tables

SETTINGS = ["saliency.method=rbd"]  # its model is only a name
FRAMES, GOP, HASHES, GOP_BYTES = 250, 12, 40, 20_000
GOPS = -(-FRAMES // GOP)


def write_crawls(folder: str, videos: int, count: int) -> None:
    """Write `count` crawl manifests with `videos` videos together."""
    share = videos // count
    for crawl in range(count):
        lines = [
            f"v{number:08d},https://videos.example/watch/{number:08d}.mp4,0,10,class {number % 300},train"
            for number in range(crawl * share, (crawl + 1) * share)
        ]
        text = "\n".join(["video_id,url,start_seconds,end_seconds,label,split", *lines]) + "\n"
        files.write_bytes(files.join(folder, f"{crawl:05d}.csv"), text.encode())


def write_outputs(folder: str, root: str) -> dict[str, str]:
    """Write what `download`, `saliency` and `track` make of the crawls in a folder, and return it by stage."""
    experiment = paper.resolve(None, "paper", SETTINGS).experiment
    settings = {name: value for name, value in asdict(experiment.video).items() if name != "max_lost_cpu_hours"}
    video = {"video": settings, "format": FORMATS["videos"]}
    model, generator, number = "", np.random.default_rng(0), 0
    made: dict[str, list[members.Member]] = {"videos": [], "saliency": [], "tubes": []}
    listed = crawls.list_crawls(folder)
    for source in listed:
        items = crawl_identity.read_identified(source)
        decided: dict[str, Any] = {"crawl": crawl_identity.crawl_identity(items), **video}
        uri = folders.address(root, "videos", "crawl", decided)
        size = experiment.video.videos_per_shard
        groups = [items[start : start + size] for start in range(0, len(items), size)]
        for shard, group in enumerate(groups):
            tables.write_table(files.join(uri, tables.table_name(shard)), _videos(group, shard, number, generator))
            files.write_bytes(files.join(uri, video_table.tar_name(shard)), b"")
            number += len(group)
        counts = {"videos": len(items), "ok": len(items), "failed": 0, "shards": len(groups)}
        names = tables.table_names(len(groups))
        inputs = {"crawl": files.absolute(source)}
        folders.commit(uri, decided, inputs=inputs, counts=counts, info={"errors": {}}, files=names)
        made["videos"].append(members.Member(uri, len(groups)))
        model = model or stages.fit_saliency(uri, root, "paper", SETTINGS)
        regions = {"videos": folders.read_manifest(uri).fingerprint, "model": folders.read_manifest(model).fingerprint}
        regions |= {"saliency": experiment.saliency.decided(), "format": FORMATS["saliency"]}
        maps = folders.address(root, "saliency", experiment.saliency.method, regions)
        inputs = {"videos": uri, "model": model}
        folders.commit(maps, regions, inputs=inputs, counts={"shards": len(groups), "key_frames": FRAMES * len(items)})
        made["saliency"].append(members.Member(maps, len(groups)))
        tracked = {"videos": regions["videos"], "saliency": folders.fingerprint_of(maps, "saliency")}
        tracked |= {"track": asdict(experiment.track), "format": FORMATS["tubes"]}
        tubes = folders.address(root, "tubes", experiment.track.association, tracked)
        for shard, group in enumerate(groups):
            tables.write_table(files.join(tubes, tables.table_name(shard)), _tubes(group))
            files.write_bytes(files.join(tubes, blob_name(shard)), b"")
        counts = {"shards": len(groups), "videos": len(items), "tubes": len(items)}
        folders.commit(tubes, tracked, inputs={"videos": uri, "saliency": maps}, counts=counts, files=names)
        made["tubes"].append(members.Member(tubes, len(groups)))
    return {"model": model, **run_stages(folder, root, model)}


def run_stages(folder: str, root: str, model: str) -> dict[str, str]:
    """Run the stages from `download` to `track`, and return their outputs; the outputs of known crawls are found."""
    videos = stages.download(folder, root, "paper", SETTINGS)
    saliency = stages.saliency(videos, model, root, "paper", SETTINGS)
    return {"videos": videos, "saliency": saliency, "tubes": stages.track(videos, saliency, root, "paper", SETTINGS)}


def _videos(items: list[crawls.CrawlItem], shard: int, number: int, generator: np.random.Generator) -> pa.Table:
    """Return the table of a shard whose videos are all stored; `number` is that of the first one in the corpus."""
    count = len(items)
    hashes = generator.integers(1, 1 << 62, (count, HASHES, HASH_BYTES // 8), dtype=np.uint64)
    digests = [f"{number + place:064x}" for place in range(count)]
    columns = {
        "video_id": [item.video_id for item in items],
        "url": [item.url for item in items],
        "identity": [item.identity for item in items],
        "label": [item.label for item in items],
        "split": [item.split for item in items],
        "status": ["ok"] * count,
        "error": [""] * count,
        "retryable": [False] * count,
        "shard": [shard] * count,
        "offset": [512 + place * (GOPS * GOP_BYTES + 1024) for place in range(count)],
        "size": [GOPS * GOP_BYTES] * count,
        "sha256": digests,
        "width": [340] * count,
        "height": [256] * count,
        "num_frames": [FRAMES] * count,
        "fps": [25.0] * count,
        "header": [bytes(range(44))] * count,
        "gop_frames": [list(range(0, FRAMES, GOP))] * count,
        "gop_offsets": [list(range(0, GOPS * GOP_BYTES + 1, GOP_BYTES))] * count,
        "gop_crcs": generator.integers(0, 1 << 32, (count, GOPS)).tolist(),
        "skipped_frames": [0] * count,
        "missing_seconds": [0.0] * count,
        "sandbox": ["{}"] * count,
        "hashes": [b"\0" + row.tobytes() for row in hashes],
        "source_sha256": digests,
        "start_seconds": [0.0] * count,
        "end_seconds": [10.0] * count,
    }
    return pa.table(columns, schema=tables.schema(VideoRecord))


def _tubes(items: list[crawls.CrawlItem]) -> pa.Table:
    """Return the table of tubes of a shard."""
    count = len(items)
    columns = {
        "video_id": [item.video_id for item in items],
        "status": ["tracked"] * count,
        "tracked_frames": [200] * count,
        "spans": [[[0, 120], [150, 230]]] * count,
        "mean_area": [0.1 + place % 64 / 1000 for place in range(count)],
        "offset": [place * 4000 for place in range(count)],
        "size": [4000] * count,
        "crc": [place for place in range(count)],
        "lost_frame": [230] * count,
        "border_share": [0.25] * count,
        "agreement": [0.5] * count,
    }
    return pa.table(columns, schema=tables.schema(TubeRecord))
