"""Follow the most salient object of each video of one part of a corpus."""

from kfp import dsl

from components._images import DATA_IMAGE


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def track(
    videos: str,
    saliency: str,
    root: str,
    summary: dsl.Output[dsl.Markdown],
    profile: str = "paper",
    set: list[str] = [],
    part: int = 0,
    parts: int = 1,
) -> str:
    """See `previts.stages.track`."""
    from previts import addresses, cli, stages

    with cli.readable_errors(), open(summary.path, "w") as page:
        uri = stages.track(videos, saliency, root, profile, set, int(part), int(parts))
        page.write(addresses.describe(uri))
    return uri
