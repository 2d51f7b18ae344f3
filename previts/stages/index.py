"""The verb `index`: join videos and tubes into the sampling index."""

import sys
from collections.abc import Sequence
from dataclasses import asdict

from previts.config import paper
from previts.stages.addresses import FORMATS
from previts.stages.outputs import done, finished, made
from previts.storage import folders


def index(videos: str, tubes: str, root: str, profile: str = "paper", set: Sequence[str] = ()) -> str:
    """Join videos and tubes into the table that says which frames may be sampled, and leave out what the filter names.

    Args:
        videos: URI that `download` returned.
        tubes: URI that `track` returned.
        root: Folder or bucket prefix under which every result lies.
        profile: Size of the run: paper or demo.
        set: One-off changes, such as filter.min_agreement=0.3.

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
    from previts.corpus.index_table import join_shard, write_index

    total = int(folders.read_manifest(videos).counts["shards"])
    rows = [row for shard in range(total) for row in join_shard(videos, tubes, shard)]
    counts = write_index(uri, rows, config)
    if not counts["videos_with_tube"]:
        print("no video has a tube: only rows without tracking can be pretrained on this index", file=sys.stderr)
    folders.commit(uri, decided, inputs={"videos": videos, "tubes": tubes}, counts=counts)
    return made(uri)
