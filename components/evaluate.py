"""The component of the verb `evaluate`, for a share of the evaluations of a run."""

from kfp import dsl

from components._images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def evaluate(
    indexes: dict[str, str],
    data: str,
    root: str,
    rows: list[str],
    seeds: list[int],
    part: int,
    summary: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    benchmarks: list[str] = [],
    profile: str = "paper",
    set: list[str] = [],
    processes: int = 1,
) -> list[str]:
    """Run a share of the evaluations, usually one checkpoint on one benchmark; a failure is stored as a result."""
    from components._step import run_stages
    from previts.runs import steps

    return run_stages(
        lambda: steps.evaluate(
            indexes=indexes,
            data=data,
            root=root,
            rows=rows,
            seeds=[int(seed) for seed in seeds],
            benchmarks=benchmarks,
            profile=profile,
            set=set,
            processes=int(processes),
            part=int(part),
        ),
        summary.path,
        metrics.metadata,
        root=root,
        name=f"evaluate-{int(part)}",
    )
