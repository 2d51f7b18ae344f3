"""The verb `track`, which tracks the salient object of each video."""

from collections.abc import Sequence
from dataclasses import asdict

from previts.config import paper
from previts.processes import workers
from previts.stages.addresses import FORMATS
from previts.stages.outputs import check_part, done, exclusive, fan_out, finished, made, part_done
from previts.storage import folders


@exclusive
def track(
    videos: str,
    saliency: str,
    root: str,
    profile: str = "paper",
    set: Sequence[str] = (),
    part: int = 0,
    parts: int = 1,
) -> str:
    """Track the largest salient region of each video. The result is one tube a video: its mask through time.

    Args:
        videos: URI that `download` returned.
        saliency: URI that `saliency` returned. The shards of this --part must be finished.
        root: Folder or bucket prefix of all results.
        profile: Size of the run: paper or demo.
        set: Settings to change, such as track.association=mask.
        part: Number of this worker, from 0 to parts - 1.
        parts: Number of workers that share the work.

    Returns:
        URI of the tubes, for `index`.
    """
    check_part(part, parts)
    config = paper.resolve(None, profile, set).experiment.track
    decided = {
        "videos": finished(videos, "videos"),
        # The saliency may not be committed yet, since other parts may still run. Its address has the fingerprint.
        "saliency": folders.fingerprint_of(saliency, "saliency"),
        "track": asdict(config),
        "format": FORMATS["tubes"],
    }
    uri = folders.address(root, "tubes", config.association, decided)
    if done(uri, take=False):
        return uri
    from previts.corpus import tube_table
    from previts.storage import tables
    from previts.tracking import tracker

    total = tables.shard_count(videos)
    with workers.pool(data=uri) as run:

        def work(shard: int) -> None:
            tracker.track_shard(videos, saliency, shard, config, uri, run)

        if not fan_out(uri, total, part, parts, is_done=lambda shard: tube_table.is_done(uri, shard), work=work):
            return part_done(uri)
    if done(uri):
        return uri
    tubes = [tube for shard in range(total) for tube in tube_table.read_shard(uri, shard)]
    folders.commit(
        uri,
        decided,
        inputs={"videos": videos, "saliency": saliency},
        counts={"shards": total, "videos": len(tubes), "tubes": sum(tube.status == "tracked" for tube in tubes)},
        files=tables.table_names(total),
    )
    return made(uri)
