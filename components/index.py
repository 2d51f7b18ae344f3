"""The component of the verb `index`; its image has the readers of the labelled sets."""

from kfp import dsl

from components._images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def index(
    videos: str,
    tubes: str,
    root: str,
    summary: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    profile: str = "paper",
    set: list[str] = [],
    data: str = "",
) -> str:
    """Join videos and tubes into the index of the frames from which pretraining samples clips."""
    from components._step import run_stage
    from previts import stages

    return run_stage(
        lambda: stages.index(videos=videos, tubes=tubes, root=root, profile=profile, set=set, data=data),
        summary.path,
        metrics.metadata,
    )
