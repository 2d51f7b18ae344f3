"""The verb `index`, which joins videos and tubes into the sampling index."""

import sys
from collections.abc import Sequence
from dataclasses import asdict

from previts.config import paper
from previts.errors import InputError
from previts.stages.addresses import FORMATS
from previts.stages.outputs import done, exclusive, finished, made
from previts.storage import folders


@exclusive
def index(videos: str, tubes: str, root: str, profile: str = "paper", set: Sequence[str] = ()) -> str:
    """Join videos and tubes into the table of the frames that may be sampled. A filter can exclude videos.

    Args:
        videos: URI that `download` returned.
        tubes: URI that `track` returned.
        root: Folder or bucket prefix of all results.
        profile: Size of the run: paper or demo.
        set: Settings to change, such as filter.min_agreement=0.3.

    Returns:
        URI of the index, for `pretrain`.
    """
    config = paper.resolve(None, profile, set).experiment.filter
    decided = {
        "videos": finished(videos, "videos"),
        "tubes": finished(tubes, "tubes"),
        "filter": asdict(config),
        "format": FORMATS["index"],
    }
    uri = folders.address(root, "index", "corpus", decided)
    if done(uri):
        return uri
    from previts.corpus.index_table import QUALITY, TABLE, join_shard, write_index
    from previts.storage import tables

    total = tables.shard_count(videos)
    if total != tables.shard_count(tubes):
        raise InputError(
            f"{tubes} has {tables.shard_count(tubes)} shards, but {videos} has {total}; run `previts saliency` and "
            "`previts track` on these videos"
        )
    rows = [row for shard in range(total) for row in join_shard(videos, tubes, shard)]
    if len(rows) != (stored := folders.read_manifest(videos).counts.get("ok", len(rows))):
        raise InputError(
            f"the tables of {videos} have {len(rows)} usable videos, its {folders.MANIFEST} says {stored}; delete both "
            "and run `previts download` again"
        )
    counts = write_index(uri, rows, config)
    if not counts["videos_with_tube"]:
        print(
            "no video has a tube: only rows without tracking, such as 1/vgg/moco, can be pretrained on this index",
            file=sys.stderr,
        )
    folders.commit(uri, decided, inputs={"videos": videos, "tubes": tubes}, counts=counts, files=(TABLE, QUALITY))
    return made(uri)
