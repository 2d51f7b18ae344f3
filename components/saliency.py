"""Find the salient regions of the frames of one part of a corpus."""

from kfp import dsl

from components._images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def saliency(
    videos: str,
    model: str,
    root: str,
    summary: dsl.Output[dsl.Markdown],
    profile: str = "paper",
    set: list[str] = [],
    part: int = 0,
    parts: int = 1,
) -> str:
    """See `previts.stages.saliency`."""
    from previts import addresses, cli, stages

    with cli.readable_errors(), open(summary.path, "w") as page:
        uri = stages.saliency(videos, model, root, profile, set, int(part), int(parts))
        page.write(addresses.describe(uri))
    return uri
