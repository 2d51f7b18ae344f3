"""The component of the verb `saliency`."""

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
    """Find the salient regions in the frames of one part of the videos."""
    from components._step import run_stage
    from previts import stages

    return run_stage(
        lambda: stages.saliency(
            videos=videos, model=model, root=root, profile=profile, set=set, part=int(part), parts=int(parts)
        ),
        summary.path,
    )
