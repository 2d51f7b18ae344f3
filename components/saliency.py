"""The component of the verb `saliency`, for every perception of a run."""

from kfp import dsl

from components._images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def saliency(
    videos: str,
    models: dict[str, str],
    root: str,
    summary: dsl.Output[dsl.Markdown],
    profile: str = "paper",
    set: list[str] = [],
    part: int = 0,
    parts: int = 1,
) -> dict[str, str]:
    """Find the salient regions in the frames of one part of the videos."""
    from components._step import run_stages
    from previts.runs import steps

    return run_stages(
        lambda: steps.saliency(
            videos=videos, models=models, root=root, profile=profile, set=set, part=int(part), parts=int(parts)
        ),
        summary.path,
        root=root,
        name=f"saliency-{int(part)}",
    )
