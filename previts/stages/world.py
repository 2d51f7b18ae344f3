"""The verb `world`, which makes the synthetic world of the demo."""

from previts.errors import InputError
from previts.stages.addresses import FORMATS
from previts.stages.outputs import done, exclusive, made
from previts.storage import folders


@exclusive
def world(root: str, seed: int = 0) -> str:
    """Make a small synthetic world to try the pipeline on: a crawl of videos, and datasets in official layouts.

    Args:
        root: Folder or bucket prefix of all results. The world is written to ROOT/world/.
        seed: Seed of the random objects and scenes, 0 or more.

    Returns:
        URI of a folder with `crawl.csv` and `datasets/`.
    """
    if seed < 0:
        raise InputError(f"seed must be 0 or more, got {seed}")
    decided = {"seed": seed, "format": FORMATS["world"]}
    uri = folders.address(root, "world", "demo", decided)
    if done(uri):
        return uri
    from previts import demo

    counts = demo.make_world(uri, demo.WorldConfig(seed=seed))
    folders.commit(uri, decided, counts=counts)
    return made(uri)
