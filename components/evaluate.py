"""The component of the verb `evaluate`."""

from kfp import dsl

from components._images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def evaluate(
    row: str,
    benchmark: str,
    checkpoint: str,
    data: str,
    root: str,
    summary: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    profile: str = "paper",
    set: list[str] = [],
    processes: int = 1,
) -> str:
    """Evaluate one checkpoint on one benchmark; a failure is stored as a result and does not fail this step."""
    from components._step import run_stage
    from previts.stages import subprocess_evaluation

    return run_stage(
        lambda: subprocess_evaluation.evaluate_in_subprocess(
            row=row,
            benchmark=benchmark,
            checkpoint=checkpoint,
            data=data,
            root=root,
            profile=profile,
            set=set,
            processes=int(processes),
        ),
        summary.path,
        metrics.metadata,
    )
