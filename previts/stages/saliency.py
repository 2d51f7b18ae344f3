"""The verb `saliency`, which finds the salient regions of key frames."""

from collections.abc import Sequence
from dataclasses import asdict

from previts.config import paper
from previts.processes import workers
from previts.stages.addresses import FORMATS
from previts.stages.checks import check_method
from previts.stages.outputs import check_part, done, exclusive, fan_out, finished, made, part_done
from previts.storage import files, folders


@exclusive
def saliency(
    videos: str, model: str, root: str, profile: str = "paper", set: Sequence[str] = (), part: int = 0, parts: int = 1
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

    Returns:
        URI of the salient regions, for `track`.
    """
    check_part(part, parts)
    config = paper.resolve(None, profile, set).experiment.saliency
    decided = {
        "videos": finished(videos, "videos"),
        "model": finished(model, "saliency_model"),
        "saliency": asdict(config),
        "format": FORMATS["saliency"],
    }
    check_method(config.method, model)
    uri = folders.address(root, "saliency", config.method, decided)
    if done(uri, take=False):
        return uri
    from previts.corpus import region_table
    from previts.saliency import predict
    from previts.storage import tables

    total = tables.shard_count(videos)
    with workers.pool(data=uri) as run:

        def work(shard: int) -> None:
            predict.predict_shard(videos, model, shard, config, uri, run)

        if not fan_out(uri, total, part, parts, is_done=lambda shard: region_table.is_done(uri, shard), work=work):
            return part_done(uri)
    if done(uri):
        return uri
    keys = sum(tables.num_rows(files.join(uri, name)) for name in tables.table_names(total))
    counts = {"shards": total, "key_frames": keys}
    inputs = {"videos": videos, "model": model}
    folders.commit(uri, decided, inputs=inputs, counts=counts, files=tables.table_names(total))
    return made(uri)
