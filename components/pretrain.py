"""The component of the verb `pretrain`, for a share of the trials of a run."""

from kfp import dsl

from components._images import PRETRAIN_IMAGE


@dsl.component(base_image=PRETRAIN_IMAGE, install_kfp_package=False)
def pretrain(
    indexes: dict[str, str],
    root: str,
    rows: list[str],
    seeds: list[int],
    part: int,
    summary: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    profile: str = "paper",
    set: list[str] = [],
    launcher: str = "local",
    processes: int = 1,
    job: list[str] = [],
) -> list[str]:
    """Pretrain the encoders of a share of the trials, usually one: a row of the paper's tables with a seed."""
    from components._step import run_stages
    from previts.runs import steps

    return run_stages(
        lambda: steps.pretrain(
            indexes=indexes,
            root=root,
            rows=rows,
            seeds=[int(seed) for seed in seeds],
            profile=profile,
            set=set,
            launcher=launcher,
            processes=int(processes),
            job=job,
            part=int(part),
        ),
        summary.path,
        metrics.metadata,
        root=root,
        name=f"pretrain-{int(part)}",
    )
