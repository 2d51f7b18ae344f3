"""The verb `saliency`, which finds the salient regions of key frames."""

from collections.abc import Sequence
from typing import Any

from previts.config import paper
from previts.processes import workers
from previts.stages.addresses import FORMATS
from previts.stages.checks import check_method
from previts.stages.outputs import check_part, done, exclusive, fan_out, finished, made, of_each_crawl, part_done
from previts.storage import files, folders


@exclusive
def saliency(
    videos: str,
    model: str,
    root: str,
    profile: str = "paper",
    set: Sequence[str] = (),
    part: int = 0,
    parts: int = 1,
    row: str = "",
) -> str:
    """Find the salient regions on every k-th frame of each video.

    Args:
        videos: URI that `download` returned.
        model: URI that `fit_saliency` returned; required for the handcrafted priors too.
        root: Folder or bucket prefix of all results.
        profile: Size of the run: paper or demo.
        set: Settings to change, such as saliency.every=5.
        part: Number of this worker, from 0 to parts - 1.
        parts: Number of workers that share the work.
        row: Row of the paper whose settings are used. By default, those that all rows share.

    Returns:
        URI of the salient regions, for `track`.
    """
    check_part(part, parts)
    config = paper.resolve(row or None, profile, set).experiment.saliency
    made_by = finished(model, "saliency_model")
    check_method(config.method, model)

    def decided(found: str) -> dict[str, Any]:
        settings = {"saliency": config.decided(), "format": FORMATS["saliency"]}
        return {"videos": finished(found, "videos"), "model": made_by, **settings}

    def address(found: str) -> str:
        return folders.address(root, "saliency", config.method, decided(found))

    def of_crawl(found: str, before: int) -> str:
        """Do this worker's part of one crawl."""
        uri = address(found)
        if done(uri, take=False):
            return uri
        from previts.corpus import region_table
        from previts.saliency import predict
        from previts.storage import tables

        total = tables.shard_count(found)
        with workers.pool(data=uri) as run:

            def work(shard: int) -> None:
                predict.predict_shard(found, model, shard, config, uri, run)

            def is_done(shard: int) -> bool:
                return region_table.is_done(uri, shard)

            if not fan_out(uri, total, part, parts, is_done=is_done, work=work, before=before):
                return part_done(uri)
        if done(uri):
            return uri
        keys = sum(tables.num_rows(files.join(uri, name)) for name in tables.table_names(total))
        counts = {"shards": total, "key_frames": keys}
        inputs = {"videos": found, "model": model}
        folders.commit(uri, decided(found), inputs=inputs, counts=counts, files=tables.table_names(total))
        return made(uri)

    inputs = {"videos": videos, "model": model}
    return of_each_crawl(videos, address(videos), decided(videos), inputs, address, of_crawl)
