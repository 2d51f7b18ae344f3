"""The component of the verb `pretrain`."""

from kfp import dsl

from components._images import PRETRAIN_IMAGE


@dsl.component(base_image=PRETRAIN_IMAGE, install_kfp_package=False)
def pretrain(
    row: str,
    index: str,
    root: str,
    summary: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    profile: str = "paper",
    set: list[str] = [],
    launcher: str = "local",
    processes: int = 1,
    job: list[str] = [],
) -> str:
    """Pretrain the encoder of one row of the paper's tables."""
    from components._step import run_stage
    from previts import stages

    return run_stage(
        lambda: stages.pretrain(
            row=row,
            index=index,
            root=root,
            profile=profile,
            set=set,
            launcher=launcher,
            processes=int(processes),
            job=job,
        ),
        summary.path,
        metrics.metadata,
    )
