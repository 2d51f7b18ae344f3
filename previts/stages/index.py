"""The verb `index`, which joins videos and tubes into the sampling index."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from previts.config import paper
from previts.stages.addresses import FORMATS
from previts.stages.outputs import done, exclusive, finished, made
from previts.storage import folders


@exclusive
def index(videos: str, tubes: str, root: str, profile: str = "paper", set: Sequence[str] = ()) -> str:
    """Join videos and tubes of all crawls into the table of frames that may be sampled. A filter can leave videos out.

    Videos that `previts withdraw` named are left out.

    Args:
        videos: URI that `download` returned.
        tubes: URI that `track` returned.
        root: Folder or bucket prefix of all results.
        profile: Size of the run: paper or demo.
        set: Settings to change, such as filter.min_agreement=0.3.

    Returns:
        URI of the index, for `pretrain`.
    """
    from previts.corpus import withdrawals

    config = paper.resolve(None, profile, set).experiment.filter
    decided: dict[str, Any] = {
        "videos": finished(videos, "videos"),
        "tubes": finished(tubes, "tubes"),
        "filter": asdict(config),
        "format": FORMATS["index"],
    }
    # Withdrawals of other videos do not count, so they give no new index.
    ledger = withdrawals.read_for(videos, root=root)
    withdrawn: list[tuple[int, str]] = []
    if ledger:
        from previts.corpus.withdrawn_videos import withdrawn_ids

        withdrawn = withdrawn_ids(videos, ledger)
    if withdrawn:
        decided["withdrawn"] = withdrawn
    uri = folders.address(root, "index", "corpus", decided)
    if done(uri):
        return uri
    from previts.corpus.index_table import QUALITY, TABLE, join_corpus, write_index
    from previts.corpus.left_out import find_left_out

    counts = write_index(uri, join_corpus(videos, tubes), config, find_left_out(videos, config, ledger))
    if not counts["videos_with_tube"]:
        print(
            "no video has a tube: only rows without tracking, such as 1/vgg/moco, can be pretrained on this index",
            file=sys.stderr,
        )
    folders.commit(uri, decided, inputs={"videos": videos, "tubes": tubes}, counts=counts, files=(TABLE, QUALITY))
    return made(uri)
