"""Fetch and normalise the videos of a crawl."""

from kfp import dsl

from components._images import DATA_IMAGE


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def download(
    crawl: str,
    root: str,
    summary: dsl.Output[dsl.Markdown],
    profile: str = "paper",
    set: list[str] = [],
    part: int = 0,
    parts: int = 1,
    max_failure_fraction: float = 0.5,
) -> str:
    """See `previts.stages.download`."""
    from previts import addresses, cli, stages

    with cli.readable_errors(), open(summary.path, "w") as page:
        uri = stages.download(crawl, root, profile, set, int(part), int(parts), max_failure_fraction)
        page.write(addresses.describe(uri))
    return uri
