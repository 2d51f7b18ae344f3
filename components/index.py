"""The component of the verb `index`, for every perception of a run; its image has the readers of the labelled sets."""

from kfp import dsl

from components._images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def index(
    videos: str,
    tubes: list[dict[str, str]],
    root: str,
    summary: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    profile: str = "paper",
    set: list[str] = [],
    data: str = "",
) -> dict[str, str]:
    """Join videos and the tubes of all parts into the index of the frames from which pretraining samples clips."""
    from components._step import run_stages
    from previts.runs import steps

    return run_stages(
        lambda: steps.index(videos=videos, tubes=tubes, root=root, profile=profile, set=set, data=data),
        summary.path,
        metrics.metadata,
        root=root,
        name="index",
    )
