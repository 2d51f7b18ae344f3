"""The component of the verb `fit_saliency`, for every perception of a run."""

from kfp import dsl

from components._images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def fit_saliency(
    videos: str,
    root: str,
    rows: list[str],
    summary: dsl.Output[dsl.Markdown],
    profile: str = "paper",
    set: list[str] = [],
) -> dict[str, str]:
    """Prepare the saliency model of each perception for the stored videos."""
    from components._step import run_stages
    from previts.runs import steps

    return run_stages(
        lambda: steps.fit_saliency(videos=videos, root=root, rows=rows, profile=profile, set=set),
        summary.path,
        root=root,
        name="fit-saliency",
    )
