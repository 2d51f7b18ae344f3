"""The component of the verb `fit_saliency`."""

from kfp import dsl

from components._images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def fit_saliency(
    videos: str, root: str, summary: dsl.Output[dsl.Markdown], profile: str = "paper", set: list[str] = []
) -> str:
    """Prepare the saliency model for the stored videos."""
    from components._step import run_stage
    from previts import stages

    return run_stage(
        lambda: stages.fit_saliency(videos=videos, root=root, profile=profile, set=set),
        summary.path,
    )
