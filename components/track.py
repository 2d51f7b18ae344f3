"""The component of the verb `track`."""

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
    """Follow the most salient object through each video of one part."""
    from components._step import run_stage
    from previts import stages

    return run_stage(
        lambda: stages.track(
            videos=videos, saliency=saliency, root=root, profile=profile, set=set, part=int(part), parts=int(parts)
        ),
        summary.path,
    )
