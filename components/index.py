"""Join videos and tubes into the sampling index."""

from kfp import dsl

from components._images import DATA_IMAGE


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def index(
    videos: str,
    tubes: str,
    root: str,
    summary: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    profile: str = "paper",
    set: list[str] = [],
) -> str:
    """See `previts.stages.index`."""
    from previts import addresses, cli, stages, storage

    with cli.readable_errors(), open(summary.path, "w") as page:
        uri = stages.index(videos, tubes, root, profile, set)
        page.write(addresses.describe(uri))
        metrics.metadata.update(storage.read_manifest(uri).counts)
    return uri
