"""Prepare the saliency model of a corpus."""

from kfp import dsl

from components._images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def fit_saliency(
    videos: str, root: str, summary: dsl.Output[dsl.Markdown], profile: str = "paper", set: list[str] = []
) -> str:
    """See `previts.stages.fit_saliency`."""
    from previts import addresses, cli, stages

    with cli.readable_errors(), open(summary.path, "w") as page:
        uri = stages.fit_saliency(videos, root, profile, set)
        page.write(addresses.describe(uri))
    return uri
