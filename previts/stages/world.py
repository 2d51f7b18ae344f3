"""The verb `world`, which makes the synthetic world of the demo."""

import sys

from previts.errors import InputError
from previts.stages.addresses import FORMATS
from previts.stages.outputs import done, exclusive, made
from previts.storage import folders

CRAWLS = (1, 2, 3)


@exclusive
def world(root: str, seed: int = 0, crawls: int = 1) -> str:
    """Make a small synthetic world to try the pipeline on: crawls of videos, and datasets in official layouts.

    Args:
        root: Folder or bucket prefix of all results. The world is written to ROOT/world/.
        seed: Seed of the random objects and scenes, 0 or more.
        crawls: Number of crawls, 1 to 3. More of them are added to a world that exists. The second and the third
            also have copies of earlier videos and videos of test items, which a corpus should leave out.

    Returns:
        URI of a folder with `crawls/`, whose CSV files are the crawls, and `datasets/`.
    """
    if seed < 0:
        raise InputError(f"seed must be 0 or more, got {seed}")
    if crawls not in CRAWLS:
        raise InputError(f"crawls must be 1, 2 or 3, got {crawls}")
    decided = {"seed": seed, "format": FORMATS["world"]}
    uri = folders.address(root, "world", "demo", decided)
    finished = done(uri)
    if finished and crawls == 1:
        return uri
    from previts import demo

    config = demo.WorldConfig(seed=seed)
    if not finished:
        folders.commit(uri, decided, counts=demo.make_world(uri, config))
        made(uri)
    for crawl in range(2, crawls + 1):
        print(f"crawl {crawl}: {demo.add_crawl(uri, config, crawl)}", file=sys.stderr)
    return uri
