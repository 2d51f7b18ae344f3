"""The verb `track`, which tracks the salient object of each video."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from previts.config import paper
from previts.corpus import members
from previts.errors import InputError
from previts.processes import workers
from previts.stages.addresses import FORMATS
from previts.stages.outputs import check_part, done, exclusive, fan_out, finished, made, of_each_crawl, part_done
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
    row: str = "",
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
        row: Row of the paper whose settings are used. By default, those that all rows share.

    Returns:
        URI of the tubes, for `index`.
    """
    check_part(part, parts)
    config = paper.resolve(row or None, profile, set).experiment.track
    # The saliency may not be finished yet, since other parts may still run. Its address has the fingerprint.
    crawls, maps = members.uris(videos), members.uris(saliency)
    if len(crawls) != len(maps):
        raise InputError(
            f"--saliency {saliency} is of {len(maps)} crawls, but --videos {videos} of {len(crawls)}; "
            "give the output of `previts saliency` for these videos"
        )
    regions = {**dict(zip(crawls, maps, strict=True)), videos: saliency}

    def decided(found: str) -> dict[str, Any]:
        return {
            "videos": finished(found, "videos"),
            "saliency": folders.fingerprint_of(regions[found], "saliency"),
            "track": asdict(config),
            "format": FORMATS["tubes"],
        }

    def address(found: str) -> str:
        return folders.address(root, "tubes", config.association, decided(found))

    def of_crawl(found: str, before: int) -> str:
        """Do this worker's part of one crawl."""
        uri = address(found)
        if done(uri, take=False):
            return uri
        from previts.corpus import tube_table
        from previts.storage import tables
        from previts.tracking import tracker

        total = tables.shard_count(found)
        with workers.pool(data=uri) as run:

            def work(shard: int) -> None:
                tracker.track_shard(found, regions[found], shard, config, uri, run)

            def is_done(shard: int) -> bool:
                return tube_table.is_done(uri, shard)

            if not fan_out(uri, total, part, parts, is_done=is_done, work=work, before=before):
                return part_done(uri)
        if done(uri):
            return uri
        tubes = [tube for shard in range(total) for tube in tube_table.read_shard(uri, shard)]
        folders.commit(
            uri,
            decided(found),
            inputs={"videos": found, "saliency": regions[found]},
            counts={"shards": total, "videos": len(tubes), "tubes": sum(tube.status == "tracked" for tube in tubes)},
            files=tables.table_names(total),
        )
        return made(uri)

    inputs = {"videos": videos, "saliency": saliency}
    return of_each_crawl(videos, address(videos), decided(videos), inputs, address, of_crawl)
